//! Bytes to messages and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::message::{
    Attribute, Class, DecodeError, HEADER_LEN, MAGIC_COOKIE, MAX_TEXT, Message, Method, TransactionId,
};

// RFC 8489 §18.3 and RFC 5780 §9.1.
const MAPPED_ADDRESS: u16 = 0x0001;
const CHANGE_REQUEST: u16 = 0x0003;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PADDING: u16 = 0x0026;
const RESPONSE_PORT: u16 = 0x0027;
/// XOR-MAPPED-ADDRESS in servers older than RFC 5389.
const XOR_MAPPED_ADDRESS_EXPERIMENTAL: u16 = 0x8020;
const SOFTWARE: u16 = 0x8022;
const FINGERPRINT: u16 = 0x8028;
const RESPONSE_ORIGIN: u16 = 0x802B;
const OTHER_ADDRESS: u16 = 0x802C;

/// "STUN" in ASCII (RFC 8489 §14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554E;
const FINGERPRINT_LEN: usize = 8;
/// CHANGE-REQUEST flags A and B (RFC 5780 §7.2).
const CHANGE_IP: u32 = 4;
const CHANGE_PORT: u32 = 2;

impl Message {
    /// Reads one datagram.
    ///
    /// # Errors
    /// Anything but one well-formed message that fills the datagram exactly. Unknown attributes are no error.
    pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
        let Some((header, mut rest)) = bytes.split_at_checked(HEADER_LEN) else {
            return Err(DecodeError::TooShort);
        };
        let kind = u16_at(header, 0);
        if kind & 0xC000 != 0 || header[4..8] != MAGIC_COOKIE.to_be_bytes() {
            return Err(DecodeError::NotStun);
        }
        let length = u16_at(header, 2);
        if usize::from(length) != rest.len() || !length.is_multiple_of(4) {
            return Err(DecodeError::Length(length));
        }
        let mut id = TransactionId([0; 12]);
        id.0.copy_from_slice(&header[8..]);
        let mut message = Message {
            class: class_of(kind),
            method: method_of(kind),
            id,
            attributes: Vec::new(),
            fingerprint: false,
        };
        // The length is a multiple of four and so is every step, so a started attribute has its four-byte header.
        while rest.len() >= 4 {
            let (kind, length) = (u16_at(rest, 0), usize::from(u16_at(rest, 2)));
            let padded = length.next_multiple_of(4);
            if rest.len() < 4 + padded {
                return Err(DecodeError::Truncated(kind));
            }
            let value = &rest[4..4 + length];
            if kind == FINGERPRINT {
                let covered = &bytes[..bytes.len() - rest.len()];
                let expected = (crc32(covered) ^ FINGERPRINT_XOR).to_be_bytes();
                if rest.len() != FINGERPRINT_LEN || value != expected {
                    return Err(DecodeError::Fingerprint);
                }
                message.fingerprint = true;
            } else {
                message.attributes.push(decode_attribute(kind, value, id)?);
            }
            rest = &rest[4 + padded..];
        }
        Ok(message)
    }

    /// Appends the message to `out`. Texts are cut to [`MAX_TEXT`] bytes, an error code is forced into 300..=699, and
    /// attributes that would carry the message beyond the 16-bit length field are left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&type_of(self.class, self.method).to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        out.extend_from_slice(&self.id.0);
        for attribute in &self.attributes {
            let before = out.len();
            let (kind, length) = encode_attribute(attribute, self.id, out);
            let longest = HEADER_LEN + usize::from(u16::MAX) - FINGERPRINT_LEN;
            match u16::try_from(length) {
                Ok(length) if out.len().next_multiple_of(4) - start <= longest => {
                    out[before..before + 2].copy_from_slice(&kind.to_be_bytes());
                    out[before + 2..before + 4].copy_from_slice(&length.to_be_bytes());
                    out.resize(before + 4 + usize::from(length).next_multiple_of(4), 0);
                }
                _ => out.truncate(before),
            }
        }
        let length = out.len() - start - HEADER_LEN + if self.fingerprint { FINGERPRINT_LEN } else { 0 };
        let length = u16::try_from(length).expect("attributes were kept below the limit");
        out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
        if self.fingerprint {
            let crc = crc32(&out[start..]) ^ FINGERPRINT_XOR;
            out.extend_from_slice(&FINGERPRINT.to_be_bytes());
            out.extend_from_slice(&4u16.to_be_bytes());
            out.extend_from_slice(&crc.to_be_bytes());
        }
    }

    /// The message as a datagram of its own.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

