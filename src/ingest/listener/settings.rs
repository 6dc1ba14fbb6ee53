//! The configuration made ready: certificate and users read from their files.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use tokio_rustls::TlsAcceptor;

use super::{Config, Error, Limits};
use crate::clients::{self, Columns, Users, WrongPasswords};
use crate::mail::Domain;

/// What a session works with from its beginning to its end.
pub(super) struct Settings {
    pub(super) hostname: Domain,
    networks: Vec<IpNet>,
    pub(super) max_recipients: usize,
    pub(super) normalize_lf: bool,
    pub(super) smtputf8: bool,
    pub(super) dsn: bool,
    pub(super) limits: Limits,
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) users: Option<Arc<Users>>,
    /// Those of the users' clients; they outlast a reload.
    pub(super) wrong_passwords: Arc<WrongPasswords>,
}

impl Settings {
    pub(super) fn load(config: &Config, wrong_passwords: Arc<WrongPasswords>) -> Result<Self, Error> {
        Ok(Self {
            hostname: config.hostname.clone(),
            networks: config.networks.clone(),
            max_recipients: config.max_recipients,
            normalize_lf: config.normalize_lf,
            smtputf8: config.smtputf8,
            dsn: config.dsn,
            limits: config.limits.clone(),
            acceptor: config.tls.as_ref().map(|tls| clients::acceptor(&tls.certificate, &tls.key)).transpose()?,
            users: config.users.as_deref().map(|file| users(file, &wrong_passwords)).transpose()?,
            wrong_passwords,
        })
    }

    /// Whether somebody at `address` may relay without AUTH.
    pub(super) fn may_relay(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// Shared by all sessions.
fn users(file: &Path, wrong: &Arc<WrongPasswords>) -> Result<Arc<Users>, Error> {
    Ok(Arc::new(Users::load(file, Columns::NameHash, Arc::clone(wrong))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(networks: &[&str]) -> Settings {
        let mut config = Config::new(Domain::parse("relay.test").expect("a domain"));
        config.networks = networks.iter().map(|network| network.parse().expect("a network")).collect();
        Settings::load(&config, Arc::default()).expect("valid")
    }

    #[test]
    fn an_ipv4_address_that_comes_through_ipv6_is_the_ipv4_address() {
        let settings = settings(&["192.0.2.0/24", "2001:db8::/32"]);
        for (address, may) in [
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("::ffff:192.0.3.7", false),
            ("::192.0.2.7", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(settings.may_relay(address.parse().expect("an address")), may, "{address}");
        }
    }
}
