//! Translation to, from and within IPv6.
//!
//! - [`Nat64`]: hosts that have IPv6 alone reach IPv4 through one address, statefully (RFC 6146).
//! - [`Clat`]: hosts that have IPv4 alone reach it over an uplink that has IPv6 alone, statelessly (RFC 6877, RFC 7915).
//! - [`Nptv6`]: an inside prefix is swapped for an outside one, statelessly (RFC 6296).
//!
//! [`pref64::Pref64`] writes IPv4 addresses into IPv6 addresses for the first two (RFC 6052).

mod clat;
mod nat64;
mod nptv6;

pub use clat::{Clat, ClatConfig};
pub use nat64::{Nat64, Nat64Config};
pub use nptv6::{Nptv6, Nptv6Config};

use std::net::SocketAddr;

use crate::Packet;

/// The addresses of a packet and of the one it quotes, to be put back when it goes no further.
struct Before {
    ends: (SocketAddr, SocketAddr),
    quoted: Option<(SocketAddr, SocketAddr)>,
}

impl Before {
    fn of(packet: &mut dyn Packet) -> Before {
        let quoted = packet.quoted().map(|quoted| (quoted.src(), quoted.dst()));
        Before { ends: (packet.src(), packet.dst()), quoted }
    }

    fn restore(self, packet: &mut dyn Packet) {
        if let (Some(quoted), Some((src, dst))) = (packet.quoted(), self.quoted) {
            quoted.set_src(src);
            quoted.set_dst(dst);
        }
        packet.set_src(self.ends.0);
        packet.set_dst(self.ends.1);
    }
}
