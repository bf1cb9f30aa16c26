//! The event schema and the log of a run.
//!
//! A log is JSON Lines: line 1 is the [`Header`], every further line a [`Record`]: a time in nanoseconds of virtual time
//! and an [`Event`]. No wall clock, no float: the same scenario, seed and version give the same bytes.
//!
//! [`pcap`] writes packets, as pcapng.
//!
//! Out of scope: packet contents in the log (see the pcapng files), and what follows from the events (see the `report` crate).

mod event;
mod log;
pub mod pcap;

pub use event::{Event, FlowKind, Name, NodeKind, Path, Payload, Proto, ServerState};
pub use log::{FORMAT, Header, LogError, Record, read, write_header, write_record};
