//! One connection's conversation with the server, without its I/O: the greeting, replies matched to their
//! requests, subscriptions, pings.
//!
//! ```text
//!  bytes in ─▶ Decoder ─▶ Session ─▶ replies by token, events by subscription
//!                            └─────▶ Encoder ─▶ bytes out
//! ```

use std::collections::VecDeque;

use crate::error::{Error, Unavailable};
use crate::protocol::{Credentials, Decoder, Encoder, Headers, Message, ServerInfo, ServerOp};

/// The inbox's subscription id; others count up from it.
const INBOX_SID: u64 = 1;

/// Events kept for a subscription whose owner is busy. Each event is a whole state, so the oldest may go.
const EVENTS_MAX: usize = 64;

/// Names a request whose reply, or replies, are awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(u64);

/// Names a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription(u64);

#[derive(Debug)]
struct Mailbox {
    id: u64,
    messages: VecDeque<Message>,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    credentials: Credentials,
    decoder: Decoder,
    encoder: Encoder,
    /// `_INBOX.<nonce>.`: a reply's token follows.
    inbox: String,
    next_id: u64,
    replies: Vec<Mailbox>,
    subscriptions: Vec<Mailbox>,
    server: Option<ServerInfo>,
    pongs_due: u32,
}

impl Session {
    /// A session that waits for the server's greeting. The nonce makes its inbox unique; it is not a secret.
    pub fn new(nonce: u64, credentials: Credentials) -> Self {
        Self {
            credentials,
            decoder: Decoder::new(),
            encoder: Encoder::default(),
            inbox: format!("_INBOX.{nonce:016x}."),
            next_id: INBOX_SID + 1,
            replies: Vec::new(),
            subscriptions: Vec::new(),
            server: None,
            pongs_due: 0,
        }
    }

