//! Random packets to the model and to the kernel: they must do the same with each.
#![cfg(target_os = "linux")]

mod common;

use common::{Pair, able, cases};
use kernel_nat::Ends;
use nat::Fault;

#[test]
fn model_and_kernel_judge_every_packet_alike() {
    if able("model_and_kernel_judge_every_packet_alike", Ends::Auto) {
        judge(100_000, Ends::Auto);
    }
}

#[test]
fn so_they_do_over_veth() {
    if able("so_they_do_over_veth", Ends::Veth) {
        judge(10_000, Ends::Veth);
    }
}

/// Plays so many packets, over all kinds of rules.
fn judge(packets: u32, ends: Ends) {
    let cases = cases();
    let each = packets.div_ceil(cases.len() as u32);
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        if let Err(difference) = Pair::new(case, number as u64, None, ends).play(each) {
            wrong.push(format!("{}: {difference}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} kinds differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn a_wrong_model_is_found_out() {
    if !able("a_wrong_model_is_found_out", Ends::Auto) {
        return;
    }
    let faults = [
        (Fault::ForgetsNewest, "masquerade, input accept"),
        (Fault::OverlooksOwn, "masquerade, input accept"),
        (Fault::NeverShares, "masquerade, input drop"),
        (Fault::KeepsDropped, "snat, input drop"),
        (Fault::DropsAccepted, "snat, input accept"),
        (Fault::OneClass, "masquerade, input drop"),
        (Fault::AnyError, "snat, input drop"),
        (Fault::BareQuote, "snat, input drop"),
        (Fault::AlwaysPaired, "snat to a pool, input drop"),
        (Fault::MapOverwrites, "full-cone, input drop"),
        (Fault::AnySyn, "masquerade, input drop"),
        (Fault::Lingers, "masquerade, input drop"),
    ];
    let cases = cases();
    let mut unnoticed = Vec::new();
    for (fault, name) in faults {
        let case = cases.iter().find(|case| case.name == name).expect(name);
        let found =
            (0..4).any(|seed| Pair::new(case, 1000 + seed, Some(fault), Ends::Auto).play(1500).is_err());
        if !found {
            unnoticed.push(fault);
        }
    }
    assert!(unnoticed.is_empty(), "nobody noticed {unnoticed:?}");
}
