//! Rates and sizes, as people write them.

use std::str::FromStr;

use serde::Deserialize;

const HELP: &str = "write it as 2MB/s, 500kB/s or 16Mbit/s";
const SIZE_HELP: &str = "write it as 1MB or 256kB";

/// A rate in bytes a second, such as `2MB/s` or `16Mbit/s`. Prefixes are powers of 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate(pub u64);

/// A number of bytes, such as `256kB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

/// A whole number and its prefix, before a unit.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor: u64 = match text[digits.len()..].trim() {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).filter(|number| *number > 0)
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let bits = text.strip_suffix("bit/s").and_then(number).map(|bits| bits.div_ceil(8));
        let bytes = text.strip_suffix("B/s").and_then(number);
        bits.or(bytes).map(Rate).ok_or_else(|| format!("{text:?} is no rate; {HELP}"))
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let bytes = text.strip_suffix('B').and_then(number);
        bytes.map(Size).ok_or_else(|| format!("{text:?} is no size; {SIZE_HELP}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_and_sizes_are_read_as_people_write_them() {
        assert_eq!("2MB/s".parse(), Ok(Rate(2_000_000)));
        assert_eq!("500 kB/s".parse(), Ok(Rate(500_000)));
        assert_eq!("16Mbit/s".parse(), Ok(Rate(2_000_000)));
        assert_eq!("1bit/s".parse(), Ok(Rate(1)));
        assert_eq!("256kB".parse(), Ok(Size(256_000)));
        for text in ["", "2", "0B/s", "2MB", "-1kB/s", "2.5MB/s", "2TB/s", "99999999999GB/s", "B/s", "1é"] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.contains("16Mbit/s"), "{error}");
        }
        assert!("2MB/s".parse::<Size>().unwrap_err().contains("256kB"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_rate_or_refused(text in ".{0,20}", near in "[0-9]{0,22} ?[kMGT]?(B|bit)?(/s)?") {
            let _ = (text.parse::<Rate>(), text.parse::<Size>());
            let _ = (near.parse::<Rate>(), near.parse::<Size>());
        }
    }
}
