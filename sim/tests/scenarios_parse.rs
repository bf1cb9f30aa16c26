//! Scenario files from the outside: what is understood, what is refused and how, and that what ships is sound.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use punchbag::scenario::{self, Action, Attachment, Scenario};
use punchbag::topology::{Parent, Topology};

const TWO_HOMES: &str = r#"
title = "Two homes"
why = "everyday life"
until = "40s"

[router.home-a]
region = "eu-west"
nat = "port-restricted-cone"
link = "cable"

[router.home-b]
region = "washington"
nat = { mapping = "endpoint-independent", filtering = "address-and-port-dependent", ports = "random", udp-timeout = "60s" }
link = { down = "100Mbit/s", up = "20Mbit/s", delay = "8ms", queue = "256KiB", loss = "0.1%" }

[host.takkie]
behind = "home-a"
address = "192.168.1.2"

[host.flappie]
behind = "home-b"
address = "192.168.1.2"

[[traffic]]
kind = "voice"
from = "takkie"
to = "flappie"
at = "1s"

[[at]]
time = "20s"
link = { node = "home-b", loss = { up = "2%" } }

[[at]]
time = "15s"
reboot = { router = "home-a", off = "5s" }

[[expect]]
pair = ["takkie", "flappie"]
path = "direct"
direct-within = "2s"
recovers-within = "3s"
"#;

fn parse(text: &str) -> Scenario {
    scenario::parse("test", "test.toml", text).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> String {
    scenario::parse("test", "test.toml", text).expect_err("this is wrong").to_string()
}

/// Everything but the hash, which is that of the text.
fn same(mut a: Scenario, b: &Scenario) {
    a.hash.clone_from(&b.hash);
    assert_eq!(a, *b);
}

fn shipped() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, out: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).expect("a folder of scenarios").flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                let text = std::fs::read_to_string(&path).expect("a readable scenario");
                out.push((path, text));
            }
        }
    }
    let mut out = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios"), &mut out);
    out.sort();
    out
}

#[test]
fn what_a_file_says_is_understood() {
    let scenario = parse(TWO_HOMES);
    assert_eq!(scenario.until, Duration::from_secs(40));
    assert_eq!(scenario.routers["home-b"].uplink, Attachment::Region("us-east".to_owned()));
    let nat = scenario.routers["home-b"].nat.as_ref().and_then(|nat| nat.axes()).expect("axes");
    assert_eq!(nat.timeouts.udp_replied, Duration::from_secs(60));
    assert_eq!(nat.allocation, nat::PortAllocation::Random);
    let link = &scenario.routers["home-b"].link;
    assert_eq!((link.down.rate_bps, link.up.rate_bps), (Some(100_000_000), Some(20_000_000)));
    assert_eq!(link.up.queue_bytes, Some(262_144));
    assert_eq!(link.down.loss, link::Loss::per_billion(1_000_000));
    assert_eq!(scenario.traffic[0].interval, Duration::from_millis(20));
}

#[test]
fn the_timeline_is_sorted_and_a_change_keeps_what_it_does_not_name() {
    let scenario = parse(TWO_HOMES);
    let words: Vec<&str> = scenario.timeline.iter().map(|timed| timed.words.as_str()).collect();
    assert_eq!(words, ["router home-a: reboot, off for 5s", "link of home-b: up loss 2%"]);
    let Action::ChangeLink { link, .. } = &scenario.timeline[1].action else { panic!("a change of a link") };
    assert_eq!(link.down, scenario.routers["home-b"].link.down);
    assert_eq!(link.up.rate_bps, Some(20_000_000));
}

#[test]
fn overlapping_private_addresses_are_normal() {
    let topology = Topology::new(&parse(TWO_HOMES)).expect("a topology");
    let address = |name: &str| topology.node(topology.find(name).expect(name)).address;
    assert_eq!(address("takkie"), address("flappie"));
    assert_ne!(address("home-a"), address("home-b"));
    assert_ne!(address("relay"), address("stun"));
}

#[test]
fn delays_are_half_of_the_measured_round_trips() {
    let topology = Topology::new(&parse(TWO_HOMES)).expect("a topology");
    let region = |name: &str| topology.node(topology.find(name).expect(name)).region;
    let (a, b) = (region("takkie"), region("flappie"));
    assert_eq!(topology.one_way(a, b), Duration::from_micros(37_500));
    assert_eq!(topology.one_way(b, a), topology.one_way(a, b));
    assert_eq!(topology.one_way(a, a), Duration::from_millis(1));
}

