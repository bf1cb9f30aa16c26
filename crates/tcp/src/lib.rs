//! A host's TCP as a state machine without input or output: segments, calls and the time go in; segments, events and
//! the next deadline come out.

mod buffer;
mod config;
mod congestion;
mod connection;
mod flight;
mod rack;
mod rtt;
mod sack;
mod segment;
mod seq;

pub use config::{Algorithm, Buffer, Config};
pub use connection::Connection;
pub use connection::state::{Event, State, Stats};
pub use segment::{Flags, MAX_SACK_BLOCKS, Options, SackBlocks, Segment, Timestamps};
