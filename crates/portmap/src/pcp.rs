//! PCP messages (RFC 6887 §7, §11, §12, §13), byte for byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The version of RFC 6887.
pub const VERSION: u8 = 2;
/// Longest message in bytes (§7).
pub const MAX_LEN: usize = 1100;
/// Bytes of the header (§7.1, §7.2).
pub const HEADER: usize = 24;

/// Makes a mapping this client's own (§11.1).
pub type Nonce = [u8; 12];

/// Result codes (§7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the names are those of RFC 6887 §7.4")]
pub enum Refusal {
    #[error("unsupported version")]
    UnsuppVersion,
    #[error("not authorized")]
    NotAuthorized,
    #[error("malformed request")]
    MalformedRequest,
    #[error("unsupported opcode")]
    UnsuppOpcode,
    #[error("unsupported option")]
    UnsuppOption,
    #[error("malformed option")]
    MalformedOption,
    #[error("network failure")]
    NetworkFailure,
    #[error("no resources")]
    NoResources,
    #[error("unsupported protocol")]
    UnsuppProtocol,
    #[error("quota exceeded")]
    UserExQuota,
    #[error("cannot provide the external port")]
    CannotProvideExternal,
    #[error("the source address is not the client's")]
    AddressMismatch,
    #[error("too many remote peers")]
    ExcessiveRemotePeers,
    #[error("result code {0}")]
    Other(u8),
}

const REFUSALS: [Refusal; 13] = [
    Refusal::UnsuppVersion,
    Refusal::NotAuthorized,
    Refusal::MalformedRequest,
    Refusal::UnsuppOpcode,
    Refusal::UnsuppOption,
    Refusal::MalformedOption,
    Refusal::NetworkFailure,
    Refusal::NoResources,
    Refusal::UnsuppProtocol,
    Refusal::UserExQuota,
    Refusal::CannotProvideExternal,
    Refusal::AddressMismatch,
    Refusal::ExcessiveRemotePeers,
];

impl Refusal {
    /// The code on the wire.
    pub fn code(self) -> u8 {
        match self {
            Refusal::Other(code) => code,
            known => REFUSALS.iter().position(|refusal| *refusal == known).map_or(0, |i| i as u8 + 1),
        }
    }

    fn from_code(code: u8) -> Option<Refusal> {
        let index = code.checked_sub(1)?;
        Some(REFUSALS.get(usize::from(index)).copied().unwrap_or(Refusal::Other(code)))
    }

    /// How long an error holds, in seconds: the short lifetime of 30 s or the long one of 30 min that §7.4 gives
    /// each code.
    pub fn lifetime(self) -> u32 {
        match self {
            Refusal::NetworkFailure
            | Refusal::NoResources
            | Refusal::UserExQuota
            | Refusal::CannotProvideExternal => 30,
            _ => 1800,
        }
    }
}

/// The payload of MAP (§11.1), the same in both directions; "external" is what is suggested or assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// The same in all messages about one mapping.
    pub nonce: Nonce,
    /// IANA's number of the transport; 0 for all.
    pub protocol: u8,
    /// The client's port; 0 for all.
    pub internal_port: u16,
    /// External endpoint; all zero for any.
    pub external: SocketAddr,
}

/// The payload of PEER (§12.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// As in MAP.
    pub map: Map,
    /// The other end of the conversation.
    pub remote: SocketAddr,
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Opcode 0 (§14.1).
    Announce,
    /// Opcode 1.
    Map(Map),
    /// Opcode 2.
    Peer(Peer),
}

impl Op {
    /// Its number.
    pub fn opcode(&self) -> u8 {
        match self {
            Op::Announce => 0,
            Op::Map(_) => 1,
            Op::Peer(_) => 2,
        }
    }
}

/// An option (§13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opt {
    /// 1: the mapping is for this address rather than the client's.
    ThirdParty(IpAddr),
    /// 2: this external port or none.
    PreferFailure,
    /// 3: only these may send to the mapping; port 0 for all ports, prefix 0 clears the filters.
    Filter {
        /// Bits of the address that count, of 128.
        prefix: u8,
        /// The remote endpoint.
        remote: SocketAddr,
    },
    /// Any other. Codes from 128 up may be ignored.
    Unknown {
        /// Its code.
        code: u8,
        /// Its data.
        data: Vec<u8>,
    },
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Seconds; 0 deletes.
    pub lifetime: u32,
    /// The client's own address, which the server compares with the packet's source (§8.1).
    pub client: IpAddr,
    /// What is asked.
    pub op: Op,
    /// In their order.
    pub options: Vec<Opt>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// `None` is success.
    pub refused: Option<Refusal>,
    /// Seconds: of the mapping, or of the error.
    pub lifetime: u32,
    /// Seconds since the server lost its mappings (§8.5).
    pub epoch: u32,
    /// What is answered. `None` when an error repeats a request that cannot be read.
    pub op: Option<Op>,
    /// Those of the request that were processed.
    pub options: Vec<Opt>,
}

