//! A host's TCP as a state machine without input or output: segments, calls and the time go in; segments, events and
//! the next deadline come out. It is meant to be as good as a real host's, so that goodput over it means something.
//!
//! ```
//! use std::time::Instant;
//! use tcp::{Config, Connection, Event};
//!
//! # #[allow(clippy::disallowed_methods)]
//! let now = Instant::now();
//! let mut client = Connection::connect(Config::default(), 1000, now);
//! let syn = client.poll_transmit(now).expect("a SYN");
//! let mut server = Connection::accept(Config::default(), 9000, &syn, now);
//! client.write("hello".into());
//! client.close();
//! // The loop: carry segments (and, in earnest, call `handle_timeout` when `poll_timeout` says so).
//! while let Some(segment) = server.poll_transmit(now) {
//!     client.handle(&segment, now);
//!     while let Some(segment) = client.poll_transmit(now) {
//!         server.handle(&segment, now);
//!     }
//! }
//! assert_eq!(server.poll_event(), Some(Event::Connected));
//! assert_eq!(server.read().as_deref(), Some(&b"hello"[..]));
//! ```
//!
//! # What it does
//! Handshake, also simultaneous; SACK with a scoreboard (RFC 2018, 2883, 6675); loss detection by RACK with tail-loss
//! probes (RFC 8985); retransmission time-outs (RFC 6298) with Linux's 200 ms floor; NewReno (RFC 5681, 6582) and CUBIC
//! (RFC 9438) with HyStart++ (RFC 9406), proportional rate reduction (RFC 6937), undo of spurious recoveries (RFC 3522,
//! 3708), initial window of ten (RFC 6928), restart after idle; window scaling, timestamps, PAWS (RFC 7323); delayed
//! and quick ACKs; zero-window probes, silly-window avoidance, Nagle's algorithm; closing in every order, TIME-WAIT;
//! the checks of RFC 5961 on RST, SYN and ACK; buffers that grow as Linux's do.
//!
//! A segment costs well under a microsecond. Data is shared, not copied, except to gather small writes. All
//! bookkeeping is logarithmic in what is in flight; every queue is bounded by the buffers.
//!
//! # What it does not do
//! Ports, addresses, checksums and LISTEN are the host's: it keeps connections by their four-tuple, gives a SYN for a
//! listening port to [`Connection::accept`], and answers what belongs to nobody with [`Segment::reset_for`]. No urgent
//! data, ECN, Fast Open, path-MTU discovery, pacing, keep-alive, or BBR.
//!
//! # Departures
//! - RFC 9293 §3.10.7.4 drops a segment outside the window; like Linux we let in one that begins exactly at the right
//!   edge, for its ACK.
//! - A zero-window probe carries no data but an old number, as Linux's does.
//! - A bare ACK that fails PAWS is taken (RFC 7323 §5.3 drops it): it was only overtaken.
//! - The congestion window counts segments, as in Linux, not bytes.
//! - RFC 6298 §2.4's floor of 1 s, RFC 9293's four minutes of TIME-WAIT: Linux's values, see [`Config`].
//! - A half-closed connection whose peer stays silent ends after [`Config::fin_wait_2`].

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
