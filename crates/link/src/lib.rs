//! One direction of a cable.
//!
//! A packet first waits in a drop-tail queue and is serialised at the link's rate, then travels: it may be lost, and
//! arrives after the delay and its jitter. [`Link::send`] says at once what becomes of it, so a link needs no timer.
//!
//! ```
//! # use std::time::{Duration, Instant};
//! use link::{Link, LinkConfig, Sent};
//! use rand_pcg::{Pcg64Mcg, rand_core::SeedableRng as _};
//!
//! let config = LinkConfig {
//!     delay: Duration::from_millis(20),
//!     rate_bps: Some(10_000_000),
//!     queue_bytes: Some(15_000),
//!     ..LinkConfig::default()
//! };
//! let mut link = Link::new(config, Pcg64Mcg::seed_from_u64(1));
//! # #[expect(clippy::disallowed_methods, reason = "an example has to start somewhere")]
//! let now = Instant::now();
//! let at = now + Duration::from_micros(1_200 + 20_000); // 1500 bytes at 10 Mbit/s, then the way
//! assert_eq!(link.send(1500, now), Sent::Deliver { at, queued: Duration::ZERO });
//! ```
//!
//! # The model
//! - **Queue**: it holds the packets that wait, in bytes; the one on the wire is no longer in it. A packet that would
//!   take it over its limit is dropped. Without a rate there is no queue.
//! - **Time** is integer nanoseconds. A packet that ends between two nanoseconds arrives at the later one, and
//!   the next packet starts from the exact fraction, so that a long burst neither gains nor loses time.
//! - **Loss** strikes on the way, after the packet has used its share of the rate.
//! - **Order**: unless the configuration allows overtaking, a packet with little jitter waits for its predecessor.
//! - **Changes** of the configuration count for later packets. Those sent keep the fate they were told, and one sent
//!   later waits for them, at the rate they were sent with.
//!
//! It does no framing: `bytes` is whatever the caller counts. It knows no MTU, bursts of loss or active queue
//! management.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand_pcg::Pcg64Mcg;

pub mod presets;

/// Random variation of the delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    /// None.
    #[default]
    None,
    /// Uniform over whole nanoseconds from `delay - plus_minus` to `delay + plus_minus`, but never below zero.
    Uniform {
        /// Half the width.
        plus_minus: Duration,
    },
}

/// A probability in parts per billion, so that no decision needs a float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss(u32);

impl Loss {
    /// Nothing is lost.
    pub const NONE: Loss = Loss(0);
    /// Everything is lost.
    pub const ALL: Loss = Loss(1_000_000_000);

    /// That many of a billion packets; more than a billion counts as all of them.
    pub const fn per_billion(parts: u32) -> Loss {
        if parts > Loss::ALL.0 { Loss::ALL } else { Loss(parts) }
    }

    /// That many of a hundred packets; more than a hundred counts as all of them.
    pub const fn percent(parts: u32) -> Loss {
        Loss::per_billion(parts.saturating_mul(10_000_000))
    }

    /// The parts per billion.
    pub const fn parts_per_billion(self) -> u32 {
        self.0
    }
}

/// What a link is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkConfig {
    /// Propagation delay.
    pub delay: Duration,
    /// Variation of the delay.
    pub jitter: Jitter,
    /// Bits per second; `None` for no limit. A link with a rate of 0 is down.
    pub rate_bps: Option<u64>,
    /// How many bytes may wait; `None` for no limit.
    pub queue_bytes: Option<u64>,
    /// The chance of each packet, independent of the others, to be lost on the way.
    pub loss: Loss,
    /// Whether jitter may make packets overtake each other.
    pub may_reorder: bool,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It arrives.
    Deliver {
        /// When its last bit arrives.
        at: Instant,
        /// How long it waits before its first bit is sent.
        queued: Duration,
    },
    /// It does not.
    Drop(DropReason),
}

/// Why a link dropped a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The queue had no room.
    QueueFull,
    /// Lost on the way.
    Loss,
    /// The link was down.
    Down,
}

impl DropReason {
    /// A short word for logs; it never changes.
    pub const fn as_str(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue-full",
            DropReason::Loss => "loss",
            DropReason::Down => "link-down",
        }
    }

    /// One plain sentence for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            DropReason::QueueFull => "The queue in front of the link was full.",
            DropReason::Loss => "The packet was lost on the way.",
            DropReason::Down => "The link was down.",
        }
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One direction of a cable.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    up: bool,
    rng: Pcg64Mcg,
    epoch: Option<Instant>,
    queue: Queue,
    /// The latest arrival promised, in nanoseconds.
    last_arrival: u64,
}

impl Link {
    /// A link that is up and empty.
    pub fn new(config: LinkConfig, rng: Pcg64Mcg) -> Link {
        Link { config, up: true, rng, epoch: None, queue: Queue::default(), last_arrival: 0 }
    }

    /// The configuration.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Changes the configuration, for later packets.
    pub fn set_config(&mut self, config: LinkConfig) {
        self.config = config;
    }