#[test]
fn a_file_of_three_sections_has_servers_and_traffic() {
    let scenario =
        parse("title = \"t\"\n[router.r]\nregion = \"tokyo\"\n[host.h]\ncount = 2\nbehind = \"r\"");
    assert_eq!(scenario.relays["relay"].region, "ap-northeast");
    assert_eq!(scenario.stuns.len(), 1);
    assert_eq!(scenario.routers["r"].nat_name, "linux");
    assert_eq!((scenario.traffic[0].from.as_str(), scenario.traffic[0].to.as_str()), ("h-1", "h-2"));
}

#[test]
fn counted_hosts_pair_up() {
    let text = |flow: &str| {
        format!(
            "title = \"t\"\n[router.r]\nregion = \"tokyo\"\n[host.a]\ncount = 3\nbehind = \"r\"\n\
             [host.b]\ncount = 3\nbehind = \"r\"\n[host.c]\nregion = \"sydney\"\n[[traffic]]\nkind = \"ping\"\n{flow}"
        )
    };
    let pairs = |flow: &str| -> Vec<String> {
        parse(&text(flow)).traffic.iter().map(|flow| format!("{}>{}", flow.from, flow.to)).collect()
    };
    assert_eq!(pairs("from = \"a\"\nto = \"a\""), ["a-1>a-2", "a-2>a-3", "a-3>a-1"]);
    assert_eq!(pairs("from = \"a\"\nto = \"b\""), ["a-1>b-1", "a-2>b-2", "a-3>b-3"]);
    assert_eq!(pairs("from = \"a\"\nto = \"c\""), ["a-1>c", "a-2>c", "a-3>c"]);
    assert_eq!(pairs("from = \"c\"\nto = \"a-2\""), ["c>a-2"]);
    assert!(refusal(&text("from = \"c\"\nto = \"c\"")).contains("`c` cannot be its own partner"));
}

#[test]
fn networks_nest_and_get_addresses() {
    let scenario = parse(
        r#"
title = "Carrier"
[router.inner]
behind = "home"
[router.home]
behind = "carrier"
[router.carrier]
region = "eu-west"
nat = "cgn"
[host.a]
behind = "inner"
[host.phone]
behind = "carrier"
"#,
    );
    assert_eq!(scenario.routers.keys().collect::<Vec<_>>(), ["carrier", "home", "inner"]);
    let topology = Topology::new(&scenario).expect("a topology");
    let node = |name: &str| topology.node(topology.find(name).expect(name));
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    assert_eq!(node("home").address, ip("100.64.0.2"));
    assert_eq!(node("phone").address, ip("100.64.0.3"));
    assert_eq!(node("inner").address, ip("192.168.1.2"));
    assert_eq!(node("a").address, ip("192.168.2.2"));
    assert_eq!(node("a").parent, Parent::Router(topology.find("inner").expect("inner")));
    let home = node("home").router.as_ref().expect("a router");
    assert_eq!((home.gateway, home.external.as_slice()), (ip("192.168.1.1"), &[ip("100.64.0.2")][..]));
}

#[test]
fn ipv6_has_its_place() {
    let scenario = parse(
        r#"
title = "IPv6"
[router.home]
region = "eu-west"
address = "2001:db8::1"
lan = "fd00::/64"
[host.a]
behind = "home"
[host.b]
behind = "home"
address = "fd00::5"
"#,
    );
    let topology = Topology::new(&scenario).expect("a topology");
    let address = |name: &str| topology.node(topology.find(name).expect(name)).address.to_string();
    assert_eq!((address("a").as_str(), address("b").as_str()), ("fd00::2", "fd00::5"));
    same(parse(&scenario::expanded(&scenario)), &scenario);
}