/// Why bytes are no PCP message, and what §8.2 has a server do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Too short to be answered, or going the other way: dropped in silence.
    #[error("not a message in this direction")]
    Ignore,
    /// Answered with this result; made with [`refuse`].
    #[error("{0}")]
    Refuse(Refusal),
}

fn address(bytes: &[u8]) -> IpAddr {
    let bytes: [u8; 16] = bytes.try_into().unwrap_or_default();
    Ipv6Addr::from(bytes).to_canonical()
}

/// IPv4 as IPv4-mapped IPv6 (§5).
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// "Any", of the family of `like` (§11.1: the all-zeros address of the family that is wanted).
pub fn any_like(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

fn port(bytes: &[u8]) -> u16 {
    bytes.try_into().map_or(0, u16::from_be_bytes)
}

fn word(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_be_bytes)
}

fn put_op(op: &Op, out: &mut Vec<u8>) {
    let map = match op {
        Op::Announce => return,
        Op::Map(map) | Op::Peer(Peer { map, .. }) => map,
    };
    out.extend(map.nonce);
    out.extend([map.protocol, 0, 0, 0]);
    out.extend(map.internal_port.to_be_bytes());
    out.extend(map.external.port().to_be_bytes());
    out.extend(octets(map.external.ip()));
    if let Op::Peer(Peer { remote, .. }) = op {
        out.extend(remote.port().to_be_bytes());
        out.extend([0, 0]);
        out.extend(octets(remote.ip()));
    }
}

/// The payload of an opcode and what follows it; `None` if there is no such opcode or too little of it.
fn take_op(opcode: u8, data: &[u8]) -> Result<(Op, &[u8]), Refusal> {
    let len = match opcode {
        0 => 0,
        1 => 36,
        2 => 56,
        _ => return Err(Refusal::UnsuppOpcode),
    };
    let (body, rest) = data.split_at_checked(len).ok_or(Refusal::MalformedRequest)?;
    if opcode == 0 {
        return Ok((Op::Announce, rest));
    }
    let map = Map {
        nonce: body[..12].try_into().unwrap_or_default(),
        protocol: body[12],
        internal_port: port(&body[16..18]),
        external: SocketAddr::new(address(&body[20..36]), port(&body[18..20])),
    };
    if opcode == 1 {
        return Ok((Op::Map(map), rest));
    }
    let remote = SocketAddr::new(address(&body[40..56]), port(&body[36..38]));
    Ok((Op::Peer(Peer { map, remote }), rest))
}

