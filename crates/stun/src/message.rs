//! STUN messages and their attributes (RFC 8489 §5, §14; RFC 5780 §7).

use std::fmt;
use std::net::SocketAddr;

/// The fixed third word of every message (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;
/// Bytes in front of the attributes (RFC 8489 §5).
pub const HEADER_LEN: usize = 20;
/// The longest SOFTWARE or reason phrase, in bytes (RFC 8489 §14.8 and §14.14: under 128 characters, at most 763 bytes).
pub const MAX_TEXT: usize = 763;

/// The 96-bit transaction identifier, chosen at random by the client (RFC 8489 §5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a message is in its transaction (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Asks for an answer.
    Request,
    /// Wants none.
    Indication,
    /// A success response.
    Success,
    /// An error response, with an ERROR-CODE.
    Error,
}

/// The 12-bit method. Only Binding is acted upon here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method(pub u16);

impl Method {
    /// Binding (RFC 8489 §3).
    pub const BINDING: Method = Method(0x001);
}

/// One attribute. Order and repetition are kept; of a repeated attribute only the first counts (RFC 8489 §14).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attribute {
    /// 0x0001: the address the server saw, in plain (RFC 8489 §14.1).
    MappedAddress(SocketAddr),
    /// 0x0009: why a request was refused, 300..=699 (RFC 8489 §14.8).
    ErrorCode {
        /// Hundreds are the class (3..=6), the rest the number (0..=99).
        code: u16,
        /// For people.
        reason: String,
    },
    /// 0x000A: the comprehension-required types that the server did not know (RFC 8489 §14.13).
    UnknownAttributes(Vec<u16>),
    /// 0x0020: the address the server saw, hidden from NATs that rewrite payloads (RFC 8489 §14.2).
    /// The experimental number 0x8020 is read as this too.
    XorMappedAddress(SocketAddr),
    /// 0x8022: who wrote the message (RFC 8489 §14.14).
    Software(String),
    /// 0x0003: answer from another address, another port, or both (RFC 5780 §7.2).
    ChangeRequest {
        /// From the other IP address.
        ip: bool,
        /// From the other port.
        port: bool,
    },
    /// 0x0026: that many zero bytes, to provoke fragmentation (RFC 5780 §7.6).
    Padding(u16),
    /// 0x0027: answer to this port of the sender's address (RFC 5780 §7.5).
    ResponsePort(u16),
    /// 0x802B: where the answer was sent from (RFC 5780 §7.3).
    ResponseOrigin(SocketAddr),
    /// 0x802C: the server's other address and port (RFC 5780 §7.4).
    OtherAddress(SocketAddr),
    /// Any other type, raw. Types below 0x8000 are comprehension-required (RFC 8489 §14).
    Unknown {
        /// The attribute's type.
        kind: u16,
        /// Its value, without padding.
        value: Vec<u8>,
    },
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Request, indication, success or error.
    pub class: Class,
    /// The method.
    pub method: Method,
    /// Ties an answer to its request.
    pub id: TransactionId,
    /// In wire order, without FINGERPRINT.
    pub attributes: Vec<Attribute>,
    /// Whether a FINGERPRINT (RFC 8489 §14.7) closes the message. A decoded one was verified.
    pub fingerprint: bool,
}

/// Why bytes are not a STUN message that this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer than 20 bytes.
    #[error("shorter than a STUN header")]
    TooShort,
    /// The two most significant bits are not zero, or the magic cookie is missing.
    #[error("not a STUN message")]
    NotStun,
    /// The length field does not equal the bytes after the header, or is no multiple of four.
    #[error("length field {0} does not fit the datagram")]
    Length(u16),
    /// An attribute reaches beyond the end of the message.
    #[error("attribute {0:#06x} is cut off")]
    Truncated(u16),
    /// An attribute's value has the wrong length or content for its type.
    #[error("attribute {0:#06x} is malformed")]
    Malformed(u16),
    /// FINGERPRINT is not the last attribute, or its CRC does not match.
    #[error("wrong fingerprint")]
    Fingerprint,
}

impl Message {
    /// A Binding request, without attributes or fingerprint.
    pub fn binding_request(id: TransactionId) -> Message {
        Message {
            class: Class::Request,
            method: Method::BINDING,
            id,
            attributes: Vec::new(),
            fingerprint: false,
        }
    }

    /// The address the server saw: XOR-MAPPED-ADDRESS, else MAPPED-ADDRESS.
    pub fn mapped(&self) -> Option<SocketAddr> {
        self.find(|a| match a {
            Attribute::XorMappedAddress(address) => Some(*address),
            _ => None,
        })
        .or_else(|| {
            self.find(|a| match a {
                Attribute::MappedAddress(address) => Some(*address),
                _ => None,
            })
        })
    }

    /// The server's other address and port.
    pub fn other_address(&self) -> Option<SocketAddr> {
        self.find(|a| match a {
            Attribute::OtherAddress(address) => Some(*address),
            _ => None,
        })
    }

    /// The ERROR-CODE.
    pub fn error_code(&self) -> Option<u16> {
        self.find(|a| match a {
            Attribute::ErrorCode { code, .. } => Some(*code),
            _ => None,
        })
    }

    /// Types of the attributes that must be understood (below 0x8000) and are not, each once, in wire order.
    pub fn unknown_required(&self) -> Vec<u16> {
        let mut kinds = Vec::new();
        for attribute in &self.attributes {
            if let Attribute::Unknown { kind, .. } = attribute
                && *kind < 0x8000
                && !kinds.contains(kind)
            {
                kinds.push(*kind);
            }
        }
        kinds
    }

    pub(crate) fn find<T>(&self, pick: impl Fn(&Attribute) -> Option<T>) -> Option<T> {
        self.attributes.iter().find_map(pick)
    }
}

/// Whether `bytes` carry a STUN header: enough to tell STUN from other protocols on one socket (RFC 8489 §6.3).
pub fn is_stun(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_LEN
        && bytes[0] & 0xC0 == 0
        && bytes[3] & 3 == 0
        && bytes[4..8] == MAGIC_COOKIE.to_be_bytes()
}