    /// Takes in bytes from the server.
    ///
    /// # Errors
    /// The server refused something, or the bytes are not NATS. The session is of no more use then.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.decoder.push(bytes);
        while let Some(op) = self.decoder.next_op()? {
            match op {
                ServerOp::Info(info) => self.greet(info)?,
                ServerOp::Message(message) => self.deliver(message),
                ServerOp::Ping => self.encoder.pong(),
                ServerOp::Pong => self.pongs_due = self.pongs_due.saturating_sub(1),
                ServerOp::Ok => {}
                ServerOp::Err(reason) => return Err(Unavailable::Refused(reason).into()),
            }
        }
        Ok(())
    }

    fn greet(&mut self, info: ServerInfo) -> Result<(), Error> {
        let is_greeting = self.server.is_none();
        if info.tls_required {
            return Err(Unavailable::Refused("server requires TLS".to_owned()).into());
        }
        self.server = Some(info);
        if is_greeting {
            self.encoder.connect(&self.credentials)?;
            self.encoder.subscribe(&format!("{}*", self.inbox), INBOX_SID)?;
            self.ping();
        }
        Ok(())
    }

    fn deliver(&mut self, message: Message) {
        if message.sid == INBOX_SID {
            let token = message.subject.strip_prefix(&self.inbox).and_then(|token| token.parse().ok());
            // A reply that nobody awaits any more is dropped: its request was closed before.
            if let Some(mailbox) = self.replies.iter_mut().find(|mailbox| Some(mailbox.id) == token) {
                mailbox.messages.push_back(message);
            }
        } else if let Some(mailbox) = self.subscriptions.iter_mut().find(|mailbox| mailbox.id == message.sid)
        {
            if mailbox.messages.len() == EVENTS_MAX {
                mailbox.messages.pop_front();
            }
            mailbox.messages.push_back(message);
        }
    }

    /// What waits to be written.
    pub fn outgoing(&mut self) -> &mut Encoder {
        &mut self.encoder
    }

    /// The server's last INFO; none before the greeting.
    pub const fn server(&self) -> Option<&ServerInfo> {
        self.server.as_ref()
    }

    /// Whether the greeting is done and every PING was answered.
    pub const fn is_settled(&self) -> bool {
        self.server.is_some() && self.pongs_due == 0
    }

    /// Queues a PING.
    pub fn ping(&mut self) {
        self.encoder.ping();
        self.pongs_due += 1;
    }

    /// Queues a request. Its replies are kept until [`Self::close`].
    ///
    /// # Errors
    /// The request cannot be written.
    pub fn request(&mut self, subject: &str, headers: &Headers, payload: &[u8]) -> Result<Token, Error> {
        let max_payload = self.server.as_ref().map_or(0, |server| server.max_payload);
        if payload.len() as u64 > max_payload {
            return Err(Error::protocol("payload larger than the server takes"));
        }
        let id = self.next_id();
        let reply = format!("{}{id}", self.inbox);
        self.encoder.publish(subject, Some(&reply), headers, payload)?;
        self.replies.push(Mailbox { id, messages: VecDeque::new() });
        Ok(Token(id))
    }

    /// Queues a message that nobody answers.
    ///
    /// # Errors
    /// The message cannot be written.
    pub fn publish(&mut self, subject: &str, headers: &Headers, payload: &[u8]) -> Result<(), Error> {
        Ok(self.encoder.publish(subject, None, headers, payload)?)
    }

    /// The next reply to a request, if it is here.
    pub fn take_reply(&mut self, token: Token) -> Option<Message> {
        self.replies.iter_mut().find(|mailbox| mailbox.id == token.0)?.messages.pop_front()
    }

    /// Ends a request: replies that still come are dropped.
    pub fn close(&mut self, token: Token) {
        self.replies.retain(|mailbox| mailbox.id != token.0);
    }

    /// Queues a subscription.
    ///
    /// # Errors
    /// The subject cannot be written.
    pub fn subscribe(&mut self, subject: &str) -> Result<Subscription, Error> {
        let id = self.next_id();
        self.encoder.subscribe(subject, id)?;
        self.subscriptions.push(Mailbox { id, messages: VecDeque::new() });
        Ok(Subscription(id))
    }

    /// The next event of a subscription, if it is here.
    pub fn take_event(&mut self, subscription: Subscription) -> Option<Message> {
        self.subscriptions.iter_mut().find(|mailbox| mailbox.id == subscription.0)?.messages.pop_front()
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, subscription: Subscription) {
        self.subscriptions.retain(|mailbox| mailbox.id != subscription.0);
        self.encoder.unsubscribe(subscription.0);
    }

    /// Forgets the requests and subscriptions of the owner that leaves, so that the next one starts clean.
    pub fn reset(&mut self) {
        self.replies.clear();
        for mailbox in std::mem::take(&mut self.subscriptions) {
            self.encoder.unsubscribe(mailbox.id);
        }
    }

    fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &[u8] = b"INFO {\"version\":\"2.11.0\",\"max_payload\":1048576,\"headers\":true}\r\n";

    fn settled() -> Session {
        let mut session = Session::new(0xabc, Credentials::None);
        session.receive(INFO).unwrap();
        session.receive(b"PONG\r\n").unwrap();
        session.outgoing().take();
        session
    }

    fn reply(session: &mut Session, token: Token, payload: &str) {
        let line = format!("MSG _INBOX.0000000000000abc.{} 1 {}\r\n{payload}\r\n", token.0, payload.len());
        session.receive(line.as_bytes()).unwrap();
    }

    #[test]
    fn the_greeting_is_answered_in_one_write() {
        let mut session = Session::new(0xabc, Credentials::None);
        assert!(!session.is_settled());
        session.receive(INFO).unwrap();
        let written = String::from_utf8(session.outgoing().take()).unwrap();
        assert!(written.starts_with("CONNECT {"), "{written}");
        assert!(written.ends_with("\r\nSUB _INBOX.0000000000000abc.* 1\r\nPING\r\n"), "{written}");
        assert!(!session.is_settled());
        session.receive(b"PONG\r\n").unwrap();
        assert!(session.is_settled());
    }

    #[test]
    fn later_news_about_the_server_is_not_a_greeting() {
        let mut session = settled();
        session.receive(INFO).unwrap();
        assert!(session.outgoing().is_empty());
    }

    #[test]
    fn replies_reach_their_request_in_any_order() {
        let mut session = settled();
        let first = session.request("a", &Headers::new(), b"").unwrap();
        let second = session.request("b", &Headers::new(), b"").unwrap();
        reply(&mut session, second, "2");
        reply(&mut session, first, "1");
        assert_eq!(session.take_reply(first).unwrap().payload.as_ref(), b"1");
        assert_eq!(session.take_reply(second).unwrap().payload.as_ref(), b"2");
        assert!(session.take_reply(first).is_none());
    }

    #[test]
    fn a_reply_after_the_request_was_closed_is_dropped() {
        let mut session = settled();
        let token = session.request("a", &Headers::new(), b"").unwrap();
        session.close(token);
        reply(&mut session, token, "late");
        assert!(session.take_reply(token).is_none());
    }

    #[test]
    fn pings_are_answered_and_refusals_end_the_session() {
        let mut session = settled();
        session.receive(b"PING\r\n").unwrap();
        assert_eq!(session.outgoing().take(), b"PONG\r\n");
        let error = session.receive(b"-ERR 'Authorization Violation'\r\n").unwrap_err();
        assert_eq!(error, Unavailable::Refused("Authorization Violation".to_owned()).into());
    }

    #[test]
    fn a_slow_owner_keeps_the_newest_events() {
        let mut session = settled();
        let subscription = session.subscribe("events").unwrap();
        for n in 0..EVENTS_MAX + 10 {
            let payload = n.to_string();
            let line = format!("MSG events {} {}\r\n{payload}\r\n", subscription.0, payload.len());
            session.receive(line.as_bytes()).unwrap();
        }
        assert_eq!(session.take_event(subscription).unwrap().payload.as_ref(), b"10");
    }

    #[test]
    fn reset_leaves_nothing_of_the_last_owner() {
        let mut session = settled();
        let token = session.request("a", &Headers::new(), b"").unwrap();
        let subscription = session.subscribe("events").unwrap();
        session.outgoing().take();
        session.reset();
        reply(&mut session, token, "late");
        assert!(session.take_reply(token).is_none());
        assert!(session.take_event(subscription).is_none());
        assert_eq!(session.outgoing().take(), format!("UNSUB {}\r\n", subscription.0).as_bytes());
    }

    #[test]
    fn a_payload_over_the_servers_bound_is_not_sent() {
        let mut session = settled();
        assert!(session.request("a", &Headers::new(), &vec![0; 1_048_577]).is_err());
        assert!(session.outgoing().is_empty());
    }
}
