//! The two kinds of device by which a box is reached.
#![cfg(target_os = "linux")]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Pkt, able, ep, masquerade, start};
use kernel_nat::{Ends, KernelNat};
use nat::{Foreign as _, Middlebox as _, Proto, Side, Verdict};

fn udp(src: &str, dst: &str) -> Pkt {
    Pkt { proto: Proto::Udp, src: ep(src), dst: ep(dst), flags: None, quoted: None }
}

/// What leaves the box on the other side.
fn pass(nat: &mut KernelNat, side: Side, mut packet: Pkt, now: Instant) -> Option<Pkt> {
    let verdict = nat.packet(side, &mut packet, now);
    assert!(nat.failure().is_none(), "{:?}", nat.failure());
    matches!(verdict, Verdict::Forward(to) if to != side).then_some(packet)
}

#[test]
fn packets_pass_both_ways_and_after_a_change_of_the_external_address() {
    const NAME: &str = "packets_pass_both_ways_and_after_a_change_of_the_external_address";
    for ends in [Ends::Tun, Ends::Veth] {
        if !able(NAME, ends) {
            continue;
        }
        let mut nat = masquerade(ends).expect("a box");
        assert_eq!(nat.ends(), ends);
        let mut now = start();
        let new = vec![[198, 51, 100, 9].into()];
        // From none to one is as good as from one to another.
        for (set, external) in [
            (None, "198.51.100.1:4000"),
            (Some(new.clone()), "198.51.100.9:4000"),
            (Some(new), "198.51.100.9:4000"),
        ] {
            if let Some(set) = set {
                nat.set_external(Vec::new(), now);
                nat.set_external(set, now);
            }
            now += Duration::from_secs(1000);
            let out = udp("192.168.1.2:4000", "203.0.113.1:1000");
            let sent = pass(&mut nat, Side::Inside, out, now);
            assert_eq!(sent, Some(udp(external, "203.0.113.1:1000")), "{ends:?}");
            let back = pass(&mut nat, Side::Outside, udp("203.0.113.1:1000", external), now);
            assert_eq!(back, Some(udp("203.0.113.1:1000", "192.168.1.2:4000")), "{ends:?}");
            let stranger = pass(&mut nat, Side::Outside, udp("203.0.113.1:1001", external), now);
            assert_eq!(stranger, None, "{ends:?}");
        }
        assert_eq!(nat.disagreements(), (0, None), "{ends:?}");
    }
}

#[test]
fn where_there_is_no_tun_there_is_veth() {
    const NAME: &str = "where_there_is_no_tun_there_is_veth";
    const HIDDEN: &str = "KERNEL_NAT_TEST_WITHOUT_TUN";
    if std::env::var_os(HIDDEN).is_some() {
        let veth = || assert_eq!(masquerade(Ends::Auto).expect("a box").ends(), Ends::Veth);
        veth();
        // The library for TUN makes the device file where it may; on this file system no device file can be opened.
        let error = masquerade(Ends::Tun).expect_err("no TUN");
        assert!(error.is_lack(), "{error:?}");
        veth();
        return;
    }
    if !able(NAME, Ends::Veth) {
        return;
    }
    // Again, where an empty directory hides the device file of TUN.
    let status = Command::new("unshare")
        .args([
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs -o nodev none /dev/net && exec \"$0\" --exact \"$1\" --nocapture",
        ])
        .arg(std::env::current_exe().expect("this test"))
        .arg(NAME)
        .env(HIDDEN, "1")
        .status();
    assert!(status.expect("unshare").success());
}
