//! Values with their units, read and written exactly: no number passes through a float.

use std::net::IpAddr;
use std::time::Duration;

/// Why a value could not be read, and what would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    /// What is wrong.
    pub(super) message: String,
    /// How to write it.
    pub(super) help: String,
}

impl Bad {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Bad {
        Bad { message: message.into(), help: help.into() }
    }
}

/// A unit: its word and how many of the base unit it holds.
type Unit = (&'static str, u128);

const DURATIONS: &[Unit] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const RATES: &[Unit] = &[("bit/s", 1), ("kbit/s", 1_000), ("Mbit/s", 1_000_000), ("Gbit/s", 1_000_000_000)];
const SIZES: &[Unit] = &[
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];
/// In parts per billion.
const RATIOS: &[Unit] = &[("%", 10_000_000)];

/// Reads "1.5s" as a whole number of base units, or says why not.
fn quantity(text: &str, what: &str, example: &str, units: &[Unit]) -> Result<u64, Bad> {
    let words: Vec<&str> = units.iter().map(|(word, _)| *word).collect();
    let help =
        || format!("write {what} as a number and one of {}, for example \"{example}\"", words.join(", "));
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let malformed =
        whole.is_empty() || fraction.contains('.') || (number.contains('.') && fraction.is_empty());
    if malformed {
        return Err(Bad::new(format!("`{text}` is not {what}"), help()));
    }
    if unit.is_empty() {
        return Err(Bad::new(format!("`{text}` has no unit"), help()));
    }
    let Some(&(_, factor)) = units.iter().find(|(word, _)| *word == unit) else {
        return Err(Bad::new(format!("`{unit}` is no unit of {what}"), help()));
    };
    let too_large = || Bad::new(format!("`{text}` is too large"), help());
    // Twenty digits hold any u64; with more, the arithmetic below could overflow.
    if whole.len() > 20 || fraction.len() > 12 {
        return Err(Bad::new(format!("`{text}` has too many digits"), help()));
    }
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| too_large())?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| too_large())?);
    let product = digits.checked_mul(factor).ok_or_else(too_large)?;
    if product % scale != 0 {
        return Err(Bad::new(format!("`{text}` is finer than {what} can be"), help()));
    }
    u64::try_from(product / scale).map_err(|_| too_large())
}

/// Writes a whole number of base units with the largest unit that is not above it, as many decimals as it takes.
fn write(value: u64, units: &[Unit]) -> String {
    let fits = |(_, factor): &&Unit| u128::from(value) >= *factor;
    let (word, factor) = units.iter().rev().find(fits).unwrap_or(&units[0]);
    let (whole, rest) = (u128::from(value) / factor, u128::from(value) % factor);
    if rest == 0 {
        return format!("{whole}{word}");
    }
    let digits = factor.ilog10() as usize;
    let decimals = format!("{rest:0digits$}");
    format!("{whole}.{}{word}", decimals.trim_end_matches('0'))
}

/// A duration in the scenario's words, exact: "20ms", "1.5s", "90s".
pub fn duration(value: Duration) -> String {
    if value.is_zero() {
        return "0s".to_owned();
    }
    // Minutes and hours are for reading only: "90s" and "120s" compare more easily than "90s" and "2min".
    write(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX), &DURATIONS[..4])
}

/// A rate in the scenario's words, exact; `None` is "unlimited".
pub fn rate(bps: Option<u64>) -> String {
    bps.map_or_else(|| "unlimited".to_owned(), |bps| write(bps, RATES))
}

/// A number of bytes in the scenario's words, exact: "64KiB", "1.5kB".
pub fn size(bytes: u64) -> String {
    // Powers of two only where they come out even.
    let binary = SIZES[4..].iter().rev().find(|(_, factor)| bytes != 0 && u128::from(bytes) % factor == 0);
    match binary {
        Some((word, factor)) => format!("{}{word}", u128::from(bytes) / factor),
        None => write(bytes, &SIZES[..4]),
    }
}

/// A ratio given in parts per billion, in the scenario's words, exact: "0.1%".
pub fn ratio(ppb: u32) -> String {
    let (whole, rest) = (ppb / 10_000_000, ppb % 10_000_000);
    if rest == 0 {
        return format!("{whole}%");
    }
    format!("{whole}.{}%", format!("{rest:07}").trim_end_matches('0'))
}

/// Longest duration: with it, sums of times in nanoseconds stay far from their limit.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads a duration.
pub(super) fn parse_duration(text: &str) -> Result<Duration, Bad> {
    let duration = Duration::from_nanos(quantity(text, "a duration", "20ms", DURATIONS)?);
    if duration > MAX_DURATION {
        return Err(Bad::new(format!("`{text}` is longer than a year"), "no scenario needs that"));
    }
    Ok(duration)
}

