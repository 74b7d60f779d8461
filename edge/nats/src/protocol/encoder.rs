//! Client operations → bytes, collected so that many go out in one write: a socket here has no TCP_NODELAY,
//! and two small writes can cost a delayed acknowledgement.

use serde::Serialize;

use super::{Headers, ProtocolError};

/// How the client proves who it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// The server asks for none.
    #[default]
    None,
    /// A shared token.
    Token(String),
    /// A user with a password.
    UserPassword {
        /// The user's name.
        user: String,
        /// The password.
        password: String,
    },
}

impl std::fmt::Debug for Credentials {
    /// Secrets stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token(…)",
            Self::UserPassword { .. } => "UserPassword(…)",
        })
    }
}

#[derive(Serialize)]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    headers: bool,
    no_responders: bool,
    protocol: u8,
    lang: &'static str,
    version: &'static str,
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
}

/// Bytes that wait for the next write.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes what waits; [`Self::recycle`] gives the allocation back.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Reuses a written buffer's allocation.
    pub fn recycle(&mut self, mut written: Vec<u8>) {
        if self.bytes.is_empty() && written.capacity() > self.bytes.capacity() {
            written.clear();
            self.bytes = written;
        }
    }

    /// Introduces the client.
    ///
    /// # Errors
    /// Never in practice: the options always form a JSON object.
    pub fn connect(&mut self, credentials: &Credentials) -> Result<(), ProtocolError> {
        let mut connect = Connect {
            verbose: false,
            pedantic: false,
            headers: true,
            no_responders: true,
            protocol: 1,
            lang: "rust-wasi",
            version: env!("CARGO_PKG_VERSION"),
            name: "orfeas-edge",
            auth_token: None,
            user: None,
            pass: None,
        };
        match credentials {
            Credentials::None => {}
            Credentials::Token(token) => connect.auth_token = Some(token),
            Credentials::UserPassword { user, password } => {
                connect.user = Some(user);
                connect.pass = Some(password);
            }
        }
        self.bytes.extend_from_slice(b"CONNECT ");
        serde_json::to_writer(&mut self.bytes, &connect)
            .map_err(|_| ProtocolError::new("connect options cannot be written"))?;
        self.bytes.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Asks for a PONG.
    pub fn ping(&mut self) {
        self.bytes.extend_from_slice(b"PING\r\n");
    }

    /// Answers a PING.
    pub fn pong(&mut self) {
        self.bytes.extend_from_slice(b"PONG\r\n");
    }

    /// Subscribes.
    ///
    /// # Errors
    /// The subject cannot be written.
    pub fn subscribe(&mut self, subject: &str, sid: u64) -> Result<(), ProtocolError> {
        check_subject(subject)?;
        self.bytes.extend_from_slice(format!("SUB {subject} {sid}\r\n").as_bytes());
        Ok(())
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, sid: u64) {
        self.bytes.extend_from_slice(format!("UNSUB {sid}\r\n").as_bytes());
    }

    /// Publishes.
    ///
    /// # Errors
    /// A subject or a header cannot be written; nothing is queued then.
    pub fn publish(
        &mut self,
        subject: &str,
        reply: Option<&str>,
        headers: &Headers,
        payload: &[u8],
    ) -> Result<(), ProtocolError> {
        check_subject(subject)?;
        reply.map_or(Ok(()), check_subject)?;
        let reply = reply.map(|reply| format!(" {reply}")).unwrap_or_default();
        if headers.is_empty() {
            let line = format!("PUB {subject}{reply} {}\r\n", payload.len());
            self.bytes.reserve(line.len() + payload.len() + 2);
            self.bytes.extend_from_slice(line.as_bytes());
        } else {
            let mut block = Vec::with_capacity(128);
            headers.encode(&mut block)?;
            let total = block.len() + payload.len();
            let line = format!("HPUB {subject}{reply} {} {total}\r\n", block.len());
            self.bytes.reserve(line.len() + total + 2);
            self.bytes.extend_from_slice(line.as_bytes());
            self.bytes.extend_from_slice(&block);
        }
        self.bytes.extend_from_slice(payload);
        self.bytes.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// Subjects reach this point made of validated ids; this is the last line that keeps one from holding an operation.
fn check_subject(subject: &str) -> Result<(), ProtocolError> {
    if subject.is_empty() || subject.bytes().any(|c| c.is_ascii_whitespace() || c.is_ascii_control()) {
        return Err(ProtocolError::new("subject cannot be written"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_written_as_the_protocol_says() {
        let mut encoder = Encoder::default();
        encoder.subscribe("_INBOX.a.*", 1).unwrap();
        encoder.ping();
        encoder.publish("a.b", None, &Headers::new(), b"hi").unwrap();
        encoder.publish("a", Some("r.1"), &Headers::new(), b"").unwrap();
        encoder.publish("a", Some("r"), &Headers::new().with("K", "v"), b"hi").unwrap();
        encoder.unsubscribe(1);
        let expected = "SUB _INBOX.a.* 1\r\nPING\r\nPUB a.b 2\r\nhi\r\nPUB a r.1 0\r\n\r\n\
            HPUB a r 18 20\r\nNATS/1.0\r\nK: v\r\n\r\nhi\r\nUNSUB 1\r\n";
        assert_eq!(String::from_utf8(encoder.take()).unwrap(), expected);
        assert!(encoder.is_empty());
    }

    #[test]
    fn a_subject_cannot_smuggle_an_operation() {
        let mut encoder = Encoder::default();
        for subject in ["", "a b", "a\r\nPUB x 0", "a\tb", "a\0"] {
            assert!(encoder.publish(subject, None, &Headers::new(), b"").is_err(), "{subject:?}");
            assert!(encoder.publish("a", Some(subject), &Headers::new(), b"").is_err(), "{subject:?}");
            assert!(encoder.subscribe(subject, 1).is_err(), "{subject:?}");
        }
        assert!(encoder.publish("a", None, &Headers::new().with("K", "v\r\n"), b"").is_err());
        assert!(encoder.is_empty(), "nothing is queued after an error");
    }

    #[test]
    fn secrets_go_to_the_server_and_not_to_the_log() {
        let credentials = Credentials::UserPassword { user: "edge".into(), password: "hush".into() };
        let mut encoder = Encoder::default();
        encoder.connect(&credentials).unwrap();
        let line = String::from_utf8(encoder.take()).unwrap();
        assert!(line.starts_with("CONNECT {") && line.ends_with("}\r\n"), "{line}");
        assert!(line.contains(r#""user":"edge","pass":"hush""#), "{line}");
        assert!(!format!("{credentials:?}").contains("hush"));
    }
}