fn decode_attribute(kind: u16, value: &[u8], id: TransactionId) -> Result<Attribute, DecodeError> {
    let malformed = DecodeError::Malformed(kind);
    let address = || decode_address(value).ok_or(malformed);
    Ok(match kind {
        MAPPED_ADDRESS => Attribute::MappedAddress(address()?),
        XOR_MAPPED_ADDRESS | XOR_MAPPED_ADDRESS_EXPERIMENTAL => {
            Attribute::XorMappedAddress(xor(address()?, id))
        }
        RESPONSE_ORIGIN => Attribute::ResponseOrigin(address()?),
        OTHER_ADDRESS => Attribute::OtherAddress(address()?),
        CHANGE_REQUEST => {
            let flags = u32::from_be_bytes(value.try_into().map_err(|_| malformed)?);
            Attribute::ChangeRequest { ip: flags & CHANGE_IP != 0, port: flags & CHANGE_PORT != 0 }
        }
        // Two bytes and two of padding (RFC 5780 §7.5); some count the padding into the length.
        RESPONSE_PORT if matches!(value.len(), 2 | 4) => Attribute::ResponsePort(u16_at(value, 0)),
        RESPONSE_PORT => return Err(malformed),
        PADDING => Attribute::Padding(u16::try_from(value.len()).map_err(|_| malformed)?),
        SOFTWARE => Attribute::Software(text(value).ok_or(malformed)?),
        ERROR_CODE => {
            let (head, reason) = value.split_at_checked(4).ok_or(malformed)?;
            let (class, number) = (head[2] & 7, head[3]);
            if !(3..=6).contains(&class) || number > 99 {
                return Err(malformed);
            }
            let code = u16::from(class) * 100 + u16::from(number);
            Attribute::ErrorCode { code, reason: text(reason).ok_or(malformed)? }
        }
        UNKNOWN_ATTRIBUTES if value.len().is_multiple_of(2) => {
            Attribute::UnknownAttributes(value.chunks_exact(2).map(|pair| u16_at(pair, 0)).collect())
        }
        UNKNOWN_ATTRIBUTES => return Err(malformed),
        _ => Attribute::Unknown { kind, value: value.to_vec() },
    })
}

