//! Numbers for people to read, made from integers only: the same text on every platform.

/// A duration: "345 µs", "12.3 ms", "1.234 s", "12.3 s".
pub fn duration(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", rounded(ns, 1_000)),
        1_000_000..999_950_000 => tenths(ns, 1_000_000, "ms"),
        999_950_000..9_999_500_000 => {
            let ms = rounded(ns, 1_000_000);
            format!("{}.{:03} s", ms / 1_000, ms % 1_000)
        }
        _ => tenths(ns, 1_000_000_000, "s"),
    }
}

/// A duration for a narrow place: "12 ms", "1.2 s".
pub fn short(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", rounded(ns, 1_000)),
        1_000_000..999_500_000 => format!("{} ms", rounded(ns, 1_000_000)),
        _ => tenths(ns, 1_000_000_000, "s"),
    }
}

/// A moment in a run, in seconds with milliseconds: "12.345 s".
pub fn moment(ns: u64) -> String {
    let ms = rounded(ns, 1_000_000);
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}

/// A rate: "920 bit/s", "64.0 kbit/s", "83.4 Mbit/s".
pub fn rate(bps: u64) -> String {
    match bps {
        0..1_000 => format!("{bps} bit/s"),
        1_000..999_950 => tenths(bps, 1_000, "kbit/s"),
        999_950..999_950_000 => tenths(bps, 1_000_000, "Mbit/s"),
        _ => tenths(bps, 1_000_000_000, "Gbit/s"),
    }
}

/// Millionths as a percentage: "0 %", "0.25 %", "12.5 %".
pub fn percent(ppm: u64) -> String {
    let hundredths = rounded(ppm, 100);
    match (hundredths / 100, hundredths % 100) {
        (0, 0) if ppm > 0 => "< 0.01 %".to_owned(),
        (whole, 0) => format!("{whole} %"),
        (whole, part) if part % 10 == 0 => format!("{whole}.{} %", part / 10),
        (whole, part) => format!("{whole}.{part:02} %"),
    }
}

/// A count with a thin space between thousands: "1 234 567".
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// "1 check", "2 checks".
pub fn plural(n: u64, one: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        _ => format!("{n} {one}s"),
    }
}

/// Half up.
fn rounded(n: u64, unit: u64) -> u64 {
    n / unit + u64::from(n % unit >= unit.div_ceil(2) && unit > 1)
}

fn tenths(n: u64, unit: u64, name: &str) -> String {
    let tenths = rounded(n, unit / 10);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_half_up_and_change_unit_where_the_rounded_number_does() {
        let shown = [0, 499, 500, 345_000, 999_499, 12_345_678, 999_949_999, 999_950_000, 1_234_567_890];
        let words = shown.map(duration);
        assert_eq!(
            words,
            ["0 µs", "0 µs", "1 µs", "345 µs", "999 µs", "12.3 ms", "999.9 ms", "1.000 s", "1.235 s"]
        );
        assert_eq!(duration(9_999_500_000), "10.0 s");
        assert_eq!(duration(u64::MAX), "18446744073.7 s");
    }

    #[test]
    fn rates_percentages_and_counts() {
        assert_eq!(
            [920, 64_000, 83_449_999, 1_000_000_000].map(rate),
            ["920 bit/s", "64.0 kbit/s", "83.4 Mbit/s", "1.0 Gbit/s"]
        );
        assert_eq!(
            [0, 40, 2_500, 10_000, 125_000, 1_000_000].map(percent),
            ["0 %", "< 0.01 %", "0.25 %", "1 %", "12.5 %", "100 %"]
        );
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(count),
            ["0", "999", "1\u{2009}000", "1\u{2009}234\u{2009}567"]
        );
        assert_eq!([moment(0), short(12_400_000), short(1_240_000_000)], ["0.000 s", "12 ms", "1.2 s"]);
    }
}
