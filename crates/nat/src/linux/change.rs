//! What somebody does to a running router: ports that a gateway redirects, other rules, other addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use super::table::Table;
use super::{Forgotten, LinuxConfig, LinuxNat, LinuxRule};
use crate::key::Key;
use crate::{Ended, Event, MapError, Mapped, Proto, Wanted};

/// A rule of destination NAT that somebody asked for, as daemons like miniupnpd write them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Redirection {
    proto: Proto,
    pub(super) inside: SocketAddr,
    external: SocketAddr,
    /// `u64::MAX` for one without an end.
    until: u64,
}

impl LinuxNat {
    /// Redirects an external port to an inside endpoint until a time, or for ever, past the FORWARD chain. Only answers
    /// leave from it; what the endpoint sends by itself is translated as ever. Conversations outlive the redirection.
    ///
    /// Asking again for the same endpoint sets the end anew. A port that another endpoint has is taken, else the next
    /// free one upwards is given where the request allows it.
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn map(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        wanted: Wanted,
        until: Option<Instant>,
        now: Instant,
    ) -> Result<SocketAddr, MapError> {
        let now = self.epoch.ns(now);
        self.expire(now);
        let ip = self.external_for(inside.ip()).ok_or(MapError::NoExternalAddress)?;
        let holder = |port| self.redirections.get(&Key::of(proto, SocketAddr::new(ip, port)));
        let mine = |found: &&Redirection| found.proto == proto && found.inside == inside;
        let port = match wanted {
            Wanted::Exactly(port) => {
                if port == 0 || holder(port).is_some_and(|found| found.inside != inside) {
                    return Err(MapError::PortTaken);
                }
                port
            }
            Wanted::Any | Wanted::Prefer(_) => match self.redirections.values().find(mine) {
                Some(found) => found.external.port(),
                None => {
                    let first = match wanted {
                        Wanted::Prefer(port @ 1..) => port,
                        _ => inside.port().max(1),
                    };
                    let mut ports = (first..=u16::MAX).chain(1..first);
                    ports.find(|port| holder(*port).is_none()).ok_or(MapError::NoFreePort)?
                }
            },
        };
        let until = until.map_or(u64::MAX, |until| self.epoch.ns(until));
        let external = SocketAddr::new(ip, port);
        let redirection = Redirection { proto, inside, external, until };
        if self.redirections.insert(Key::of(proto, external), redirection).is_none()
            && let (Some(events), Some(at)) = (&mut self.events, self.epoch.instant(now))
        {
            events.push_back(Event::BindingCreated { at, proto, inside, external, remote: nobody(ip) });
        }
        Ok(external)
    }

    /// Ends a redirection. False if there is none.
    pub fn unmap(&mut self, proto: Proto, external: SocketAddr, now: Instant) -> bool {
        let now = self.epoch.ns(now);
        self.expire(now);
        let found = self.redirections.shift_remove(&Key::of(proto, external));
        if let Some(found) = found {
            self.redirection_ended(&found, now, Ended::Unmapped);
        }
        found.is_some()
    }

    /// The redirections, in the order in which they were asked for.
    pub fn mapped(&self) -> impl Iterator<Item = Mapped> + '_ {
        self.redirections.values().map(|found| {
            let Redirection { proto, inside, external, until } = *found;
            let until = (until != u64::MAX).then(|| self.epoch.instant(until)).flatten();
            Mapped { proto, inside, external, until }
        })
    }

    /// The external address that a redirection to this inside address has; `None` if there is none of its IP version.
    pub fn external_for(&self, inside: IpAddr) -> Option<IpAddr> {
        if self.config.rule == LinuxRule::Static {
            return self.address_for(inside, inside);
        }
        self.external.iter().find(|ip| ip.is_ipv4() == inside.is_ipv4()).copied()
    }

    /// Has other rules from now on. Conversations stay as they are, and have the new times from their next packet on.
    pub fn set_config(&mut self, config: LinuxConfig) {
        self.table.configure(&config.timeouts, config.capacity, config.tcp_pickup);
        self.maps.configure(&config);
        self.config = config;
    }

    /// Has these external addresses from now on. With `masquerade` the conversations on lost ones end
    /// (`nf_nat_masquerade.c`, `masq_device_event`); with the other rules they stay, to no use.
    pub fn set_external(&mut self, external: Vec<IpAddr>, now: Instant) {
        let now = self.epoch.ns(now);
        self.expire(now);
        self.external = external;
        let lost: Vec<Redirection> =
            self.redirections.values().filter(|found| !self.ours(found.external.ip())).copied().collect();
        for found in lost {
            self.redirections.shift_remove(&Key::of(found.proto, found.external));
            self.redirection_ended(&found, now, Ended::AddressLost);
        }
        if self.config.rule != LinuxRule::Masquerade {
            return;
        }
        for slot in self.table.slots() {
            let external = Table::router_side(self.table.entry(slot));
            if !self.ours(external.ip()) {
                let entry = self.table.remove(slot);
                self.ended(&entry, now, Ended::AddressLost);
            }
        }
    }

    /// Ends the redirections whose time is up.
    pub(super) fn end_redirections(&mut self, now: u64) {
        let due: Vec<Redirection> =
            self.redirections.values().filter(|found| found.until <= now).copied().collect();
        for found in due {
            self.redirections.shift_remove(&Key::of(found.proto, found.external));
            self.redirection_ended(&found, found.until, Ended::Expired);
        }
    }

    /// When the next redirection ends.
    pub(super) fn next_redirection_due(&self) -> Option<u64> {
        self.redirections.values().map(|found| found.until).filter(|until| *until != u64::MAX).min()
    }

    fn redirection_ended(&mut self, found: &Redirection, at: u64, why: Ended) {
        let Redirection { proto, inside, external, .. } = *found;
        if let Some(forgotten) = &mut self.forgotten {
            forgotten.push_back(Forgotten::Redirection { proto, external });
        }
        if let (Some(events), Some(at)) = (&mut self.events, self.epoch.instant(at)) {
            let remote = nobody(external.ip());
            events.push_back(Event::BindingExpired { at, proto, inside, external, remote, why });
        }
    }
}

/// The remote endpoint of a binding that no packet asked for.
fn nobody(family: IpAddr) -> SocketAddr {
    let ip = match family {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}
