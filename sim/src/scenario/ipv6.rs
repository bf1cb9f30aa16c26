//! IPv6 in a scenario file: which routers pass it on, and how; who has addresses of which version.

use std::net::IpAddr;
use std::ops::Range;

use nat::v6::Nptv6Config;
use pref64::{Ipv6Prefix, Pref64};

use super::axes::take;
use super::error::Problems;
use super::filter::Named;
use super::model::{Attachment, Families, Filter6, Ipv6, Router, Way};
use super::units::Bad;
use super::value::{Either, Prefix, Sugar, Val, Value, Word, Words};
use super::{file, filter, prefix, regions};

/// What a file says a router does about IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WayWord {
    None,
    Routed,
    Npt,
    Nat64,
    Clat,
}

impl Words for WayWord {
    const WHAT: &'static str = "a way of IPv6";
    const EXAMPLE: &'static str = "\"routed\"";

    fn all() -> Vec<(&'static str, Self)> {
        use WayWord::{Clat, Nat64, None, Npt, Routed};
        vec![("none", None), ("routed", Routed), ("npt", Npt), ("nat64", Nat64), ("clat", Clat)]
    }
}

impl Words for Families {
    const WHAT: &'static str = "a choice of IP versions";
    const EXAMPLE: &'static str = "\"dual\"";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("ipv4", Families::V4), ("ipv6", Families::V6), ("dual", Families::Dual)]
    }
}

impl Value for Pref64 {
    const WHAT: &'static str = "a prefix for IPv4 addresses";
    const EXAMPLE: &'static str = "\"64:ff9b::/96\"";

    fn text(text: &str) -> Result<Self, Bad> {
        text.parse().map_err(|bad: pref64::BadPrefix| Bad::new(bad.to_string(), "write \"64:ff9b::/96\""))
    }
}

/// The keys of a router that are about IPv6, read.
pub(super) struct Wanted {
    way: WayWord,
    lan: Option<Val<Prefix>>,
    address: Option<IpAddr>,
    prefix: Option<Pref64>,
    firewall: Option<Filter6>,
    span: Range<usize>,
}

impl Wanted {
    /// Takes a router's keys; `None` if it has no IPv6. Gives the translation its default, where that is not the usual one.
    pub(super) fn read(
        spec: &mut file::Router,
        at: &Range<usize>,
        named: &mut Named,
        problems: &mut Problems<'_>,
    ) -> Option<Wanted> {
        let span = spec.ipv6.as_ref().map_or(at.clone(), |way| way.span.clone());
        let way = take(spec.ipv6.take(), problems).map_or(WayWord::None, |Word(way)| way);
        if way != WayWord::Nat64
            && let Some(prefix) = &spec.nat64_prefix
        {
            problems.add(prefix.span.clone(), "only a NAT64 has such a prefix", "write ipv6 = \"nat64\"");
        }
        if way == WayWord::None {
            let keys = [
                spec.lan6.as_ref().map(|lan| &lan.span),
                spec.address6.as_ref().map(|address| &address.span),
                spec.firewall6.as_ref().map(|firewall| &firewall.span),
            ];
            if let Some(key) = keys.into_iter().flatten().next() {
                problems.add(key.clone(), "the router has no IPv6", "write ipv6 = \"routed\" beside it");
            }
            return None;
        }
        // A NAT64 is a carrier's; what makes a packet of IPv4 into one of IPv6 keeps no bindings.
        let usual = match way {
            WayWord::Nat64 => Some("cgn"),
            WayWord::Clat => Some("none"),
            _ => None,
        };
        if let (None, Some(usual)) = (&spec.nat, usual) {
            spec.nat = Some(Sugar { span: span.clone(), value: Either::Word(usual.to_owned()) });
        }
        if way == WayWord::Nat64
            && let Some(lan) = &spec.lan
        {
            problems.add(lan.span.clone(), "a NAT64 has IPv6 alone inside", "write lan6 = \"…\"");
        }
        let firewall = spec.firewall6.take().map(|firewall| {
            let (rules, name) = filter::firewall(Some(firewall), named, problems);
            Filter6 { rules, name }
        });
        Some(Wanted {
            way,
            lan: spec.lan6.take(),
            address: take(spec.address6.take(), problems),
            prefix: take(spec.nat64_prefix.take(), problems),
            firewall,
            span,
        })
    }

