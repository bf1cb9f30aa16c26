//! Virtual time: nanoseconds since the start of the run, and the `Instant` that the cores are given.

use std::time::{Duration, Instant};

/// The only maker of instants in the simulator. It reads the machine's clock once, for a base that no one may look at:
/// cores see only differences.
#[derive(Debug, Clone)]
pub struct Clock {
    base: Instant,
    now_ns: u64,
    now: Instant,
}

impl Clock {
    /// A clock at 0.
    #[expect(
        clippy::disallowed_methods,
        reason = "std has no other way to make an Instant; only differences to it are used"
    )]
    pub fn new() -> Clock {
        let base = Instant::now();
        Clock { base, now_ns: 0, now: base }
    }

    /// Nanoseconds since the start of the run.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The same as an instant.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Moves to a time that is not in the past; returns false (and stays) if it is.
    pub fn advance_to(&mut self, at_ns: u64) -> bool {
        if at_ns < self.now_ns {
            return false;
        }
        if at_ns > self.now_ns {
            self.now_ns = at_ns;
            self.now = self.base + Duration::from_nanos(at_ns);
        }
        true
    }

    /// Goes to a time that may be in the past, for worlds in which each machine has a clock of its own.
    pub(super) fn set(&mut self, at_ns: u64) {
        self.now_ns = at_ns;
        self.now = self.base + Duration::from_nanos(at_ns);
    }

    /// The start of the run.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.base)
    }

    /// See [`Epoch::ns`].
    pub fn ns(&self, at: Instant) -> u64 {
        self.epoch().ns(at)
    }
}

/// The start of a run as the cores' instants count it.
#[derive(Debug, Clone, Copy)]
pub struct Epoch(Instant);

impl Epoch {
    /// Nanoseconds since the start of the run of an instant that a core gave; 0 for one before the start.
    pub fn ns(self, at: Instant) -> u64 {
        // 2^64 ns are 584 years.
        at.saturating_duration_since(self.0).as_nanos() as u64
    }

    /// The instant that lies so long after the start.
    pub fn after(self, since_start: Duration) -> Instant {
        self.0 + since_start
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}
