//! Has the gateway lost its mappings? Its seconds since it began must go with ours.

use std::time::Instant;

use crate::Protocol;

/// What a gateway said last of its age, and when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Epoch(Option<(u32, Instant)>);

impl Epoch {
    /// Whether it has said nothing yet.
    pub(super) fn is_new(&self) -> bool {
        self.0.is_none()
    }

    /// Takes what it says now. `false`: it has begun anew since.
    pub(super) fn check(&mut self, protocol: Protocol, server: u32, now: Instant) -> bool {
        let Some((before, at)) = self.0.replace((server, now)) else { return true };
        let (server, before) = (u64::from(server), u64::from(before));
        let ours = now.saturating_duration_since(at).as_secs();
        if protocol == Protocol::NatPmp {
            // RFC 6886 §3.6: at least seven eighths of our time must have passed there, less two seconds.
            return server + 2 >= before + ours * 7 / 8;
        }
        // RFC 6887 §8.5: not back by more than a second, and both clocks agree within a sixteenth and two seconds.
        let Some(theirs) = (server + 1).checked_sub(before).map(|d| d.saturating_sub(1)) else {
            return false;
        };
        ours + 2 >= theirs - theirs / 16 && theirs + 2 >= ours - ours / 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
    fn after(protocol: Protocol, first: u32, second: u32, seconds: u64) -> bool {
        let start = Instant::now();
        let mut epoch = Epoch::default();
        assert!(epoch.check(protocol, first, start));
        epoch.check(protocol, second, start + Duration::from_secs(seconds))
    }

    #[test]
    fn time_that_passes_alike_is_no_restart() {
        for protocol in [Protocol::Pcp, Protocol::NatPmp] {
            assert!(after(protocol, 100, 200, 100));
            assert!(after(protocol, 100, 99, 0), "rounding");
            assert!(after(protocol, 0, 1, 3), "two seconds are allowed");
            assert!(!after(protocol, 100, 0, 5));
            assert!(!after(protocol, 100, 3, 3600));
        }
    }

    #[test]
    fn nat_pmp_allows_an_eighth_and_pcp_a_sixteenth_and_no_haste() {
        assert!(after(Protocol::NatPmp, 0, 875, 1000));
        assert!(!after(Protocol::NatPmp, 0, 872, 1000));
        assert!(after(Protocol::Pcp, 0, 936, 1000));
        assert!(!after(Protocol::Pcp, 0, 930, 1000));
        assert!(!after(Protocol::Pcp, 0, 1200, 1000));
        assert!(after(Protocol::NatPmp, 0, 1200, 1000), "RFC 6886 has no upper bound");
    }
}
