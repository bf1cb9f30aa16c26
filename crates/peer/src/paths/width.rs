//! Does the selected path carry large packets?
//!
//! Checks are small, so a path that loses only large packets answers them all: a link with a smaller MTU whose ICMP errors are
//! filtered, or a firewall that knows the size of a handshake (RFC 2923 §2.1). The sign is that large packets bring nothing
//! back from the tunnel while checks are answered, or that an ICMP error says so. Neither proves it: that is for checks as
//! long as the packets (RFC 8899 §4.1), which Tailscale, too, pads for that (`disco/disco.go`, `Ping.Padding`). Where they
//! stay unanswered, large packets go over the relay and small ones as before. A path without the sign is never measured.

use std::time::{Duration, Instant};

/// What every path carries, in bytes of UDP payload: the datagram that every host must be able to receive (RFC 1122
/// §3.3.2), less IPv4 and UDP headers. Longer packets are large.
pub(crate) const ALWAYS: usize = 576 - 28;

/// Answered checks, while large packets bring nothing back, that make a sign.
const SIGNS: u32 = 2;
/// For how long at least they must have brought nothing: longer than the first retransmission of any transport in the tunnel
/// takes (RFC 6298 §2.1).
const PATIENCE: Duration = Duration::from_millis(1000);
/// Checks of full length, as in RFC 8899 §5.1.2 (`MAX_PROBES`), and the wait after each.
const PROBES: u32 = 3;
const GAP: Duration = Duration::from_millis(400);

/// What is known of the path's width.
#[derive(Debug, Default)]
pub(crate) struct Width {
    /// The largest packet since something last came back from the tunnel, and when the first large one went out.
    unanswered: Option<(usize, Instant)>,
    signs: u32,
    probe: Option<Probe>,
    /// Since when large packets go elsewhere, and how long those were that did not pass.
    narrow: Option<(Instant, usize)>,
}

#[derive(Debug)]
struct Probe {
    size: usize,
    sent: u32,
    next: Instant,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Nothing.
    Wait,
    /// Send a check of that length.
    Probe { size: usize, attempt: u32 },
    /// Large packets must go elsewhere.
    Narrow,
}

impl Width {
    /// A tunnel packet of that length is to go out. Says whether the path will carry it.
    pub(crate) fn carries(&mut self, size: usize, now: Instant) -> bool {
        if size <= ALWAYS {
            return true;
        }
        if self.narrow.is_some() {
            return false;
        }
        let (largest, _) = self.unanswered.get_or_insert((size, now));
        *largest = size.max(*largest);
        true
    }

    /// Something came back from the tunnel.
    pub(crate) fn heard(&mut self) {
        self.unanswered = None;
        self.signs = 0;
    }

    /// A check of ordinary length was answered.
    pub(crate) fn answered(&mut self, now: Instant) {
        let Some((size, since)) = self.unanswered else { return };
        self.signs += 1;
        if self.signs >= SIGNS && now.saturating_duration_since(since) >= PATIENCE {
            self.measure(size, now);
        }
    }

    /// An ICMP error says that a packet was too big. Anybody may have sent it.
    pub(crate) fn told(&mut self, now: Instant) {
        if let Some((size, _)) = self.unanswered {
            self.measure(size, now);
        }
    }

    fn measure(&mut self, size: usize, now: Instant) {
        if self.probe.is_none() && self.narrow.is_none() {
            self.probe = Some(Probe { size, sent: 0, next: now });
        }
    }

    /// A check of full length was answered. Says whether that makes the path wide again.
    pub(crate) fn proven(&mut self) -> bool {
        self.heard();
        self.probe = None;
        self.narrow.take().is_some()
    }

    /// The next deadline. `again`: how long a path stays narrow before it is measured anew.
    pub(crate) fn poll_timeout(&self, active: bool, again: Duration) -> Option<Instant> {
        match (&self.probe, self.narrow) {
            (Some(probe), _) => Some(probe.next),
            (None, Some((since, _))) if active => Some(since + again),
            _ => None,
        }
    }

