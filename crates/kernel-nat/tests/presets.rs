//! Which of the presets the kernel has rules for.

use std::net::IpAddr;

use kernel_nat::express;
use nat::presets::NATS;

/// For each preset the rule that does it and its flags, or why there is none.
const PRESETS: &[(&str, Result<&str, &str>)] = &[
    ("rfc4787", Err("an address-dependent filter that hairpins")),
    ("full-cone", Ok("full-cone persistent")),
    ("restricted-cone", Ok("restricted-cone persistent")),
    ("port-restricted-cone", Ok("snat persistent")),
    ("symmetric", Ok("snat random persistent")),
    ("symmetric-sequential", Ok("sequential")),
    ("linux", Ok("masquerade")),
    ("linux-naive", Ok("masquerade")),
    ("linux-random", Ok("masquerade random")),
    ("cgn", Err("mapping endpoint-independent with ports random")),
    ("cgn-no-hairpin", Err("mapping endpoint-independent with ports random")),
    ("pfsense", Ok("snat random persistent")),
    ("aws-nat-gateway", Ok("snat random persistent")),
    ("azure-nat-gateway", Err("netfilter's NAT has nothing like unsolicited, hold-down")),
    ("gcp-cloud-nat", Err("netfilter's NAT has nothing like block")),
    ("cisco-ios", Ok("snat persistent")),
    ("routeros", Ok("masquerade")),
    ("one-to-one", Err("pooling one-to-one; the rule \"static\" does it for hosts that it names")),
    ("rfc5382", Err("netfilter's NAT has nothing like parity, syn-hold, hold-down")),
    ("cgn-port-block", Err("netfilter's NAT has nothing like block, hold-down")),
    ("cgn-cellular", Ok("snat random persistent")),
    ("overloading", Ok("snat persistent")),
    ("answers-rst", Err("netfilter's NAT has nothing like unsolicited")),
    ("internal-source", Err("hairpin internal-source")),
    ("arbitrary-pool", Ok("snat random")),
    ("small-table", Ok("snat persistent")),
];

#[test]
fn each_preset_has_these_rules_or_this_reason() {
    let external = [IpAddr::from([198, 51, 100, 1])];
    let found: Vec<_> = NATS
        .iter()
        .map(|preset| {
            let rules = express(&preset.config, &external).map(|config| {
                let mut words = config.rule.to_string();
                for (on, word) in [
                    (config.random, " random"),
                    (config.persistent, " persistent"),
                    (config.hairpin, " hairpin"),
                ] {
                    words.push_str(if on { word } else { "" });
                }
                words
            });
            (preset.name, rules.map_err(|why| why.0))
        })
        .collect();
    let expected: Vec<_> = PRESETS
        .iter()
        .map(|(name, rules)| (*name, rules.map(str::to_owned).map_err(str::to_owned)))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn no_preset_has_rules_for_addresses_of_ipv6() {
    let external = ["2001:db8::1".parse::<IpAddr>().expect("an address")];
    for preset in NATS {
        assert!(express(&preset.config, &external).is_err(), "{}", preset.name);
    }
}
