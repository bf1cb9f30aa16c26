//! A deterministic simulator that puts hosts, NAT routers, double NAT and firewalls around real traversal and relay code.
//!
//! The way of the data, every arrow a function:
//!
//! [`scenario::parse`] → [`topology::Topology::new`] → [`world::World::new`], `step`, `run` → a log of [`trace`] events →
//! [`judge::judge`] → `report`. Scenario and topology are plain data; only the world moves.
//!
//! Async code of your own that knows nothing of all this runs behind the same NATs in the second world: see
//! [`world::turmoil`], and `examples/echo_behind_nats.rs`.

pub mod campaign;
pub mod host;
mod icmp;
pub mod judge;
pub mod limits;
pub mod packet;
pub mod scenario;
pub mod topology;
pub mod world;

pub use host::Program;