    /// Whether later packets pass at all. Those sent before still arrive.
    pub fn set_up(&mut self, up: bool) {
        self.up = up;
    }

    /// Whether the link is up.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Sends a packet. `now` must not run backwards; if it does, the packet waits for its predecessors all the same.
    pub fn send(&mut self, bytes: usize, now: Instant) -> Sent {
        if !self.up || self.config.rate_bps == Some(0) {
            return Sent::Drop(DropReason::Down);
        }
        let epoch = *self.epoch.get_or_insert(now);
        let now_ns = to_ns(now.saturating_duration_since(epoch));
        let Some(slot) = self.queue.pass(bytes as u64, now_ns, self.config.rate_bps, self.config.queue_bytes)
        else {
            return Sent::Drop(DropReason::QueueFull);
        };
        let loss = self.config.loss.parts_per_billion();
        if loss > 0 && self.rng.random_range(0..Loss::ALL.parts_per_billion()) < loss {
            return Sent::Drop(DropReason::Loss);
        }
        let mut arrival = slot.end.saturating_add(self.travel_time());
        if !self.config.may_reorder {
            arrival = arrival.max(self.last_arrival);
        }
        self.last_arrival = self.last_arrival.max(arrival);
        match epoch.checked_add(Duration::from_nanos(arrival)) {
            Some(at) => Sent::Deliver { at, queued: Duration::from_nanos(slot.start - now_ns) },
            // Beyond what the clock can say: it never arrives.
            None => Sent::Drop(DropReason::Loss),
        }
    }

    /// How many bytes wait for the wire.
    pub fn queued_bytes(&mut self, now: Instant) -> u64 {
        let Some(epoch) = self.epoch else { return 0 };
        self.queue.start_due(to_ns(now.saturating_duration_since(epoch)));
        self.queue.waiting_bytes
    }

    fn travel_time(&mut self) -> u64 {
        let delay = to_ns(self.config.delay);
        match self.config.jitter {
            Jitter::None => delay,
            Jitter::Uniform { plus_minus } => {
                let half = to_ns(plus_minus).min(u64::MAX / 4);
                let offset = self.rng.random_range(0..=2 * half);
                delay.saturating_add(offset).saturating_sub(half)
            }
        }
    }
}

/// When a packet is on the wire.
struct Slot {
    start: u64,
    end: u64,
}

/// The drop-tail queue and the transmitter behind it.
#[derive(Debug, Default)]
struct Queue {
    /// When the transmitter is free: whole nanoseconds, and `free_fraction / rate_bps` of one.
    free_at: u64,
    free_fraction: u64,
    rate_bps: u64,
    /// The packets that wait: when each starts, rounded up, and its bytes.
    waiting: VecDeque<(u64, u64)>,
    waiting_bytes: u64,
}

impl Queue {
    /// Takes a packet in, unless there is no room.
    fn pass(&mut self, bytes: u64, now: u64, rate_bps: Option<u64>, limit: Option<u64>) -> Option<Slot> {
        self.start_due(now);
        let idle = self.free_at < now || (self.free_at == now && self.free_fraction == 0);
        if !idle && limit.is_some_and(|limit| self.waiting_bytes.saturating_add(bytes) > limit) {
            return None;
        }
        if idle {
            (self.free_at, self.free_fraction) = (now, 0);
        }
        let start = self.free_at.saturating_add(u64::from(self.free_fraction > 0));
        let Some(rate) = rate_bps.filter(|rate| *rate > 0) else {
            // The rate was lifted while packets were waiting: this one still goes after them.
            return Some(Slot { start, end: start });
        };
        if self.rate_bps != rate {
            // The fraction of a nanosecond in the new unit, rounded up so that the link is never too fast.
            let scaled = u128::from(self.free_fraction) * u128::from(rate);
            self.free_fraction = scaled.div_ceil(u128::from(self.rate_bps.max(1))) as u64;
            self.rate_bps = rate;
        }
        // In units of 1 / rate nanoseconds; below 2^128 for any number of bytes.
        let work = u128::from(bytes) * 8_000_000_000 + u128::from(self.free_fraction);
        let whole = u64::try_from(work / u128::from(rate)).unwrap_or(u64::MAX);
        self.free_fraction = (work % u128::from(rate)) as u64;
        self.free_at = self.free_at.saturating_add(whole);
        if start > now {
            self.waiting.push_back((start, bytes));
            self.waiting_bytes = self.waiting_bytes.saturating_add(bytes);
        }
        Some(Slot { start, end: self.free_at.saturating_add(u64::from(self.free_fraction > 0)) })
    }

    /// Takes the packets out that have gone to the wire by `now`.
    fn start_due(&mut self, now: u64) {
        while let Some(&(start, bytes)) = self.waiting.front()
            && start <= now
        {
            self.waiting.pop_front();
            self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        }
    }
}

/// Nanoseconds, at most 584 years of them.
fn to_ns(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}