/// Reads a rate in bits per second; "unlimited" is `None`.
pub(super) fn parse_rate(text: &str) -> Result<Option<u64>, Bad> {
    if text.trim() == "unlimited" {
        return Ok(None);
    }
    match quantity(text, "a rate", "100Mbit/s", RATES)? {
        0 => Err(Bad::new(
            "a rate of zero",
            "to cut a link, use [[at]] down = \"NODE\"; for no limit, write \"unlimited\"",
        )),
        bps => Ok(Some(bps)),
    }
}

/// Reads a number of bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, Bad> {
    quantity(text, "a size", "64KiB", SIZES)
}

/// Reads a share of at most 100 %, in parts per billion.
pub(super) fn parse_ratio(text: &str) -> Result<u32, Bad> {
    let ppb = quantity(text, "a share", "0.1%", RATIOS)?;
    u32::try_from(ppb)
        .ok()
        .filter(|ppb| *ppb <= 1_000_000_000)
        .ok_or_else(|| Bad::new(format!("`{text}` is more than everything"), "the most is \"100%\""))
}

/// Reads a network such as "192.168.1.0/24". Its host bits must be zero.
pub(super) fn parse_prefix(text: &str) -> Result<(IpAddr, u8), Bad> {
    let help = "write a network as its address and prefix length, for example \"192.168.1.0/24\"";
    let malformed = || Bad::new(format!("`{text}` is not a network"), help);
    let (address, length) = text.trim().split_once('/').ok_or_else(malformed)?;
    let address: IpAddr = address.parse().map_err(|_| malformed())?;
    let length: u8 = length.parse().map_err(|_| malformed())?;
    let network = super::prefix::network(address, length).ok_or_else(malformed)?;
    if network != address {
        return Err(Bad::new(
            format!("`{text}` is an address inside a network, not the network"),
            format!("the network is \"{network}/{length}\""),
        ));
    }
    // A router, a host and the two reserved addresses need four.
    if super::prefix::host_bits(address, length).is_none_or(|bits| bits < 2) {
        return Err(Bad::new(format!("`{text}` has no room for a host"), help));
    }
    Ok((address, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_exact() {
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("0.000001ms"), Ok(Duration::from_nanos(1)));
        assert_eq!(parse_duration("2 min"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_rate("2.5Gbit/s"), Ok(Some(2_500_000_000)));
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_ratio("0.1%"), Ok(1_000_000));
        assert_eq!(parse_ratio("100%"), Ok(1_000_000_000));
        assert_eq!(parse_prefix("192.168.1.0/24"), Ok((IpAddr::from([192, 168, 1, 0]), 24)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let message = |bad: Bad| bad.message;
        assert_eq!(parse_duration("20").map_err(message), Err("`20` has no unit".to_owned()));
        assert_eq!(
            parse_duration("20sec").map_err(message),
            Err("`sec` is no unit of a duration".to_owned())
        );
        assert_eq!(
            parse_duration("0.1ns").map_err(message),
            Err("`0.1ns` is finer than a duration can be".to_owned())
        );
        assert_eq!(parse_duration("-1s").map_err(message), Err("`-1s` is not a duration".to_owned()));
        assert_eq!(parse_ratio("101%").map_err(message), Err("`101%` is more than everything".to_owned()));
        assert_eq!(parse_rate("0bit/s").map_err(message), Err("a rate of zero".to_owned()));
        assert_eq!(
            parse_prefix("192.168.1.5/24").map_err(|bad| bad.help),
            Err("the network is \"192.168.1.0/24\"".to_owned())
        );
        assert!(parse_prefix("10.0.0.0/33").is_err());
        assert!(parse_prefix("10.0.0.0/31").is_err());
    }

    proptest! {
        #[test]
        fn any_text_gives_a_value_or_an_error(text in ".{0,40}") {
            let _ = (parse_duration(&text), parse_rate(&text), parse_size(&text), parse_ratio(&text), parse_prefix(&text));
        }

        #[test]
        fn what_is_written_reads_back(ns in 0..=MAX_DURATION.as_nanos() as u64, bps in 1_u64.., bytes in any::<u64>(), ppb in 0_u32..=1_000_000_000) {
            prop_assert_eq!(parse_duration(&duration(Duration::from_nanos(ns))), Ok(Duration::from_nanos(ns)));
            prop_assert_eq!(parse_rate(&rate(Some(bps))), Ok(Some(bps)));
            prop_assert_eq!(parse_size(&size(bytes)), Ok(bytes));
            prop_assert_eq!(parse_ratio(&ratio(ppb)), Ok(ppb));
        }
    }
}
