//! HTTP proxies, and which hosts use them.

use std::net::IpAddr;

use indexmap::IndexMap;
use proxy::Credentials;

use super::axes::take;
use super::build::{Builder, Kind};
use super::model::{Proxy, ProxyLogin, UsedProxy};
use super::read::Item;
use super::value::{Val, Word, Words};
use super::{cable, file};

/// Port of a proxy that names none: Squid's `http_port`.
const PORT: u16 = 3128;
/// Port that it connects to if it names none (RFC 9110 §9.3.6).
const HTTPS: u16 = 443;

impl Words for ProxyLogin {
    const WHAT: &'static str = "what a host tells its proxy";
    const EXAMPLE: &'static str = "\"right\"";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("right", ProxyLogin::Right), ("none", ProxyLogin::None), ("wrong", ProxyLogin::Wrong)]
    }
}

impl Builder<'_, '_> {
    pub(super) fn proxies(&mut self, items: Vec<Item<file::Proxy>>) -> IndexMap<String, Proxy> {
        let mut proxies = IndexMap::new();
        for Item { name, span, value } in items {
            let Some(spec) = value else { continue };
            let attached = self.attachment(&span, spec.region, spec.behind);
            let address: Option<IpAddr> = take(spec.address, self.problems);
            let link = cable::access(spec.link, &cable::lan(), self.problems);
            let port = self.port(spec.port).unwrap_or(PORT);
            let connect_ports = match spec.connect_ports {
                None => vec![nat::PortRange::one(HTTPS)],
                Some(ports) => ports
                    .into_iter()
                    .filter_map(|ports| take(Some(ports), self.problems))
                    .map(|p| p.0)
                    .collect(),
            };
            let credentials = match (spec.user, spec.password) {
                (None, None) => None,
                (Some(user), Some(password)) => {
                    let (user_span, password) = (user.span.clone(), take(Some(password), self.problems));
                    let user = take(Some(user), self.problems);
                    user.zip(password).and_then(|(user, password)| match Credentials::new(&user, &password) {
                        Ok(credentials) => Some(credentials),
                        Err(error) => {
                            self.problems.add(user_span, error.to_string(), "choose others");
                            None
                        }
                    })
                }
                (Some(one), None) | (None, Some(one)) => {
                    let help = "give user and password, or neither";
                    self.problems.add(one.span, "half of the credentials", help);
                    None
                }
            };
            let Some(attached) = attached else { continue };
            proxies.insert(name, Proxy { attached, address, link, port, connect_ports, credentials });
        }
        proxies
    }

    fn port(&mut self, port: Option<Val<u64>>) -> Option<u16> {
        let span = port.as_ref()?.span.clone();
        let port = take(port, self.problems)?;
        let fitting = u16::try_from(port).ok().filter(|port| *port > 0);
        if fitting.is_none() {
            self.problems.add(span, format!("`{port}` is no port"), "write 1 to 65535");
        }
        fitting
    }

    /// The proxy of a host.
    pub(super) fn used_proxy(
        &mut self,
        name: Option<Val<String>>,
        login: Option<Val<Word<ProxyLogin>>>,
    ) -> Option<UsedProxy> {
        let Some(name) = name else {
            if let Some(login) = login {
                self.problems.add(login.span, "a login without a proxy", "give proxy = \"NAME\" as well");
            }
            return None;
        };
        let login = take(login, self.problems).map_or(ProxyLogin::Right, |login| login.0);
        Some(UsedProxy { name: self.refer(name, &[Kind::Proxy])?, login })
    }
}
