//! Holes that somebody asked for, as by PCP or UPnP's WANIPv6FirewallControl.

use std::net::SocketAddr;

use super::Firewall;
use crate::Proto;
use crate::key::Key;

/// A way in for what nobody inside asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinhole {
    /// Protocol.
    pub proto: Proto,
    /// The endpoint inside.
    pub inside: SocketAddr,
    /// The only one who may use it; `None` for everybody.
    pub remote: Option<SocketAddr>,
}

impl Pinhole {
    fn key(&self) -> Key {
        match self.remote {
            None => Key::of(self.proto, self.inside),
            Some(remote) => Key::pair(self.proto, self.inside, remote),
        }
    }
}

impl Firewall {
    /// Lets packets in through a hole from now on, whatever [`Inbound`](super::Inbound) says; what it blocks stays blocked.
    /// What comes in makes a conversation, whose answers go out. The hole stays until it is closed or the box forgets.
    pub fn open_pinhole(&mut self, pinhole: Pinhole) {
        self.pinholes.insert(pinhole.key(), pinhole);
    }

    /// Closes a hole. Conversations that came through it go on.
    pub fn close_pinhole(&mut self, pinhole: Pinhole) {
        self.pinholes.swap_remove(&pinhole.key());
    }

    /// The holes that are open.
    pub fn pinholes(&self) -> impl Iterator<Item = Pinhole> + '_ {
        self.pinholes.values().copied()
    }

    /// Whether there is a hole for a packet from outside.
    pub(super) fn has_pinhole(&self, proto: Proto, inside: SocketAddr, remote: SocketAddr) -> bool {
        !self.pinholes.is_empty()
            && (self.pinholes.contains_key(&Key::of(proto, inside))
                || self.pinholes.contains_key(&Key::pair(proto, inside, remote)))
    }
}
