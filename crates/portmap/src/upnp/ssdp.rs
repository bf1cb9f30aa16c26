//! SSDP (UPnP Device Architecture 1.1, §1): HTTP heads in datagrams.

use super::http::{Request, Response};

/// Longest datagram that is looked at, in bytes.
pub const MAX_LEN: usize = 2048;
/// What a server says of itself (§1.2.2, "SERVER").
pub const SERVER: &str = "punchbag UPnP/1.1 portmap/0.1";

/// A search (§1.3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// What is searched: "ssdp:all", "upnp:rootdevice", or a device or service type.
    pub target: String,
    /// Seconds within which answers should spread.
    pub mx: u8,
}

/// An answer to a search (§1.3.3), or an announcement (§1.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the description is.
    pub location: String,
    /// What was found.
    pub target: String,
    /// Identity of the device.
    pub usn: String,
    /// Counts the starts of the device (§1.2.2, BOOTID.UPNP.ORG).
    pub boot: u32,
}

impl Search {
    /// Its bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let Search { target, mx } = self;
        format!(
            "M-SEARCH * HTTP/1.1\r\nHOST: {}\r\nMAN: \"ssdp:discover\"\r\nMX: {mx}\r\nST: {target}\r\n\r\n",
            super::SSDP
        )
        .into_bytes()
    }

    /// Reads a search; anything else is `None`.
    pub fn decode(data: &[u8]) -> Option<Search> {
        let (request, _) = Request::read(data.get(..data.len().min(MAX_LEN))?).ok()??;
        let discover = request.fields.get("man")?.trim_matches('"').eq_ignore_ascii_case("ssdp:discover");
        if request.method != "M-SEARCH" || !discover {
            return None;
        }
        let mx = request.fields.get("mx").and_then(|mx| mx.parse().ok()).unwrap_or(1);
        Some(Search { target: request.fields.get("st")?.to_owned(), mx })
    }

    /// Whether something of this type answers. Later versions of a type do for earlier ones (§1.3.2).
    pub fn wants(&self, kind: &str) -> bool {
        if self.target == "ssdp:all" || self.target == kind {
            return true;
        }
        let version = |text: &str| {
            let (name, version) = text.rsplit_once(':')?;
            Some((name.to_owned(), version.parse::<u8>().ok()?))
        };
        match (version(&self.target), version(kind)) {
            (Some((wanted, least)), Some((name, has))) => wanted == name && least <= has,
            _ => false,
        }
    }
}

/// How long a description holds, in seconds: the least that §1.2.2 recommends.
const MAX_AGE: u32 = 1800;

impl Found {
    /// The bytes of an answer.
    pub fn to_vec(&self) -> Vec<u8> {
        let Found { location, target, usn, boot } = self;
        format!(
            "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age={MAX_AGE}\r\nEXT:\r\nLOCATION: {location}\r\n\
             SERVER: {SERVER}\r\nST: {target}\r\nUSN: {usn}\r\nBOOTID.UPNP.ORG: {boot}\r\n\r\n"
        )
        .into_bytes()
    }

    /// The bytes of the announcement that the device is there.
    pub fn to_notify(&self) -> Vec<u8> {
        let Found { location, target, usn, boot } = self;
        format!(
            "NOTIFY * HTTP/1.1\r\nHOST: {}\r\nCACHE-CONTROL: max-age={MAX_AGE}\r\nLOCATION: {location}\r\n\
             NT: {target}\r\nNTS: ssdp:alive\r\nSERVER: {SERVER}\r\nUSN: {usn}\r\nBOOTID.UPNP.ORG: {boot}\r\n\r\n",
            super::SSDP
        )
        .into_bytes()
    }

    /// Reads an answer; anything else is `None`.
    pub fn decode(data: &[u8]) -> Option<Found> {
        let data = data.get(..data.len().min(MAX_LEN))?;
        let response = Response::read(data, true).ok()??;
        let field = |name| response.fields.get(name).map(str::to_owned);
        if response.status != 200 {
            return None;
        }
        let boot = field("bootid.upnp.org").and_then(|boot| boot.parse().ok()).unwrap_or_default();
        Some(Found { location: field("location")?, target: field("st")?, usn: field("usn")?, boot })
    }

    /// Reads the announcement of a device that is there; anything else is `None`.
    pub fn decode_notify(data: &[u8]) -> Option<Found> {
        let (request, _) = Request::read(data.get(..data.len().min(MAX_LEN))?).ok()??;
        let field = |name| request.fields.get(name).map(str::to_owned);
        if request.method != "NOTIFY" || request.fields.get("nts") != Some("ssdp:alive") {
            return None;
        }
        let boot = field("bootid.upnp.org").and_then(|boot| boot.parse().ok()).unwrap_or_default();
        Some(Found { location: field("location")?, target: field("nt")?, usn: field("usn")?, boot })
    }
}
