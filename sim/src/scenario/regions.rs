//! Regions of the internet and how far apart they are.

use std::net::IpAddr;
use std::time::Duration;

/// A region of the built-in matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// The name used in scenario files.
    pub name: &'static str,
    /// Another name for it.
    pub alias: &'static str,
}

/// The built-in regions, in the order of the matrix.
pub const REGIONS: [Region; 10] = [
    Region { name: "us-central", alias: "dallas" },
    Region { name: "ca-east", alias: "toronto" },
    Region { name: "us-east", alias: "washington" },
    Region { name: "eu-central", alias: "frankfurt" },
    Region { name: "eu-west", alias: "london" },
    Region { name: "eu-south", alias: "madrid" },
    Region { name: "ap-osaka", alias: "osaka" },
    Region { name: "ap-northeast", alias: "tokyo" },
    Region { name: "ap-southeast", alias: "sydney" },
    Region { name: "sa-east", alias: "sao-paulo" },
];

/// Mean round trips in ms from the row to the column, 27 July to 25 August 2024, as IBM Cloud publishes them for its
/// VPC regions (github.com/ibm-cloud-docs/vpc, `_include-segments/network-latency.md`); the diagonal is the same page's
/// figure between two zones of a region.
const RTT_MS: [[u64; 10]; 10] = [
    [2, 34, 31, 123, 113, 119, 150, 143, 186, 146],
    [34, 2, 19, 93, 82, 108, 168, 162, 215, 129],
    [31, 19, 2, 91, 75, 87, 172, 164, 214, 118],
    [123, 93, 91, 2, 13, 29, 232, 233, 250, 198],
    [113, 83, 75, 13, 2, 27, 244, 243, 261, 188],
    [122, 106, 88, 29, 27, 2, 257, 258, 275, 209],
    [150, 169, 172, 231, 243, 257, 2, 9, 122, 293],
    [143, 162, 166, 233, 244, 256, 9, 2, 115, 284],
    [186, 214, 214, 249, 261, 275, 122, 115, 2, 328],
    [144, 128, 119, 196, 187, 208, 291, 283, 328, 2],
];

/// Index in [`REGIONS`] of a name or alias.
pub(crate) fn index(word: &str) -> Option<usize> {
    REGIONS.iter().position(|region| region.name == word || region.alias == word)
}

/// The name of a region, whichever way it is written; other words are regions of the scenario's own.
pub fn canonical(word: &str) -> &str {
    index(word).map_or(word, |i| REGIONS[i].name)
}

/// One-way delay between two built-in regions: half the mean of both measured round trips.
pub fn one_way(a: &str, b: &str) -> Option<Duration> {
    let (a, b) = (index(a)?, index(b)?);
    Some(Duration::from_micros((RTT_MS[a][b] + RTT_MS[b][a]) * 1000 / 4))
}

/// One-way delay inside a region of the scenario's own, as in the built-in ones.
pub(crate) const INSIDE: Duration = Duration::from_millis(1);

/// The public addresses of a region: 33.R.0.0/16.
///
/// Traversal code is right to think little of documentation, benchmark or private addresses (RFC 5737, 2544, 1918), and
/// the documentation blocks hold 768 addresses in all. 33.0.0.0/8 is an ordinary block to such code; one organisation
/// holds it, and nobody would take it for a relay or a home. No packet of a simulation leaves it.
pub(crate) fn block(region: u32) -> (IpAddr, u8) {
    let region = u8::try_from(region % 128).unwrap_or(0);
    (IpAddr::from([33, region, 0, 0]), 16)
}

/// The public network behind the `n`th router that does not translate, from the other half of the same /8.
pub(crate) fn routed(n: usize) -> (IpAddr, u8) {
    let [.., high, low] = n.to_be_bytes();
    (IpAddr::from([33, 128 + high % 128, low, 0]), 24)
}

/// The public IPv6 addresses of a region: 3000:R::/32.
///
/// Nobody holds 3000::/4: IANA has reserved it, in the midst of the global unicast addresses 2000::/3 (RFC 4291 §2.4), so it
/// is neither documentation (RFC 3849, RFC 9637) nor private to anybody's code.
pub(crate) fn block6(region: u32) -> (IpAddr, u8) {
    let region = u16::try_from(region).unwrap_or(u16::MAX);
    (IpAddr::from([0x3000, region, 0, 0, 0, 0, 0, 0]), 32)
}

/// What a provider delegates to the `n`th router with IPv6, as far as its first network: 3001:0:n::/64 of a /48 (RFC 6177).
pub(crate) fn delegated(n: usize) -> (IpAddr, u8) {
    let n = u16::try_from(n).unwrap_or(u16::MAX);
    (IpAddr::from([0x3001, 0, n, 0, 0, 0, 0, 0]), 64)
}

/// A network of unique local addresses (RFC 4193) for the `n`th router. Those of real ones are random.
pub(crate) fn unique_local(n: usize) -> (IpAddr, u8) {
    let n = u16::try_from(n).unwrap_or(u16::MAX);
    (IpAddr::from([0xfd33, 0, n, 0, 0, 0, 0, 0]), 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_symmetric_and_halved() {
        assert_eq!(one_way("frankfurt", "eu-west"), Some(Duration::from_micros(6500)));
        assert_eq!(one_way("eu-west", "eu-west"), Some(INSIDE));
        for a in REGIONS {
            for b in REGIONS {
                assert_eq!(one_way(a.name, b.alias), one_way(b.name, a.alias));
            }
        }
        assert_eq!(one_way("eu-west", "mars"), None);
    }
}
