//! The programs that people run: `coord`, `relay`, `peer`, and `status` and `ping`, which ask a peer that runs.

mod admin;
mod args;
mod control;
mod coord;
mod elsewhere;
mod host;
mod key;
mod metrics;
mod peer;
mod ping;
mod rate;
mod relay;
mod show;
mod stored;
mod tun;

pub use args::{
    AdminArgs, AdminCommand, Certificate, CoordArgs, CoordinatorSpec, Expose, ForwardSpec, KeysCommand,
    Lifetime, PeerArgs, PingArgs, ProxySpec, PublicKey, RelayArgs, RelaySpec, RulesCommand, ServerKey,
    StatusArgs,
};
pub use key::{KeyError, PrivateKey, parse_key};
pub use rate::{Rate, Size};

use clap::Subcommand;

/// A program to run.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the help of each stands beside its arguments")]
pub enum Command {
    Coord(Box<CoordArgs>),
    Relay(Box<RelayArgs>),
    Peer(Box<PeerArgs>),
    Status(StatusArgs),
    Ping(PingArgs),
    Admin(AdminArgs),
}

/// Why a program could not run or has ended; the message says what to do about it.
pub type Failure = Box<dyn std::error::Error>;

/// Runs it until it is told to end. Returns the exit code: 0, or 1 where what was asked for did not come about.
///
/// # Errors
/// If it cannot run.
pub fn main(command: Command, json_logs: bool) -> Result<u8, Failure> {
    match command {
        Command::Coord(args) => coord::main(*args, json_logs),
        Command::Relay(args) => relay::main(*args, json_logs),
        Command::Peer(args) => peer::main(*args, json_logs),
        Command::Status(args) => show::status(&args),
        Command::Ping(args) => show::ping(&args),
        Command::Admin(args) => admin::main(&args),
    }
}