#[test]
fn addresses_that_contradict_each_other_are_refused() {
    let text = |keys: &str| {
        format!(
            "title = \"t\"\n[router.r]\nregion = \"tokyo\"\n[host.a]\nbehind = \"r\"\naddress = \"100.64.0.8\"\n\
             [router.s]\nbehind = \"r\"\n[host.b]\n{keys}"
        )
    };
    let cases = [
        (
            "behind = \"r\"\naddress = \"100.64.0.9\"\n[host.c]\nbehind = \"r\"\naddress = \"100.64.0.9\"",
            "c and b both have",
        ),
        ("region = \"tokyo\"\naddress = \"10.0.0.1\"", "not a public address"),
        ("behind = \"s\"\naddress = \"192.168.1.1\"", "not a host's address"),
    ];
    for (keys, expected) in cases {
        let text = text(keys);
        assert!(refusal(&text).contains(expected), "{keys}\n{}", refusal(&text));
    }
    let taken = text("behind = \"r\"\naddress = \"100.64.0.8\"");
    assert!(refusal(&taken).contains("b and a both have 100.64.0.8"), "{}", refusal(&taken));
    let inner = text("behind = \"s\"\n[router.t]\nbehind = \"s\"\nlan = \"192.168.1.0/25\"");
    assert!(refusal(&inner).contains("the same network inside and outside"), "{}", refusal(&inner));
}

#[test]
fn a_router_without_translation_passes_its_addresses_on() {
    let scenario = parse(
        r#"
title = "Firewall only"
[router.office]
region = "eu-west"
nat = "none"
firewall = "stateful"
[router.floor]
behind = "office"
nat = "none"
[host.a]
behind = "office"
[host.b]
behind = "floor"
"#,
    );
    let topology = Topology::new(&scenario).expect("a topology");
    let find = |name: &str| topology.find(name).expect(name);
    let (office, floor) = (find("office"), find("floor"));
    for host in ["a", "b", "floor"] {
        assert_eq!(topology.internet[&topology.node(find(host)).address], office, "{host}");
    }
    let inside = &topology.node(office).router.as_ref().expect("a router").inside;
    assert_eq!(inside[&topology.node(find("b")).address], floor);
    assert_eq!(inside[&topology.node(find("a")).address], find("a"));
}

#[test]
fn regions_of_the_scenarios_own_need_their_delays() {
    let text = |latency: &str| {
        format!("title = \"t\"\n{latency}\n[host.a]\nregion = \"moon\"\n[host.b]\nregion = \"london\"")
    };
    let topology =
        Topology::new(&parse(&text("[internet.latency]\nlondon.moon = \"1280ms\""))).expect("a topology");
    assert_eq!(topology.one_way(0, 1), Duration::from_millis(1280));
    assert!(refusal(&text("")).contains("there is no region `moon`"));
    assert!(
        refusal(&text("[internet.latency]\nmoon.mars = \"9s\"")).contains("between `moon` and `eu-west`")
    );
}

#[test]
fn a_mistake_is_shown_where_it_stands_with_its_fix() {
    let text = TWO_HOMES
        .replace("udp-timeout", "udp-timout")
        .replace("\"40s\"", "40")
        .replace("from = \"takkie\"", "from = \"taky\"");
    insta::assert_snapshot!(refusal(&text));
}

#[test]
fn every_problem_has_its_line() {
    let text = TWO_HOMES.replace("udp-timeout", "udp-timout").replace("\"40s\"", "40");
    let error = scenario::parse("test", "test.toml", &text).expect_err("this is wrong");
    let places: Vec<(usize, usize)> =
        error.problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(places, [(4, 9), (13, 103)]);
}

