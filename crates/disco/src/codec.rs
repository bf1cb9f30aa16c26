//! Plaintexts: `type | version | payload`, integers big-endian.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::packet::{MAX_PLAINTEXT, OpenError};
use crate::{Bind, Message, PublicKey, RelayEndpoint};

const VERSION: u8 = 0;
/// 16 bytes of IPv6 address and two of port.
const ADDRESS_LEN: usize = 18;

const PING: u8 = 0x01;
const PONG: u8 = 0x02;
const CALL_ME_MAYBE: u8 = 0x03;
const BIND: u8 = 0x04;
const BIND_CHALLENGE: u8 = 0x05;
const BIND_ANSWER: u8 = 0x06;
const CALL_ME_MAYBE_VIA: u8 = 0x07;
const ALLOCATE_REQUEST: u8 = 0x08;
const ALLOCATE_RESPONSE: u8 = 0x09;

impl Message {
    /// Appends the plaintext to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let limit = out.len() + MAX_PLAINTEXT;
        out.extend_from_slice(&[self.kind(), VERSION]);
        match self {
            Message::Ping { tx, node_key, padding } => {
                out.extend_from_slice(tx);
                out.extend_from_slice(node_key.as_ref().map_or(&[], |key| &key[..]));
                out.resize(out.len().saturating_add(*padding).min(limit), 0);
            }
            Message::Pong { tx, src } => {
                out.extend_from_slice(tx);
                put_address(*src, out);
            }
            Message::CallMeMaybe { endpoints } => put_addresses(endpoints, limit, out),
            Message::BindUdpRelayEndpoint(bind)
            | Message::BindUdpRelayEndpointChallenge(bind)
            | Message::BindUdpRelayEndpointAnswer(bind) => {
                out.extend_from_slice(&bind.vni.to_be_bytes());
                out.extend_from_slice(&bind.generation.to_be_bytes());
                out.extend_from_slice(&bind.remote.0);
                out.extend_from_slice(&bind.challenge);
            }
            Message::CallMeMaybeVia(endpoint) => put_relay_endpoint(endpoint, limit, out),
            Message::AllocateUdpRelayEndpointRequest { clients, generation } => {
                clients.iter().for_each(|key| out.extend_from_slice(&key.0));
                out.extend_from_slice(&generation.to_be_bytes());
            }
            Message::AllocateUdpRelayEndpointResponse { generation, endpoint } => {
                out.extend_from_slice(&generation.to_be_bytes());
                put_relay_endpoint(endpoint, limit, out);
            }
        }
    }

    pub(crate) fn decode(plain: &[u8]) -> Result<Message, OpenError> {
        let [kind, version, payload @ ..] = plain else { return Err(OpenError::NotDisco) };
        let (kind, version) = (*kind, *version);
        if version != VERSION && matches!(kind, BIND..=ALLOCATE_RESPONSE) {
            return Err(OpenError::Version { kind, version });
        }
        match kind {
            CALL_ME_MAYBE if version != VERSION => Some(Message::CallMeMaybe { endpoints: Vec::new() }),
            CALL_ME_MAYBE => {
                Some(Message::CallMeMaybe { endpoints: take_addresses(payload).unwrap_or_default() })
            }
            PING | PONG | BIND..=ALLOCATE_RESPONSE => decode_fields(kind, Reader(payload)),
            _ => return Err(OpenError::Type(kind)),
        }
        .ok_or(OpenError::Length(kind))
    }

    fn kind(&self) -> u8 {
        match self {
            Message::Ping { .. } => PING,
            Message::Pong { .. } => PONG,
            Message::CallMeMaybe { .. } => CALL_ME_MAYBE,
            Message::BindUdpRelayEndpoint(_) => BIND,
            Message::BindUdpRelayEndpointChallenge(_) => BIND_CHALLENGE,
            Message::BindUdpRelayEndpointAnswer(_) => BIND_ANSWER,
            Message::CallMeMaybeVia(_) => CALL_ME_MAYBE_VIA,
            Message::AllocateUdpRelayEndpointRequest { .. } => ALLOCATE_REQUEST,
            Message::AllocateUdpRelayEndpointResponse { .. } => ALLOCATE_RESPONSE,
        }
    }
}

