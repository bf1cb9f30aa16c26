//! Makes the trace that ships beside the scenarios: a phone in a 3G network on the road.
//!
//! `cargo run -p link --example make_trace > scenarios/link/3g-drive.trace`
//!
//! It is no measurement: the rate takes a random step every half second between 0.2 and 4 Mbit/s, the range that the worst tenth and
//! the median of the 3G tests in ERRANT's sample span (arXiv:2106.06335: 1.0 Mbit/s up, 2.7 at the median), and fades away for two
//! seconds twice a minute, as behind a bridge. The numbers are drawn from a fixed seed, so that the file comes out the same.

use std::fmt::Write as _;

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};

/// One minute.
const LENGTH_MS: u64 = 60_000;
/// The rate stays for so long.
const STEP_MS: u64 = 500;
/// Bits of a chance to send.
const BITS: u64 = 1500 * 8;

/// The lines of the trace.
pub(crate) fn trace() -> String {
    let mut rng = Pcg64Mcg::seed_from_u64(3);
    let (mut rate_bps, mut owed, mut out) = (1_500_000_u64, 0, String::new());
    for ms in 1..=LENGTH_MS {
        if ms % STEP_MS == 0 {
            // Up or down by at most a quarter.
            let percent = 75 + rng.next_u64() % 51;
            rate_bps = (rate_bps * percent / 100).clamp(200_000, 4_000_000);
        }
        let faded = matches!(ms % 30_000, 12_000..14_000);
        owed += if faded { 0 } else { rate_bps };
        while owed >= BITS * 1000 {
            owed -= BITS * 1000;
            let _ = writeln!(out, "{ms}");
        }
    }
    // The last line is the length of the trace.
    let _ = writeln!(out, "{LENGTH_MS}");
    out
}

#[expect(clippy::print_stdout, reason = "it prints the trace")]
fn main() {
    print!("{}", trace());
}