#[test]
fn mistakes_are_refused() {
    let cases: &[(&str, &str, &str)] = &[
        ("title = \"Two homes\"", "", "has no title"),
        ("region = \"eu-west\"", "", "attached to nothing"),
        (
            "region = \"eu-west\"\nnat = \"port-restricted-cone\"",
            "nat = { ports = \"odd\" }",
            "is not a port allocation",
        ),
        (
            "region = \"eu-west\"",
            "region = \"eu-west\"\nbehind = \"home-b\"",
            "in a region and behind a router",
        ),
        ("region = \"eu-west\"", "behind = \"home-a\"", "leads back to it"),
        ("region = \"eu-west\"", "region = \"eu-wets\"", "did you mean `eu-west`?"),
        ("behind = \"home-a\"", "behind = \"home-c\"", "there is no router `home-c`"),
        ("behind = \"home-a\"", "behind = \"flappie\"", "`flappie` is a host, not a router"),
        ("[host.flappie]", "[host.home-a]", "already the name of a router"),
        ("[host.flappie]", "[host.\"flap pie\"]", "is no name"),
        ("address = \"192.168.1.2\"", "address = \"192.168.2.2\"", "not a host's address in 192.168.1.0/24"),
        (
            "address = \"192.168.1.2\"",
            "address = \"192.168.1.255\"",
            "not a host's address in 192.168.1.0/24",
        ),
        ("address = \"192.168.1.2\"", "address = \"192.168.1.2\"\ncount = 2", "several hosts cannot share"),
        ("nat = \"port-restricted-cone\"", "nat = \"port-restricted\"", "is no NAT preset"),
        ("nat = \"port-restricted-cone\"", "nat = \"symetric\"", "did you mean `symmetric`?"),
        ("link = \"cable\"", "link = \"cabel\"", "did you mean `cable`?"),
        ("link = \"cable\"", "lan = \"192.168.1.1/24\"", "the network is \"192.168.1.0/24\""),
        ("kind = \"voice\"", "kind = \"video\"", "is not a kind of traffic"),
        ("kind = \"voice\"", "", "missing key `kind`"),
        ("kind = \"voice\"", "kind = \"voice\"\nsize = \"9kB\"", "cannot carry 9kB"),
        ("kind = \"voice\"", "kind = \"voice\"\nbytes = \"9kB\"", "voice has no amount"),
        ("at = \"1s\"", "at = \"1min\"", "the run is over before it starts"),
        ("time = \"15s\"", "time = \"50s\"", "the run is over by then"),
        ("time = \"15s\"", "time = \"15s\"\ndown = \"home-a\"", "one thing that happens"),
        ("path = \"direct\"", "path = \"relayed\"", "did you mean `relay`?"),
        ("path = \"direct\"", "rtt-at-most = \"1s\"", "rtt-at-most needs ping traffic"),
        ("path = \"direct\"", "completes = true", "completes needs bulk traffic"),
        ("pair = [\"takkie\", \"flappie\"]", "pair = [\"takkie\"]", "a pair is two hosts"),
        ("[[expect]]", "[expect]", "write [[expect]] with two brackets"),
        ("[[expect]]", "[[expct]]", "did you mean `expect`?"),
        ("[router.home-a]", "[router]", "give the router a name"),
        ("off = \"5s\"", "off = \"5s\", on = true", "unknown key `on`"),
        ("until = \"40s\"", "until = \"4000h\"", "at most a day"),
        ("why = \"everyday life\"", "why = \"everyday life", "test.toml:3"),
    ];
    for (from, to, expected) in cases {
        assert!(TWO_HOMES.contains(from), "{from}");
        let refusal = refusal(&TWO_HOMES.replacen(from, to, 1));
        assert!(refusal.contains(expected), "`{to}` in place of `{from}` gives:\n{refusal}");
    }
}

#[test]
fn sizes_are_limited() {
    assert!(refusal(&" ".repeat(scenario::MAX_FILE_BYTES + 1)).contains("too long"));
    let many = format!(
        "title = \"t\"\n[router.r]\nregion = \"tokyo\"\n[host.h]\ncount = {}\nbehind = \"r\"",
        u32::MAX
    );
    assert!(refusal(&many).contains("write 1 to 2000"));
    let full = "title = \"t\"\n[router.r]\nregion = \"tokyo\"\nlan = \"10.0.0.0/30\"\n[host.h]\ncount = 2\nbehind = \"r\"";
    assert!(refusal(full).contains("no address is left for h-2 in r"));
}

#[test]
fn expanded_reads_back_to_the_same() {
    let scenario = parse(TWO_HOMES);
    same(parse(&scenario::expanded(&scenario)), &scenario);
}

