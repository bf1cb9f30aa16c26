//! Rules that come and go while a firewall runs.

use std::fmt;
use std::net::IpAddr;

use super::FirewallConfig;
use super::config::list;
use super::rule::{self, Rule};

/// Rules that are added to a firewall's lists, or taken from them, as `nft add rule` and `nft delete rule` do: what it
/// remembers stays, so that a conversation that it let out goes on, whatever becomes of the rule that let it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleChange {
    /// Whether they are taken away rather than added.
    pub remove: bool,
    /// About what may go out. Where everything may, there is nothing to add to.
    pub outbound: Vec<Rule>,
    /// About what passes neither out nor in.
    pub block: Vec<Rule>,
}

impl RuleChange {
    /// Whether it is about no rule.
    pub fn is_empty(&self) -> bool {
        self.outbound.is_empty() && self.block.is_empty()
    }

    /// Replaces the names in its rules by the addresses that `addresses` knows for them.
    pub fn resolve(&mut self, addresses: impl Fn(&str) -> Vec<IpAddr>) {
        self.outbound = rule::resolve(&self.outbound, &addresses);
        self.block = rule::resolve(&self.block, &addresses);
    }

    /// Changes the lists of a firewall. A rule that is there already is not added again.
    pub fn apply(&self, config: &mut FirewallConfig) {
        if !self.block.is_empty() {
            self.change(config.block.to_mut(), &self.block);
        }
        if let Some(outbound) = &mut config.outbound
            && !self.outbound.is_empty()
        {
            self.change(outbound.to_mut(), &self.outbound);
        }
    }

    fn change(&self, list: &mut Vec<Rule>, rules: &[Rule]) {
        if self.remove {
            list.retain(|rule| !rules.contains(rule));
        } else {
            for rule in rules {
                if !list.contains(rule) {
                    list.push(rule.clone());
                }
            }
        }
    }
}

impl fmt::Display for RuleChange {
    /// "blocks also udp from laptop", "lets out no more tcp 443".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.remove { "no more" } else { "also" };
        if !self.block.is_empty() {
            write!(f, "blocks {more} ")?;
            list(f, &self.block)?;
        }
        if !self.outbound.is_empty() {
            let comma = if self.block.is_empty() { "" } else { ", " };
            write!(f, "{comma}lets out {more} ")?;
            list(f, &self.outbound)?;
        }
        Ok(())
    }
}