    /// Call until it says [`Measure::Wait`].
    pub(crate) fn handle_timeout(&mut self, active: bool, again: Duration, now: Instant) -> Measure {
        if let (None, Some((since, size))) = (&self.probe, self.narrow)
            && active
            && since + again <= now
        {
            self.probe = Some(Probe { size, sent: 0, next: now });
        }
        let Some(probe) = self.probe.as_mut().filter(|probe| probe.next <= now) else { return Measure::Wait };
        if probe.sent < PROBES {
            let attempt = probe.sent;
            probe.sent += 1;
            probe.next = now + GAP;
            return Measure::Probe { size: probe.size, attempt };
        }
        let (size, known) = (probe.size, self.narrow.is_some());
        self.probe = None;
        self.heard();
        self.narrow = Some((now, size));
        if known { Measure::Wait } else { Measure::Narrow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGAIN: Duration = Duration::from_secs(60);

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Large packets went out at the start, and checks were answered after these times.
    fn after(answers: &[u64]) -> (Width, Instant) {
        let (mut width, t0) = (Width::default(), start());
        assert!(width.carries(1308, t0));
        for &at in answers {
            width.answered(t0 + ms(at));
        }
        (width, t0)
    }

    #[test]
    fn large_packets_that_bring_nothing_back_are_measured_and_sent_elsewhere() {
        let (mut width, t0) = after(&[400, 1200]);

        let mut probes = Vec::new();
        let end = loop {
            let at = width.poll_timeout(true, AGAIN).expect("it is measuring");
            match width.handle_timeout(true, AGAIN, at) {
                Measure::Probe { size: 1308, .. } => probes.push((at - t0).as_millis()),
                other => break (at - t0, other),
            }
        };

        assert_eq!(probes, [1200, 1600, 2000]);
        assert_eq!(end, (ms(2400), Measure::Narrow));
        assert!(!width.carries(1308, t0 + ms(3000)) && !width.carries(ALWAYS + 1, t0 + ms(3000)));
        assert!(width.carries(ALWAYS, t0 + ms(3000)));
    }

    #[test]
    fn a_path_without_a_sign_is_never_measured() {
        let (small, t0) = {
            let (mut width, t0) = (Width::default(), start());
            assert!(width.carries(ALWAYS, t0));
            width.answered(t0 + ms(5000));
            width.answered(t0 + ms(9000));
            (width, t0)
        };
        assert_eq!(small.poll_timeout(true, AGAIN), None);
        assert_eq!(after(&[400]).0.poll_timeout(true, AGAIN), None, "one answer");
        assert_eq!(after(&[200, 400, 600, 800]).0.poll_timeout(true, AGAIN), None, "too soon");
        let (mut width, _) = after(&[400, 900]);
        width.heard();
        width.answered(t0 + ms(1500));
        assert_eq!(width.poll_timeout(true, AGAIN), None, "something came back");
    }

    #[test]
    fn an_answer_to_a_long_check_clears_the_path() {
        let (mut width, t0) = after(&[400, 1200]);
        assert!(matches!(width.handle_timeout(true, AGAIN, t0 + ms(1200)), Measure::Probe { .. }));

        assert!(!width.proven(), "it was not narrow");

        assert_eq!(width.poll_timeout(true, AGAIN), None);
        assert!(width.carries(1308, t0 + ms(1300)));
    }

    #[test]
    fn an_error_is_a_hint_about_what_went_out_and_nothing_more() {
        let (mut width, t0) = (Width::default(), start());
        width.told(t0);
        assert_eq!(width.poll_timeout(true, AGAIN), None, "nothing large went out");

        assert!(width.carries(1308, t0));
        width.told(t0 + ms(30));

        assert_eq!(width.poll_timeout(true, AGAIN), Some(t0 + ms(30)));
        assert!(width.carries(1308, t0 + ms(31)), "anybody may have sent it");
    }

    #[test]
    fn a_narrow_path_is_measured_again_and_widened() {
        let (mut width, t0) = after(&[400, 1200]);
        while width.narrow.is_none() {
            let at = width.poll_timeout(true, AGAIN).expect("it is measuring");
            width.handle_timeout(true, AGAIN, at);
        }
        let since = t0 + ms(2400);
        assert_eq!(width.poll_timeout(false, AGAIN), None, "not while nobody needs it");

        let again = width.handle_timeout(true, AGAIN, since + AGAIN);

        assert_eq!(again, Measure::Probe { size: 1308, attempt: 0 });
        assert!(width.proven());
        assert!(width.carries(1308, since + AGAIN));
    }
}