#[test]
fn the_schema_names_every_section() {
    let schema: serde_json::Value = serde_json::from_str(&scenario::schema()).expect("JSON");
    let sections = schema["properties"].as_object().expect("properties");
    let names: Vec<&str> = sections.keys().map(String::as_str).collect();
    assert!(!scenario::schema().contains("\"null\""), "a key of TOML cannot be null");
    let mut expected = scenario::SECTIONS;
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
fn the_tree_shows_who_is_behind_whom() {
    let topology = Topology::new(&parse(TWO_HOMES)).expect("a topology");
    insta::assert_snapshot!(topology.print());
}

#[test]
fn what_ships_is_sound_and_says_why() {
    let shipped = shipped();
    assert!(shipped.len() >= 25, "{} scenarios", shipped.len());
    for (path, text) in &shipped {
        let folder = path.parent().expect("a folder");
        let beside = |name: &str| std::fs::read_to_string(folder.join(name)).map_err(|e| e.to_string());
        let path = path.display().to_string();
        let scenario =
            scenario::parse_with(&path, &path, text, &beside).unwrap_or_else(|error| panic!("{error}"));
        assert!(!scenario.why.is_empty(), "{path} does not say why");
        assert!(!scenario.expect.is_empty(), "{path} expects nothing");
        Topology::new(&scenario).unwrap_or_else(|error| panic!("{path}: {error}"));
        let again = scenario::expanded(&scenario);
        let again = scenario::parse_with(&path, &path, &again, &beside)
            .unwrap_or_else(|error| panic!("{again}\n{error}"));
        same(again, &scenario);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_text_gives_a_scenario_or_an_error(text in "\\PC{0,200}|[a-z.\\[\\]=\"{} \n0-9]{0,200}") {
        if let Err(error) = scenario::parse("test", "test.toml", &text) {
            prop_assert!(!error.problems.is_empty());
            let _ = error.render(true);
        }
    }

    #[test]
    fn a_damaged_file_gives_a_scenario_or_an_error(
        at in 0..TWO_HOMES.len(), length in 0_usize..40, with in "[a-z0-9\"\\[\\]{}=.,% \n\u{1F430}-]{0,12}",
    ) {
        let end = (at + length).min(TWO_HOMES.len());
        let text = format!("{}{with}{}", &TWO_HOMES[..at], &TWO_HOMES[end..]);
        match scenario::parse("test", "test.toml", &text) {
            Ok(scenario) => same(parse(&scenario::expanded(&scenario)), &scenario),
            Err(error) => prop_assert!(error.to_string().contains("test.toml")),
        }
    }

    #[test]
    fn lines_in_any_place_give_a_scenario_or_an_error(moves in proptest::collection::vec((0_usize..50, 0_usize..50), 1..4)) {
        let mut lines: Vec<&str> = TWO_HOMES.lines().collect();
        for (from, to) in moves {
            let line = lines.remove(from % lines.len());
            lines.insert(to % lines.len(), line);
        }
        match scenario::parse("test", "test.toml", &lines.join("\n")) {
            Ok(scenario) => same(parse(&scenario::expanded(&scenario)), &scenario),
            Err(error) => prop_assert!(!error.problems.is_empty()),
        }
    }
}

#[test]
fn a_rule_of_linux_and_the_axes_are_two_descriptions() {
    let file = |nat: &str| {
        format!(
            "title = \"t\"\nuntil = \"1s\"\n[router.home]\nregion = \"eu-west\"\nnat = {nat}\n[host.a]\nbehind = \"home\"\n[host.b]\nbehind = \"home\"\n"
        )
    };
    let nat = |text: &str| parse(&file(text)).routers["home"].nat.clone().expect("a NAT");
    let rule = nat("{ rule = \"snat\", port-range = \"50000-50099\", input = \"reject\", random = true }");
    let rule = rule.linux().expect("a rule").clone();
    assert_eq!((rule.rule, rule.input, rule.random), (nat::LinuxRule::Snat, nat::InputPolicy::Reject, true));
    let poisoned = nat("{ preset = \"linux\", input = \"accept\" }");
    assert_eq!(poisoned.linux().expect("a rule").input, nat::InputPolicy::Accept);
    let one_to_one =
        "{ rule = \"static\", hosts = [\"192.168.1.2\"], forward = \"accept\", map-timeout = \"7s\" }";
    for text in [one_to_one, "{ rule = \"snat\", port-range = \"50000-50099\", persistent = true }"] {
        let scenario = parse(&file(text));
        same(parse(&scenario::expanded(&scenario)), &scenario);
    }
    for (mixed, key) in [
        ("{ preset = \"linux\", mapping = \"endpoint-independent\" }", "`mapping` follows from the rule"),
        (
            "{ rule = \"masquerade\", filtering = \"endpoint-independent\" }",
            "`filtering` follows from the rule",
        ),
        ("{ preset = \"full-cone\", input = \"drop\" }", "`input` belongs to a rule of the Linux kernel"),
        ("{ preset = \"full-cone\", rule = \"snat\" }", "`rule` belongs to a rule of the Linux kernel"),
    ] {
        let error = refusal(&file(mixed));
        assert!(error.contains(key), "{mixed}: {error}");
    }
}
