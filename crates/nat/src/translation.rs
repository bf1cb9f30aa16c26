//! Every kind of translator under one name.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use rand_pcg::Pcg64Mcg;

use crate::{
    Event, LateAnswer, LinuxConfig, LinuxNat, MapError, Mapped, Middlebox, Nat, NatConfig, Packet, Proto,
    Side, Timeouts, Verdict, Wanted,
};

/// How a router translates addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Translation {
    /// By the axes of RFC 4787.
    Axes(NatConfig),
    /// As the Linux kernel does.
    Linux(LinuxConfig),
}

impl Translation {
    /// The axes, if it is described by them.
    pub fn axes(&self) -> Option<&NatConfig> {
        match self {
            Translation::Axes(config) => Some(config),
            Translation::Linux(_) => None,
        }
    }

    /// The kernel's rule, if it is one.
    pub fn linux(&self) -> Option<&LinuxConfig> {
        match self {
            Translation::Linux(config) => Some(config),
            Translation::Axes(_) => None,
        }
    }

    /// How long a silent conversation is remembered.
    pub fn timeouts(&self) -> &Timeouts {
        match self {
            Translation::Axes(config) => &config.timeouts,
            Translation::Linux(config) => &config.timeouts,
        }
    }
}

impl From<NatConfig> for Translation {
    fn from(config: NatConfig) -> Self {
        Translation::Axes(config)
    }
}

impl From<LinuxConfig> for Translation {
    fn from(config: LinuxConfig) -> Self {
        Translation::Linux(config)
    }
}

impl fmt::Display for Translation {
    /// In the words of a scenario file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Translation::Axes(config) => config.fmt(f),
            Translation::Linux(config) => config.fmt(f),
        }
    }
}

/// A translator that is no model of this crate, such as the kernel's own. Its methods are those of [`Translator`].
pub trait Foreign: Middlebox + fmt::Debug {
    /// See [`Translator::external`].
    fn external(&self) -> &[IpAddr];
    /// See [`Translator::conversations`].
    fn conversations(&self) -> usize;
    /// See [`Translator::bindings`].
    fn bindings(&self) -> Box<dyn Iterator<Item = (Proto, SocketAddr, SocketAddr, SocketAddr)> + '_>;
    /// See [`Translator::set_config`]. What it cannot do it tells as [`trouble`](Self::trouble).
    fn set_config(&mut self, translation: Translation);
    /// See [`Translator::set_external`].
    fn set_external(&mut self, external: Vec<IpAddr>, now: Instant);
    /// See [`Translator::map`].
    ///
    /// # Errors
    /// See [`MapError`].
    fn map(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        wanted: Wanted,
        until: Option<Instant>,
        now: Instant,
    ) -> Result<SocketAddr, MapError>;
    /// See [`Translator::unmap`].
    fn unmap(&mut self, proto: Proto, external: SocketAddr, now: Instant) -> bool;
    /// See [`Translator::mapped`].
    fn mapped(&self) -> Box<dyn Iterator<Item = Mapped> + '_>;
    /// See [`Translator::external_for`].
    fn external_for(&self, inside: IpAddr) -> Option<IpAddr>;
    /// What went wrong with it, so that its verdicts mean little.
    fn trouble(&self) -> Option<String>;
}

/// A translator at work.
#[derive(Debug)]
pub enum Translator {
    /// See [`Nat`].
    Axes(Box<Nat>),
    /// See [`LinuxNat`].
    Linux(Box<LinuxNat>),
    /// See [`Foreign`].
    Foreign(Box<dyn Foreign>),
}

/// Calls the same method of whichever it is.
macro_rules! each {
    ($self:expr, $inner:ident => $call:expr) => {
        match $self {
            Translator::Axes($inner) => $call,
            Translator::Linux($inner) => $call,
            Translator::Foreign($inner) => $call,
        }
    };
}

impl Translator {
    /// A translator with these external addresses. One with none for a packet's IP version drops it.
    pub fn new(translation: Translation, external: Vec<IpAddr>, rng: Pcg64Mcg) -> Translator {
        match translation {
            Translation::Axes(config) => Translator::Axes(Box::new(Nat::new(config, external, rng))),
            Translation::Linux(config) => Translator::Linux(Box::new(LinuxNat::new(config, external, rng))),
        }
    }

    /// Its external addresses.
    pub fn external(&self) -> &[IpAddr] {
        each!(self, inner => inner.external())
    }

