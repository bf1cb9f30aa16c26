//! The transmitter, and the drop-tail queue in front of it.

use std::collections::VecDeque;

/// When a packet is on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// What puts packets on the wire, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// When it is free: whole nanoseconds, and `free_fraction / rate_bps` of one.
    free_at: u64,
    free_fraction: u64,
    rate_bps: u64,
}

impl Wire {
    /// Whether nothing is on it; if so, it is free from `now` on.
    #[inline]
    pub(crate) fn is_idle(&mut self, now: u64) -> bool {
        let idle = self.free_at < now || (self.free_at == now && self.free_fraction == 0);
        if idle {
            (self.free_at, self.free_fraction) = (now, 0);
        }
        idle
    }

    /// The first whole nanosecond at which it is free.
    #[inline]
    pub(crate) fn next_start(&self) -> u64 {
        self.free_at.saturating_add(u64::from(self.free_fraction > 0))
    }

    /// Sends a packet as soon as it is free.
    #[inline(always)]
    pub(crate) fn transmit(&mut self, bytes: u64, rate_bps: Option<u64>) -> Slot {
        let start = self.next_start();
        let Some(rate) = rate_bps.filter(|rate| *rate > 0) else {
            // The rate was lifted while packets were waiting: this one still goes after them.
            return Slot { start, end: start };
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
        Slot { start, end: self.next_start() }
    }
}

/// The packets that wait for the wire, each told already when it goes.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// When each starts, rounded up, and its bytes.
    packets: VecDeque<(u64, u64)>,
    bytes: u64,
}

impl Waiting {
    /// Bytes that wait, once [`Self::start_due`] has been called.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Takes the packets out that have gone to the wire by `now`.
    #[inline(always)]
    pub(crate) fn start_due(&mut self, now: u64) {
        while let Some(&(start, bytes)) = self.packets.front()
            && start <= now
        {
            self.packets.pop_front();
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// Whether a packet would take the queue over its limit.
    #[inline]
    pub(crate) fn is_full_for(&self, bytes: u64, limit: Option<u64>) -> bool {
        limit.is_some_and(|limit| self.bytes.saturating_add(bytes) > limit)
    }

    /// Keeps a packet until its start.
    #[inline(always)]
    pub(crate) fn push(&mut self, start: u64, bytes: u64, now: u64) {
        if start > now {
            self.packets.push_back((start, bytes));
            self.bytes = self.bytes.saturating_add(bytes);
        }
    }

    /// Takes a packet in, unless there is no room, and sends it when its turn comes.
    #[inline(always)]
    pub(crate) fn pass(
        &mut self,
        wire: &mut Wire,
        bytes: u64,
        now: u64,
        rate_bps: Option<u64>,
        limit: Option<u64>,
    ) -> Option<Slot> {
        self.start_due(now);
        if !wire.is_idle(now) && self.is_full_for(bytes, limit) {
            return None;
        }
        let slot = wire.transmit(bytes, rate_bps);
        self.push(slot.start, bytes, now);
        Some(slot)
    }
}
