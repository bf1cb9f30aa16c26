//! The async shell around the sans-IO cores: one function, [`drive`](drive()), carries a [`Program`](program::Program) on whatever
//! implements [`Net`]: real sockets with [`TokioNet`], simulated ones elsewhere. The programs that people run are made of it.
//!
//! ```
//! use daemon::{Options, TokioNet, drive};
//! use program::{STUN_PORT, StunProgram};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let mut net = TokioNet::new();
//! let address = net.bind_udp(Some(STUN_PORT), "127.0.0.1:0".parse()?)?;
//! println!("STUN on {address}");
//! let stop = std::future::ready(()); // in earnest: a signal
//! drive(StunProgram::new(), net, Options::default(), stop).await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//! - Everything happens inside the one future: no task is spawned, so none outlives it. Dropping it closes every socket.
//! - Sources are asked in a fixed order, timers before packets; nothing iterates over a hash map. On a runtime whose clock and
//!   network are simulated, the same seed gives the same run.
//! - Nothing grows without a limit: see [`Limits`]. A connection that does not take what is written to it tells its program
//!   so by giving no more space; datagrams that the network does not take are dropped, oldest first.

#[cfg(unix)]
pub mod app;
mod conn;
pub mod drive;
pub mod net;
mod tokio_net;
#[cfg(target_os = "linux")]
mod watch;

pub use drive::{DriveError, Handle, Limits, Options, drive};
pub use net::{Datagram, Listener, Net, Udp};
pub use tokio_net::TokioNet;