/// Appends four bytes for the attribute's header and then its value; returns type and length for that header.
fn encode_attribute(attribute: &Attribute, id: TransactionId, out: &mut Vec<u8>) -> (u16, usize) {
    out.extend_from_slice(&[0; 4]);
    let start = out.len();
    let kind = match attribute {
        Attribute::MappedAddress(address) => encode_address(MAPPED_ADDRESS, *address, out),
        Attribute::XorMappedAddress(address) => encode_address(XOR_MAPPED_ADDRESS, xor(*address, id), out),
        Attribute::ResponseOrigin(address) => encode_address(RESPONSE_ORIGIN, *address, out),
        Attribute::OtherAddress(address) => encode_address(OTHER_ADDRESS, *address, out),
        Attribute::ChangeRequest { ip, port } => {
            let flags = if *ip { CHANGE_IP } else { 0 } | if *port { CHANGE_PORT } else { 0 };
            out.extend_from_slice(&flags.to_be_bytes());
            CHANGE_REQUEST
        }
        Attribute::ResponsePort(port) => {
            out.extend_from_slice(&port.to_be_bytes());
            RESPONSE_PORT
        }
        Attribute::Padding(length) => {
            out.resize(start + usize::from(*length), 0);
            PADDING
        }
        Attribute::Software(name) => {
            out.extend_from_slice(cut(name).as_bytes());
            SOFTWARE
        }
        Attribute::ErrorCode { code, reason } => {
            let code = (*code).clamp(300, 699);
            let [_, class] = (code / 100).to_be_bytes();
            let [_, number] = (code % 100).to_be_bytes();
            out.extend_from_slice(&[0, 0, class, number]);
            out.extend_from_slice(cut(reason).as_bytes());
            ERROR_CODE
        }
        Attribute::UnknownAttributes(kinds) => {
            kinds.iter().for_each(|kind| out.extend_from_slice(&kind.to_be_bytes()));
            UNKNOWN_ATTRIBUTES
        }
        Attribute::Unknown { kind, value } => {
            out.extend_from_slice(value);
            *kind
        }
    };
    (kind, out.len() - start)
}

/// Address family byte (RFC 8489 §14.1).
const IPV4: u8 = 1;
const IPV6: u8 = 2;

fn decode_address(value: &[u8]) -> Option<SocketAddr> {
    let (head, ip) = value.split_at_checked(4)?;
    let ip = match head[1] {
        IPV4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        IPV6 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16_at(head, 2)))
}

fn encode_address(kind: u16, address: SocketAddr, out: &mut Vec<u8>) -> u16 {
    out.extend_from_slice(&[0, if address.is_ipv4() { IPV4 } else { IPV6 }]);
    out.extend_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    kind
}

/// Hides an address, or uncovers it: port and IPv4 with the cookie, IPv6 with cookie and transaction (RFC 8489 §14.2).
fn xor(address: SocketAddr, id: TransactionId) -> SocketAddr {
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let port = address.port() ^ u16::from_be_bytes([cookie[0], cookie[1]]);
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() ^ MAGIC_COOKIE)),
        IpAddr::V6(ip) => {
            let mut octets = ip.octets();
            for (octet, key) in octets.iter_mut().zip(cookie.iter().chain(&id.0)) {
                *octet ^= key;
            }
            IpAddr::V6(Ipv6Addr::from(octets))
        }
    };
    SocketAddr::new(ip, port)
}

fn text(bytes: &[u8]) -> Option<String> {
    if bytes.len() > MAX_TEXT {
        return None;
    }
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The class bits lie at 4 and 8, between the bits of the method (RFC 8489 §5, figure 3).
fn type_of(class: Class, Method(method): Method) -> u16 {
    let class = match class {
        Class::Request => 0x000,
        Class::Indication => 0x010,
        Class::Success => 0x100,
        Class::Error => 0x110,
    };
    class | (method & 0x00F) | (method & 0x070) << 1 | (method & 0xF80) << 2
}

fn class_of(kind: u16) -> Class {
    match kind & 0x110 {
        0x000 => Class::Request,
        0x010 => Class::Indication,
        0x100 => Class::Success,
        _ => Class::Error,
    }
}

fn method_of(kind: u16) -> Method {
    Method((kind & 0x000F) | (kind & 0x00E0) >> 1 | (kind & 0x3E00) >> 2)
}

/// CRC-32 of ITU V.42, as RFC 8489 §14.7 asks for: reflected polynomial 0xEDB88320.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { 0xEDB8_8320 ^ (value >> 1) } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc: u32, byte| TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_standard_check_string() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn every_method_survives_the_interleaving_with_the_class() {
        for method in 0..0x1000 {
            for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
                let kind = type_of(class, Method(method));
                assert_eq!((class_of(kind), method_of(kind)), (class, Method(method)));
                assert_eq!(kind & 0xC000, 0);
            }
        }
    }
}
