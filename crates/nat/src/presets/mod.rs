//! Named configurations, each with the source of its values.

mod firewalls;
mod nats;

pub use firewalls::FIREWALLS;
pub use nats::NATS;

use crate::{FirewallConfig, Translation};

/// A configuration with a name.
#[derive(Clone, Debug)]
pub struct Preset<C> {
    /// What scenario files call it.
    pub name: &'static str,
    /// What it stands for, in a sentence.
    pub about: &'static str,
    /// Where its values come from.
    pub source: &'static str,
    /// The values.
    pub config: C,
}

/// The NAT called `name`.
pub fn nat(name: &str) -> Option<&'static Preset<Translation>> {
    NATS.iter().find(|preset| preset.name == name)
}

/// The firewall called `name`.
pub fn firewall(name: &str) -> Option<&'static Preset<FirewallConfig>> {
    FIREWALLS.iter().find(|preset| preset.name == name)
}