    /// How many conversations its table holds, those that expired since the last packet included.
    pub fn conversations(&self) -> usize {
        each!(self, inner => inner.conversations())
    }

    /// Behaves otherwise from now on; see [`Nat::set_config`] and [`LinuxNat::set_config`]. One that becomes of the other
    /// kind forgets everything.
    pub fn set_config(&mut self, translation: impl Into<Translation>) {
        match (&mut *self, translation.into()) {
            (Translator::Axes(nat), Translation::Axes(config)) => nat.set_config(config),
            (Translator::Linux(nat), Translation::Linux(config)) => nat.set_config(config),
            (Translator::Foreign(nat), config) => nat.set_config(config),
            (model, other) => {
                let (rng, events) = match model {
                    Translator::Axes(nat) => nat.heirloom(),
                    Translator::Linux(nat) => nat.heirloom(),
                    Translator::Foreign(_) => return,
                };
                let external = self.external().to_vec();
                *self = Translator::new(other, external, rng);
                self.set_events(events);
            }
        }
    }

    /// Has these external addresses from now on; see [`Nat::set_external`] and [`LinuxNat::set_external`].
    pub fn set_external(&mut self, external: Vec<IpAddr>, now: Instant) {
        each!(self, inner => inner.set_external(external, now));
    }

    /// Opens an external port for an inside endpoint; see [`Nat::map`] and [`LinuxNat::map`].
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn map(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        wanted: Wanted,
        until: Option<Instant>,
        now: Instant,
    ) -> Result<SocketAddr, MapError> {
        each!(self, inner => inner.map(proto, inside, wanted, until, now))
    }

    /// Ends what [`map`](Self::map) opened on this external endpoint. False if there is nothing.
    pub fn unmap(&mut self, proto: Proto, external: SocketAddr, now: Instant) -> bool {
        each!(self, inner => inner.unmap(proto, external, now))
    }

    /// Keeps the conversation of an inside endpoint with one other end; see [`Nat::pin`]. `None`: this kind cannot.
    pub fn pin(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        remote: SocketAddr,
        now: Instant,
    ) -> Option<Result<SocketAddr, MapError>> {
        match self {
            Translator::Axes(nat) => Some(nat.pin(proto, inside, remote, now)),
            Translator::Linux(_) | Translator::Foreign(_) => None,
        }
    }

    /// Takes that back; see [`Nat::unpin`].
    pub fn unpin(&mut self, proto: Proto, inside: SocketAddr, remote: SocketAddr, now: Instant) -> bool {
        match self {
            Translator::Axes(nat) => nat.unpin(proto, inside, remote, now),
            Translator::Linux(_) | Translator::Foreign(_) => false,
        }
    }

    /// What [`map`](Self::map) opened. In no particular order, but in the same one in each run.
    pub fn mapped(&self) -> Box<dyn Iterator<Item = Mapped> + '_> {
        each!(self, inner => Box::new(inner.mapped()))
    }

    /// What went wrong, with a translator that is no model.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Translator::Foreign(nat) => nat.trouble(),
            Translator::Axes(_) | Translator::Linux(_) => None,
        }
    }

    /// The external address that would be mapped for this inside address; `None` if there is none of its IP version.
    pub fn external_for(&self, inside: IpAddr) -> Option<IpAddr> {
        each!(self, inner => inner.external_for(inside))
    }

    /// The live bindings: protocol, inside, external and first remote endpoint. In no particular order, but in the
    /// same one in each run.
    pub fn bindings(&self) -> Box<dyn Iterator<Item = (Proto, SocketAddr, SocketAddr, SocketAddr)> + '_> {
        each!(self, inner => Box::new(inner.bindings()))
    }
}

impl Middlebox for Translator {
    #[inline]
    fn packet(&mut self, side: Side, packet: &mut dyn Packet, now: Instant) -> Verdict {
        each!(self, inner => inner.packet(side, packet, now))
    }

    fn clear(&mut self) {
        each!(self, inner => inner.clear());
    }

    fn set_events(&mut self, on: bool) {
        each!(self, inner => inner.set_events(on));
    }

    fn poll_event(&mut self) -> Option<Event> {
        each!(self, inner => inner.poll_event())
    }

    fn poll_answer(&mut self) -> Option<LateAnswer> {
        each!(self, inner => inner.poll_answer())
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        each!(self, inner => inner.poll_timeout())
    }

    fn handle_timeout(&mut self, now: Instant) {
        each!(self, inner => inner.handle_timeout(now));
    }
}
