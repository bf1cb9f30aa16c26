//! UPnP Internet Gateway Device: discovery (SSDP), description, and control (SOAP over HTTP).
//!
//! The formats are those of the UPnP Device Architecture 1.1 (sections 1, 2 and 3 below), and of the services
//! WANIPConnection:1 and :2 and WANIPv6FirewallControl:1 of the UPnP Forum's InternetGatewayDevice v1 and v2.

pub mod description;
pub mod http;
pub mod soap;
pub mod ssdp;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// Where SSDP is spoken (§1.1.1).
pub const SSDP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);

/// Version of the InternetGatewayDevice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IgdVersion {
    /// Of 2001: permanent leases, AddPortMapping.
    V1,
    /// Of 2010: leases of a week at most, AddAnyPortMapping, pinholes.
    V2,
}

impl IgdVersion {
    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            IgdVersion::V1 => 1,
            IgdVersion::V2 => 2,
        }
    }

    /// Type of the root device.
    pub fn device(self) -> String {
        format!("urn:schemas-upnp-org:device:InternetGatewayDevice:{}", self.number())
    }

    /// Type of the service that maps ports.
    pub fn connection(self) -> String {
        format!("{WAN_IP}{}", self.number())
    }
}

/// Type of the service that maps ports, without its version.
pub const WAN_IP: &str = "urn:schemas-upnp-org:service:WANIPConnection:";
/// The same behind PPP; it has the same actions.
pub const WAN_PPP: &str = "urn:schemas-upnp-org:service:WANPPPConnection:";
/// Type of the service that opens IPv6 pinholes.
pub const FIREWALL: &str = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1";

/// Reads the address, port and path of `http://192.0.2.1:5000/rootDesc.xml`. Names instead of an address are refused, as
/// there is nobody to resolve them, and other schemes as nobody here speaks them.
pub fn url(text: &str) -> Option<(SocketAddr, &str)> {
    let scheme = text.get(..7)?;
    if !scheme.eq_ignore_ascii_case("http://") {
        return None;
    }
    let rest = &text[7..];
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let address = authority
        .parse()
        .ok()
        .or_else(|| Some(SocketAddr::new(authority.trim_matches(['[', ']']).parse().ok()?, 80)))?;
    let clean = path.bytes().all(|byte| byte.is_ascii_graphic());
    clean.then_some((address, if path.is_empty() { "/" } else { path }))
}

/// Text for the inside of an XML element or attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // XML 1.0 has no other control characters, not even escaped.
            c if c.is_control() && !matches!(c, '\t' | '\n' | '\r') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Elements in a document at most: the description of a gateway with every optional service has some two hundred.
const MAX_NODES: u32 = 4096;

/// Reads a document: no DTD, so that entities cannot grow it.
pub(crate) fn xml(text: &str) -> Option<roxmltree::Document<'_>> {
    let options =
        roxmltree::ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..Default::default() };
    roxmltree::Document::parse_with_options(text, options).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_addresses_with_a_path() {
        let url = |text| url(text).map(|(address, path)| format!("{address} {path}"));
        assert_eq!(
            url("http://192.168.1.1:5000/rootDesc.xml").as_deref(),
            Some("192.168.1.1:5000 /rootDesc.xml")
        );
        assert_eq!(url("HTTP://192.168.1.1").as_deref(), Some("192.168.1.1:80 /"));
        assert_eq!(url("http://[fe80::1]:49152/a/b").as_deref(), Some("[fe80::1]:49152 /a/b"));
        for bad in [
            "https://192.168.1.1/",
            "http://router.local/",
            "http://1.2.3.4:99999/",
            "http://1.2.3.4/a b",
            "",
        ] {
            assert_eq!(url(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_document_that_is_too_deep_or_grows_by_entities_is_refused() {
        let nested = |depth| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(xml(&nested(1000)).is_some());
        assert!(xml(&nested(9000)).is_none());
        assert!(xml("<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>").is_none());
    }
}
