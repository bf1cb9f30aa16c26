//! IPv4 addresses inside IPv6 addresses, for hosts and translators where only one of both goes through.
//!
//! - [`Pref64`] writes an IPv4 address behind a prefix and reads it from there (RFC 6052).
//! - [`Discovery`] asks a network's resolver behind which prefix its NAT64 takes them (RFC 7050); [`Resolver`] is the little
//!   of a DNS64 (RFC 6147) that answers it.
//!
//! ```
//! use pref64::{Discovery, Outcome, Pref64, Resolver};
//! use rand_pcg::{Pcg64Mcg, rand_core::SeedableRng as _};
//!
//! # fn run(now: std::time::Instant) -> Result<(), Box<dyn std::error::Error>> {
//! let resolver = Resolver::new("2001:db8:64::/96".parse()?);
//! let mut discovery = Discovery::new("[2001:db8::1]:53".parse()?, &mut Pcg64Mcg::seed_from_u64(1), now);
//! let (to, query) = discovery.poll_transmit().ok_or("it asks at once")?;
//! let answer = resolver.respond(&query).ok_or("a question")?;
//! assert!(discovery.handle(to, &answer));
//! let Some(Outcome::Found(prefix)) = discovery.poll_event() else { return Err("no prefix".into()) };
//! assert_eq!(prefix.embed("192.0.2.33".parse()?), "2001:db8:64::192.0.2.33".parse::<std::net::Ipv6Addr>()?);
//! # Ok(()) }
//! # #[expect(clippy::disallowed_methods, reason = "an example has to start somewhere")]
//! # run(std::time::Instant::now()).unwrap();
//! ```
//!
//! # What it does not do
//! Names other than the one that discovery asks for; DNSSEC (RFC 7050 §3.1); asking again when the answer's time to live is
//! over; networks with several prefixes, of which the first is taken.

mod discovery;
mod embed;
mod prefix;
mod resolver;

pub use discovery::{Discovery, Outcome};
pub use embed::Pref64;
pub use prefix::{BadPrefix, Ipv6Prefix};
pub use resolver::Resolver;

use std::net::Ipv4Addr;

/// The port of DNS (RFC 1035 §4.2).
pub const DNS_PORT: u16 = 53;

/// A name that has IPv4 addresses alone, so that IPv6 addresses in an answer can only have been made from those (RFC 7050 §8).
const NAME: &str = "ipv4only.arpa";

/// The addresses of that name (RFC 7050 §8.2).
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];