fn put_options(options: &[Opt], out: &mut Vec<u8>) {
    for option in options {
        let (code, data) = match option {
            Opt::ThirdParty(ip) => (1, octets(*ip).to_vec()),
            Opt::PreferFailure => (2, Vec::new()),
            Opt::Filter { prefix, remote } => {
                let mut data = vec![0, *prefix];
                data.extend(remote.port().to_be_bytes());
                data.extend(octets(remote.ip()));
                (3, data)
            }
            Opt::Unknown { code, data } => (*code, data.clone()),
        };
        // Options longer than a message are no options; the caller's mistake is cut to what a message holds.
        let len = data.len().min(MAX_LEN);
        out.extend([code, 0]);
        out.extend((len as u16).to_be_bytes());
        out.extend(&data[..len]);
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

fn take_options(mut data: &[u8]) -> Result<Vec<Opt>, Refusal> {
    let mut options = Vec::new();
    while !data.is_empty() {
        let (head, rest) = data.split_at_checked(4).ok_or(Refusal::MalformedOption)?;
        let len = usize::from(port(&head[2..4]));
        let body = rest.get(..len).ok_or(Refusal::MalformedOption)?;
        data = rest.get(len.next_multiple_of(4)..).ok_or(Refusal::MalformedOption)?;
        options.push(match (head[0], len) {
            (1, 16) => Opt::ThirdParty(address(body)),
            (2, 0) => Opt::PreferFailure,
            (3, 20) => Opt::Filter {
                prefix: body[1],
                remote: SocketAddr::new(address(&body[4..20]), port(&body[2..4])),
            },
            (1..=3, _) => return Err(Refusal::MalformedOption),
            (code, _) => Opt::Unknown { code, data: body.to_vec() },
        });
    }
    Ok(options)
}

impl Request {
    /// Its bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.op.opcode(), 0, 0];
        out.extend(self.lifetime.to_be_bytes());
        out.extend(octets(self.client));
        put_op(&self.op, &mut out);
        put_options(&self.options, &mut out);
        out
    }

    /// Reads a request in the order of checks of §8.2.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(data: &[u8]) -> Result<Request, DecodeError> {
        let &[version, opcode, ..] = data else { return Err(DecodeError::Ignore) };
        if opcode & 128 != 0 {
            return Err(DecodeError::Ignore);
        }
        if version != VERSION {
            return Err(DecodeError::Refuse(Refusal::UnsuppVersion));
        }
        if data.len() < HEADER || data.len() > MAX_LEN || !data.len().is_multiple_of(4) {
            return Err(DecodeError::Refuse(Refusal::MalformedRequest));
        }
        let (op, rest) = take_op(opcode, &data[HEADER..]).map_err(DecodeError::Refuse)?;
        let options = take_options(rest).map_err(DecodeError::Refuse)?;
        Ok(Request { lifetime: word(&data[4..8]), client: address(&data[8..24]), op, options })
    }
}

impl Response {
    /// Its bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let opcode = self.op.as_ref().map_or(0, Op::opcode);
        let mut out = header(opcode, self.refused, self.lifetime, self.epoch);
        if let Some(op) = &self.op {
            put_op(op, &mut out);
        }
        put_options(&self.options, &mut out);
        out
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`DecodeError::Ignore`] if it is none (§8.3), [`DecodeError::Refuse`] with `UnsuppVersion` if it is one of
    /// another version.
    pub fn decode(data: &[u8]) -> Result<Response, DecodeError> {
        let &[version, opcode, ..] = data else { return Err(DecodeError::Ignore) };
        if opcode & 128 == 0 {
            return Err(DecodeError::Ignore);
        }
        if version != VERSION {
            return Err(DecodeError::Refuse(Refusal::UnsuppVersion));
        }
        if data.len() < HEADER || data.len() > MAX_LEN || !data.len().is_multiple_of(4) {
            return Err(DecodeError::Ignore);
        }
        let refused = Refusal::from_code(data[3]);
        let body =
            take_op(opcode & 127, &data[HEADER..]).and_then(|(op, rest)| Ok((Some(op), take_options(rest)?)));
        let (op, options) = match (body, refused) {
            (Ok(body), _) => body,
            (Err(_), Some(_)) => (None, Vec::new()),
            (Err(_), None) => return Err(DecodeError::Ignore),
        };
        Ok(Response { refused, lifetime: word(&data[4..8]), epoch: word(&data[8..12]), op, options })
    }
}

fn header(opcode: u8, refused: Option<Refusal>, lifetime: u32, epoch: u32) -> Vec<u8> {
    let mut out = vec![VERSION, 128 | opcode, 0, refused.map_or(0, Refusal::code)];
    out.extend(lifetime.to_be_bytes());
    out.extend(epoch.to_be_bytes());
    out.extend([0; 12]);
    out
}

/// The refusal of a request, whether it can be read or not: what came, with the header of an answer (§8.2), cut to
/// [`MAX_LEN`] and filled up to a multiple of 4.
pub fn refuse(request: &[u8], why: Refusal, epoch: u32) -> Vec<u8> {
    let opcode = request.get(1).copied().unwrap_or_default() & 127;
    let mut out = header(opcode, Some(why), why.lifetime(), epoch);
    let body = request.get(HEADER..request.len().min(MAX_LEN)).unwrap_or_default();
    out.extend(body);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back() {
        for code in 1..=u8::MAX {
            assert_eq!(Refusal::from_code(code).map(Refusal::code), Some(code));
        }
        assert_eq!(Refusal::from_code(0), None);
        assert_eq!(Refusal::ExcessiveRemotePeers.code(), 13);
        assert_eq!(Refusal::UserExQuota.code(), 10);
    }
}
