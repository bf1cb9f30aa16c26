//! NAT-PMP messages (RFC 6886 §3), byte for byte.

use std::net::Ipv4Addr;

use crate::Proto;

/// The only version there is.
pub const VERSION: u8 = 0;

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The gateway's external address (§3.2).
    ExternalAddress,
    /// A mapping (§3.3). A lifetime of 0 deletes it (§3.4), and with internal port 0 all of that protocol.
    Map {
        /// Transport.
        proto: Proto,
        /// The client's port.
        internal: u16,
        /// The external port it would like; 0 for any.
        external: u16,
        /// Seconds.
        lifetime: u32,
    },
}

/// Why a request was refused (§3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 1.
    #[error("unsupported version")]
    UnsupportedVersion,
    /// 2: the gateway supports mappings, but they are switched off or not for this client.
    #[error("not authorized")]
    NotAuthorized,
    /// 3: for instance the gateway itself has no external address yet.
    #[error("network failure")]
    NetworkFailure,
    /// 4.
    #[error("out of resources")]
    OutOfResources,
    /// 5.
    #[error("unsupported opcode")]
    UnsupportedOpcode,
    /// A code that RFC 6886 does not know.
    #[error("result code {0}")]
    Other(u16),
}

impl Refusal {
    /// The result code on the wire.
    pub fn code(self) -> u16 {
        match self {
            Refusal::UnsupportedVersion => 1,
            Refusal::NotAuthorized => 2,
            Refusal::NetworkFailure => 3,
            Refusal::OutOfResources => 4,
            Refusal::UnsupportedOpcode => 5,
            Refusal::Other(code) => code,
        }
    }

    fn from_code(code: u16) -> Option<Refusal> {
        Some(match code {
            0 => return None,
            1 => Refusal::UnsupportedVersion,
            2 => Refusal::NotAuthorized,
            3 => Refusal::NetworkFailure,
            4 => Refusal::OutOfResources,
            5 => Refusal::UnsupportedOpcode,
            other => Refusal::Other(other),
        })
    }
}

/// What a gateway answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// Seconds since the gateway's tables were last made anew (§3.6).
    pub epoch: u32,
    /// The rest.
    pub body: Body,
}

/// The part of an answer that depends on the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// The external address.
    ExternalAddress(Ipv4Addr),
    /// A mapping.
    Map {
        /// Transport.
        proto: Proto,
        /// The client's port.
        internal: u16,
        /// The external port that it got.
        external: u16,
        /// Seconds; 0 after a deletion.
        lifetime: u32,
    },
    /// A refusal.
    Refused {
        /// Opcode of the request.
        opcode: u8,
        /// The client's port, where the request was for a mapping and the gateway said which.
        internal: Option<u16>,
        /// Why.
        why: Refusal,
    },
}

/// Why bytes are no NAT-PMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the message has.
    #[error("too short: {0} bytes")]
    TooShort(usize),
    /// A first byte that is not 0. The second one is the opcode.
    #[error("version {0}")]
    Version(u8, u8),
    /// No request, or no response, has this opcode.
    #[error("opcode {0}")]
    Opcode(u8),
}

fn opcode(proto: Proto) -> u8 {
    match proto {
        Proto::Udp => 1,
        Proto::Tcp => 2,
    }
}

fn proto(opcode: u8) -> Option<Proto> {
    match opcode {
        1 => Some(Proto::Udp),
        2 => Some(Proto::Tcp),
        _ => None,
    }
}

fn u16_at(data: &[u8], at: usize) -> u16 {
    data.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes)
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    data.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}

impl Request {
    /// Its bytes: 2 or 12.
    pub fn to_vec(self) -> Vec<u8> {
        match self {
            Request::ExternalAddress => vec![VERSION, 0],
            Request::Map { proto, internal, external, lifetime } => {
                let mut out = vec![VERSION, opcode(proto), 0, 0];
                out.extend(internal.to_be_bytes());
                out.extend(external.to_be_bytes());
                out.extend(lifetime.to_be_bytes());
                out
            }
        }
    }

    /// Reads a request. What follows it is ignored, as RFC 6886 gives no length.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(data: &[u8]) -> Result<Request, DecodeError> {
        let &[version, op, ..] = data else { return Err(DecodeError::TooShort(data.len())) };
        if version != VERSION {
            return Err(DecodeError::Version(version, op));
        }
        if op == 0 {
            return Ok(Request::ExternalAddress);
        }
        let proto = proto(op).ok_or(DecodeError::Opcode(op))?;
        if data.len() < 12 {
            return Err(DecodeError::TooShort(data.len()));
        }
        let (internal, external) = (u16_at(data, 4), u16_at(data, 6));
        Ok(Request::Map { proto, internal, external, lifetime: u32_at(data, 8) })
    }
}

impl Response {
    /// Its bytes: 12 for the address, 16 for a mapping; a refusal is as long as what it refuses (§3.2, §3.3: the
    /// other fields zero), or 8 bytes where that is not known (§3.5).
    pub fn to_vec(self) -> Vec<u8> {
        let (op, code) = match self.body {
            Body::ExternalAddress(_) => (0, 0),
            Body::Map { proto, .. } => (opcode(proto), 0),
            Body::Refused { opcode, why, .. } => (opcode, why.code()),
        };
        let mut out = vec![VERSION, 128 | op];
        out.extend(u16::to_be_bytes(code));
        out.extend(self.epoch.to_be_bytes());
        match self.body {
            Body::ExternalAddress(ip) => out.extend(ip.octets()),
            Body::Map { internal, external, lifetime, .. } => {
                out.extend(internal.to_be_bytes());
                out.extend(external.to_be_bytes());
                out.extend(lifetime.to_be_bytes());
            }
            Body::Refused { opcode: 0, why, .. } if why != Refusal::UnsupportedVersion => out.extend([0; 4]),
            Body::Refused { internal: Some(internal), .. } => {
                out.extend(internal.to_be_bytes());
                out.extend([0; 6]);
            }
            Body::Refused { .. } => {}
        }
        out
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(data: &[u8]) -> Result<Response, DecodeError> {
        let &[version, op, ..] = data else { return Err(DecodeError::TooShort(data.len())) };
        if version != VERSION {
            return Err(DecodeError::Version(version, op));
        }
        if op < 128 {
            return Err(DecodeError::Opcode(op));
        }
        if data.len() < 8 {
            return Err(DecodeError::TooShort(data.len()));
        }
        let (op, epoch) = (op & 127, u32_at(data, 4));
        let needs = |bytes| if data.len() < bytes { Err(DecodeError::TooShort(data.len())) } else { Ok(()) };
        let body = match (Refusal::from_code(u16_at(data, 2)), op) {
            (Some(why), _) => {
                let internal = (data.len() >= 16 && proto(op).is_some()).then(|| u16_at(data, 8));
                Body::Refused { opcode: op, internal, why }
            }
            (None, 0) => {
                needs(12)?;
                Body::ExternalAddress(Ipv4Addr::from(u32_at(data, 8)))
            }
            (None, _) => {
                let proto = proto(op).ok_or(DecodeError::Opcode(128 | op))?;
                needs(16)?;
                let (internal, external) = (u16_at(data, 8), u16_at(data, 10));
                Body::Map { proto, internal, external, lifetime: u32_at(data, 12) }
            }
        };
        Ok(Response { epoch, body })
    }
}