fn decode_fields(kind: u8, mut reader: Reader<'_>) -> Option<Message> {
    let tx = |reader: &mut Reader<'_>| reader.array::<12>();
    Some(match kind {
        PING => {
            let tx = tx(&mut reader)?;
            // A key of zeros is padding of a sender without key.
            let node_key = reader.0.first_chunk::<32>().filter(|key| **key != [0; 32]).copied();
            let padding = reader.0.len() - node_key.map_or(0, |key| key.len());
            Message::Ping { tx, node_key, padding }
        }
        PONG => Message::Pong { tx: tx(&mut reader)?, src: reader.address()? },
        BIND => Message::BindUdpRelayEndpoint(reader.bind()?),
        BIND_CHALLENGE => Message::BindUdpRelayEndpointChallenge(reader.bind()?),
        BIND_ANSWER => Message::BindUdpRelayEndpointAnswer(reader.bind()?),
        CALL_ME_MAYBE_VIA => Message::CallMeMaybeVia(reader.relay_endpoint()?),
        ALLOCATE_REQUEST => Message::AllocateUdpRelayEndpointRequest {
            clients: [reader.key()?, reader.key()?],
            generation: reader.u32()?,
        },
        ALLOCATE_RESPONSE => Message::AllocateUdpRelayEndpointResponse {
            generation: reader.u32()?,
            endpoint: reader.relay_endpoint()?,
        },
        _ => return None,
    })
}

/// Takes fields off the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn key(&mut self) -> Option<PublicKey> {
        self.array().map(PublicKey)
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let ip = Ipv6Addr::from(self.array::<16>()?).to_canonical();
        Some(SocketAddr::new(ip, self.array().map(u16::from_be_bytes)?))
    }

    fn bind(&mut self) -> Option<Bind> {
        let (vni, generation) = (self.u32()?, self.u32()?);
        Some(Bind { vni, generation, remote: self.key()?, challenge: self.array()? })
    }

    fn relay_endpoint(&mut self) -> Option<RelayEndpoint> {
        Some(RelayEndpoint {
            server: self.key()?,
            clients: [self.key()?, self.key()?],
            lamport: self.u64()?,
            vni: self.u32()?,
            bind_lifetime: Duration::from_nanos(self.u64()?),
            steady_lifetime: Duration::from_nanos(self.u64()?),
            addresses: take_addresses(self.0).filter(|addresses| !addresses.is_empty())?,
        })
    }
}

/// `None` if the bytes are no whole number of addresses.
fn take_addresses(bytes: &[u8]) -> Option<Vec<SocketAddr>> {
    let mut reader = Reader(bytes);
    bytes.len().is_multiple_of(ADDRESS_LEN).then(|| std::iter::from_fn(|| reader.address()).collect())
}

fn put_address(address: SocketAddr, out: &mut Vec<u8>) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    out.extend_from_slice(&ip.octets());
    out.extend_from_slice(&address.port().to_be_bytes());
}

fn put_addresses(addresses: &[SocketAddr], limit: usize, out: &mut Vec<u8>) {
    let room = (limit - out.len()) / ADDRESS_LEN;
    addresses.iter().take(room).for_each(|address| put_address(*address, out));
}

fn put_relay_endpoint(endpoint: &RelayEndpoint, limit: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&endpoint.server.0);
    endpoint.clients.iter().for_each(|key| out.extend_from_slice(&key.0));
    out.extend_from_slice(&endpoint.lamport.to_be_bytes());
    out.extend_from_slice(&endpoint.vni.to_be_bytes());
    for lifetime in [endpoint.bind_lifetime, endpoint.steady_lifetime] {
        out.extend_from_slice(&u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX).to_be_bytes());
    }
    put_addresses(&endpoint.addresses, limit, out);
}