    /// What becomes of it, once the router above is known. `n` counts the routers with IPv6, from 1.
    pub(super) fn settle(
        self,
        router: &Router,
        outer: Option<&Router>,
        n: usize,
        problems: &mut Problems<'_>,
    ) -> Option<Ipv6> {
        let mut wrong = |message: &str, help: &str| {
            problems.add(self.span.clone(), message, help);
            None
        };
        let above = outer.map(|outer| outer.ipv6.as_ref().map(|v6| &v6.way));
        let provider = match above {
            Some(None) => {
                return wrong(
                    "the router that it is behind has no IPv6 inside",
                    "give that one ipv6 = \"routed\"",
                );
            }
            Some(Some(Way::Nat64 { prefix })) => Some(*prefix),
            _ => None,
        };
        if (self.way == WayWord::Clat) != provider.is_some() {
            return wrong(
                "the customer's half of 464XLAT, and nothing else, stands behind a NAT64",
                "write ipv6 = \"clat\" behind a router with ipv6 = \"nat64\", and only there",
            );
        }
        if self.way == WayWord::Clat && router.nat.is_some() {
            return wrong("it translates without bindings: it has no axes", "leave `nat` away");
        }
        if self.way == WayWord::Nat64 && axes(router).is_none() {
            return wrong(
                "a NAT64 is described by the axes of RFC 4787",
                "write for example nat = \"cgn\", or leave it away",
            );
        }
        let span = self.lan.as_ref().map_or(self.span.clone(), |lan| lan.span.clone());
        let delegated = regions::delegated(n);
        let own = if self.way == WayWord::Npt { regions::unique_local(n) } else { delegated };
        let lan = take(self.lan, problems).map_or(own, |lan| lan.0);
        let way = match self.way {
            WayWord::Clat => Way::Clat { provider: provider?, customer: customer(lan)? },
            WayWord::Nat64 => Way::Nat64 { prefix: self.prefix.unwrap_or(Pref64::WELL_KNOWN) },
            WayWord::Npt => Way::Npt(swap(lan, delegated)?),
            WayWord::Routed | WayWord::None => Way::Routed,
        };
        let fits = match way {
            Way::Npt(_) => (48..=64).contains(&lan.1),
            _ => lan.1 <= 64,
        };
        if lan.0.is_ipv4() || !fits {
            let help = "write for example lan6 = \"fd00:1::/64\"; to be swapped, a prefix has 48 to 64 bits";
            problems.add(span, format!("{}/{} is no network for IPv6 hosts", lan.0, lan.1), help);
            return None;
        }
        Some(Ipv6 { way, lan, address: self.address, firewall: self.firewall })
    }
}

/// The axes of a router's translation, if it has such.
pub(super) fn axes(router: &Router) -> Option<&nat::NatConfig> {
    router.nat.as_ref()?.axes()
}

/// The addresses behind a customer-side translator: a network beside that of the hosts that have IPv6 themselves.
fn customer((lan, _): (IpAddr, u8)) -> Option<Pref64> {
    let IpAddr::V6(lan) = lan else { return None };
    let [a, b, c, d, ..] = lan.segments();
    // "clat", as far as it can be written in hexadecimal.
    let subnet = if d == 0xc1a7 { 0xc1a8 } else { 0xc1a7 };
    Pref64::new(Ipv6Prefix::new([a, b, c, subnet, 0, 0, 0, 0].into(), 96).ok()?).ok()
}

/// The swap of an inside network with as much of what the provider delegates.
fn swap(lan: (IpAddr, u8), delegated: (IpAddr, u8)) -> Option<Nptv6Config> {
    let cut = |address: IpAddr| match prefix::network(address, lan.1)? {
        IpAddr::V6(v6) => Ipv6Prefix::new(v6, lan.1).ok(),
        IpAddr::V4(_) => None,
    };
    // One that does not fit is reported by the caller.
    let fallback = || {
        Nptv6Config::new(Ipv6Prefix::new([0; 8].into(), 0).ok()?, Ipv6Prefix::new([0; 8].into(), 0).ok()?)
            .ok()
    };
    let swap =
        cut(lan.0).zip(cut(delegated.0)).and_then(|(inside, outside)| Nptv6Config::new(inside, outside).ok());
    swap.or_else(fallback)
}

/// The IP versions of a host that names none: those of the network it is in.
pub(super) fn offered<'r>(
    attached: &Attachment,
    router: impl Fn(&str) -> Option<&'r Router>,
    internet: Families,
) -> Families {
    match attached {
        Attachment::Region(_) => internet,
        Attachment::Behind(name) => match router(name).and_then(|router| router.ipv6.as_ref()) {
            None => Families::V4,
            Some(Ipv6 { way: Way::Nat64 { .. }, .. }) => Families::V6,
            Some(_) => Families::Dual,
        },
    }
}
