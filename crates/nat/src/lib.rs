//! Network address translators as the axes of RFC 4787, and stateful firewalls.
//!
//! Both are [`Middlebox`]es: a packet arrives on a [`Side`], and is rewritten and forwarded, or dropped for a
//! [`DropReason`]. A box knows packets only through the [`Packet`] trait and time only as an argument.
//!
//! ```
//! # use std::{net::SocketAddr, time::Instant};
//! use nat::{Middlebox, Packet, Proto, Side, Translator, Verdict, presets};
//! use rand_pcg::{Pcg64Mcg, rand_core::SeedableRng as _};
//!
//! struct Datagram { src: SocketAddr, dst: SocketAddr }
//! impl Packet for Datagram {
//!     fn proto(&self) -> Proto { Proto::Udp }
//!     fn src(&self) -> SocketAddr { self.src }
//!     fn dst(&self) -> SocketAddr { self.dst }
//!     fn set_src(&mut self, src: SocketAddr) { self.src = src }
//!     fn set_dst(&mut self, dst: SocketAddr) { self.dst = dst }
//!     fn wire_len(&self) -> usize { 28 }
//! }
//!
//! # fn run(now: Instant) -> Result<(), Box<dyn std::error::Error>> {
//! let preset = presets::nat("port-restricted-cone").ok_or("no such preset")?;
//! let mut nat = Translator::new(preset.config.clone(), vec!["198.51.100.1".parse()?], Pcg64Mcg::seed_from_u64(1));
//! let mut packet = Datagram { src: "192.168.1.2:4000".parse()?, dst: "203.0.113.9:3478".parse()? };
//! assert_eq!(nat.packet(Side::Inside, &mut packet, now), Verdict::Forward(Side::Outside));
//! assert_eq!(packet.src, "198.51.100.1:4000".parse()?);
//! # Ok(()) }
//! # #[expect(clippy::disallowed_methods, reason = "an example has to start somewhere")]
//! # run(Instant::now()).unwrap();
//! ```
//!
//! # What is modelled
//! - **Bindings** by the mapping behaviour; an inside endpoint may hold many. No two live bindings of a [`Nat`] share an
//!   external endpoint; those of a [`LinuxNat`] do, towards different destinations, as in the kernel's tables.
//! - **Conversations** of a binding with each remote endpoint, each with its own time, as devices built on
//!   connection tracking have it. They are the filter's memory: an address may send while one conversation with it
//!   lives. A binding lives as long as its longest conversation. Endpoint-independent filtering keeps a single
//!   conversation for each UDP or ICMP binding.
//! - **Ports** kept, counted or random, in a range or a host's own block, with parity, rests and quotas; on one address or
//!   several, paired or not, or one address for each host without any ports to choose ([`Pooling`]).
//! - **Bindings on request** ([`Nat::map`]), and changes of behaviour and addresses in a running box.
//! - **TCP** as opening, established, closing (RFC 6146 §3.5.2.2), from the flags alone.
//! - **ICMP** echo by identifier; errors go to whoever sent the packet they quote, and change nothing (RFC 4787
//!   REQ-12, RFC 5508 REQ-4 and 5).
//!
//! Expiry is exact: what has run out is gone before the next packet is looked at, at a cost of one heap operation per
//! conversation and timeout. An existing conversation costs two hash look-ups and no allocation.
//!
//! # IPv6
//! [`v6`] has the translators to, from and within IPv6: NAT64, the customer's half of 464XLAT, NPTv6.
//!
//! # Limits
//! - Boxes build no packets: what they answer is a [`Verdict`] or a [`LateAnswer`]. TTL, MTU (RFC 4787 REQ-13) and
//!   checksums are the caller's.
//! - No application gateways (RFC 4787 REQ-10: off), no sequence number checks, no exempt destinations (RFC 6888 REQ-6),
//!   no limit on how fast a host makes bindings (RFC 6888 REQ-4 C).
//! - No packet is held back: fragments that a device would keep until the first one comes pass at once.
//! - A firewall's captive portal is open or closed for everybody behind it at once, and redirects nobody: what it does
//!   not let pass it refuses. Its look into TLS ends with the type of the first handshake message.
//! - A firewall drops what exceeds a rate, and delays nothing.

mod config;
mod firewall;
mod key;
mod linux;
mod packet;
mod ports;
pub mod presets;
mod session;
mod translation;
mod translator;
pub mod v6;

pub use config::{
    Collision, Exhausted, Filtering, Fragments, Hairpin, Mapping, NatConfig, Pooling, PortAllocation,
    PortRange, Timeouts, UnknownWord, Unsolicited, WhenFull,
};
pub use firewall::{
    Firewall, FirewallConfig, Inbound, InboundRefusal, Pinhole, Police, PoliceRate, PoliceUnit, Portal,
    Refusal, Rule, RuleChange, UdpLimits, Who,
};
pub use linux::{Fault, Forgotten, ForwardPolicy, HASH_SEED, InputPolicy, LinuxConfig, LinuxNat, LinuxRule};
pub use packet::{
    Answer, DropReason, Ended, Event, Fragment, LateAnswer, Middlebox, Packet, Proto, Side, TcpFlags, Verdict,
};
pub use translation::{Foreign, Translation, Translator};
pub use translator::{MapError, Mapped, Nat, Wanted};
