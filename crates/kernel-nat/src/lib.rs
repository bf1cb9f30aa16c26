//! The NAT of the running Linux kernel as a [`Middlebox`](nat::Middlebox).
//!
//! Each box is a network namespace with two devices, `lan` and `wan`, and the nftables rules that a [`LinuxConfig`]
//! describes. A packet is sent in by one device, and what comes out of either is read back before the call returns. The
//! devices are TUN, where the kernel forwards within the `write`, or veth pairs with a packet socket at each far end,
//! where that is all but certain and an ARP request behind the packet makes it so; see [`Ends`]. So a simulation can play any scenario with the kernel's
//! translators in place of models, or hold one against the other.
//!
//! # Time
//! The kernel's own timers are switched off (set to months). A [`LinuxNat`](nat::LinuxNat) beside the kernel sees the
//! same packets, and whatever its clock forgets is deleted from the kernel's tables. So the timers are the model's, and
//! everything else is the kernel's. Where both disagree about a packet the kernel is believed, and
//! [`KernelNat::disagreements`] counts it.
//!
//! # Needs
//! `nft` and `ip`, /dev/net/tun or else veth devices, and the right to make network namespaces: root, or a user namespace of one's own (see
//! [`enter_user_namespace`]). Without them [`KernelNat::new`] gives an [`Error`] that says what is missing.
//!
//! # Limits
//! IPv4 only. `nf_conntrack_max` belongs to the whole machine, so the size of the table is the model's. Packets carry
//! their headers only, and sequence numbers that never change, so the kernel's window checks are off
//! (`nf_conntrack_tcp_be_liberal`). TTL and fragments are the caller's.

#[cfg(target_os = "linux")]
mod conntrack;
#[cfg(target_os = "linux")]
mod ends;
mod express;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod namespace;
#[cfg(target_os = "linux")]
mod render;
mod rules;
#[cfg(target_os = "linux")]
mod veth;

#[cfg(target_os = "linux")]
pub use ends::Ends;
pub use express::{NotExpressible, express};
#[cfg(target_os = "linux")]
pub use kernel::{KernelNat, Site};
#[cfg(target_os = "linux")]
pub use namespace::{allowed, enter_user_namespace};
pub use rules::ruleset;

/// Why there is no box.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No set of rules does what the configuration says.
    #[error(transparent)]
    NotExpressible(#[from] NotExpressible),
    /// The process may not make network namespaces.
    #[error("no right to make a network namespace ({0}): run as root, or where user namespaces are allowed")]
    NoRights(std::io::Error),
    /// A command that is not installed.
    #[error("`{0}` is not installed: install the packages nftables and iproute2")]
    NoTool(&'static str),
    /// A command that failed.
    #[error("`{command}` failed: {output}")]
    Command {
        /// Which.
        command: &'static str,
        /// What it said.
        output: String,
    },
    /// A kernel without the devices by which a box is reached.
    #[error("no way into a network namespace, neither TUN nor veth with packet sockets: {0}")]
    NoDevices(String),
    /// Something the kernel refused.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        error: std::io::Error,
    },
}

impl Error {
    /// Whether it is about what this machine lacks, a right or a tool or a device, and not about a box.
    pub fn is_lack(&self) -> bool {
        match self {
            Error::NoRights(_) | Error::NoTool(_) | Error::NoDevices(_) => true,
            Error::Io { error, .. } => {
                matches!(error.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::NotFound)
            }
            Error::NotExpressible(_) | Error::Command { .. } => false,
        }
    }
}

#[cfg(doc)]
use nat::LinuxConfig;
