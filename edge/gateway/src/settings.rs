//! The component's variables: read once per instance, and refused as a whole if one is bad.

use std::net::SocketAddr;

use orfeas_edge_nats::Credentials;
use orfeas_protocol::Region;
use thiserror::Error;

/// A variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("variable `{name}` is not {expected}")]
pub struct SettingsError {
    name: &'static str,
    expected: &'static str,
}

/// The variables as they are written.
#[derive(Debug, Clone, Default)]
pub struct Variables {
    /// `IP:port` of the NATS server or leaf node.
    pub nats_address: String,
    /// The user at it; empty for none.
    pub nats_user: String,
    /// The user's password.
    pub nats_password: String,
    /// The region.
    pub region: String,
    /// `none` or `required`.
    pub auth: String,
}

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Anybody who reaches the edge.
    None,
    /// Whoever has a key.
    Required,
}

/// The variables' values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the NATS server is.
    pub nats_address: SocketAddr,
    /// Who we are to it.
    pub nats_credentials: Credentials,
    /// Where we are.
    pub region: Region,
    /// Who may call.
    pub auth: AuthMode,
}

impl TryFrom<Variables> for Settings {
    type Error = SettingsError;

    fn try_from(variables: Variables) -> Result<Self, SettingsError> {
        let error = |name, expected| SettingsError { name, expected };
        let Variables { nats_address, nats_user: user, nats_password: password, region, auth } = variables;
        Ok(Self {
            // The host's allow list matches addresses, not names.
            nats_address: nats_address
                .parse()
                .map_err(|_| error("nats_address", "an IP address with a port"))?,
            nats_credentials: match user.is_empty() {
                true => Credentials::None,
                false => Credentials::UserPassword { user, password },
            },
            region: region.parse().map_err(|_| error("region", "a region name"))?,
            auth: match auth.as_str() {
                "none" => AuthMode::None,
                "required" => AuthMode::Required,
                _ => return Err(error("auth", "`none` or `required`")),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        Variables {
            nats_address: "127.0.0.1:4222".to_owned(),
            region: "eu-1".to_owned(),
            auth: "required".to_owned(),
            ..Variables::default()
        }
    }

    #[test]
    fn good_variables_become_settings() {
        let settings = Settings::try_from(variables()).unwrap();
        assert_eq!((settings.auth, settings.nats_credentials), (AuthMode::Required, Credentials::None));
        let with_user = Variables { nats_user: "edge".to_owned(), ..variables() };
        let settings = Settings::try_from(with_user).unwrap();
        assert!(matches!(settings.nats_credentials, Credentials::UserPassword { .. }));
    }

    #[test]
    fn a_bad_variable_is_named() {
        let name = |change: fn(&mut Variables)| {
            let mut changed = variables();
            change(&mut changed);
            Settings::try_from(changed).unwrap_err().name
        };
        assert_eq!(name(|v| v.nats_address = "nats:4222".to_owned()), "nats_address");
        assert_eq!(name(|v| v.region = "EU".to_owned()), "region");
        // A typo must not open the door.
        assert_eq!(name(|v| v.auth = "requierd".to_owned()), "auth");
    }
}
