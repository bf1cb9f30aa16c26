//! A stateless Binding server (RFC 8489 §12, RFC 5780 §6).

use std::net::SocketAddr;

use crate::message::{Attribute, Class, Message, Method};

/// The longest answer to a request without any RFC 5780 attribute, in bytes: clients of the field read into 64-byte buffers.
pub const PLAIN_LIMIT: usize = 64;

/// RFC 8489 §14.8.
const BAD_REQUEST: u16 = 400;
const UNKNOWN_ATTRIBUTE: u16 = 420;
/// CHANGE-REQUEST's type, named in a 420 by a server without alternate address (RFC 5780 §6.1).
const CHANGE_REQUEST: u16 = 0x0003;

/// A Binding server. It keeps nothing between requests.
#[derive(Clone, Debug, Default)]
pub struct Server {
    addresses: Option<(SocketAddr, SocketAddr)>,
    software: Option<String>,
}

/// An answer to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The local socket to send from.
    pub from_local: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
    /// The datagram.
    pub data: Vec<u8>,
}

impl Server {
    /// A server on any number of sockets without alternates: CHANGE-REQUEST is refused with 420.
    pub fn new() -> Server {
        Server::default()
    }

    /// A server on four sockets, the combinations of both addresses and both ports (RFC 5780 §6). All four must be
    /// open: requests arrive on, and answers leave from, each of them.
    ///
    /// # Errors
    /// The two must differ in address and in port, and be of one family.
    pub fn with_alternate(primary: SocketAddr, alternate: SocketAddr) -> Result<Server, AlternateError> {
        if primary.is_ipv4() != alternate.is_ipv4() {
            return Err(AlternateError::Family);
        }
        if primary.ip() == alternate.ip() || primary.port() == alternate.port() {
            return Err(AlternateError::Same);
        }
        Ok(Server { addresses: Some((primary, alternate)), software: None })
    }

    /// Names the server in SOFTWARE, in the answers to requests that carry an RFC 5780 attribute.
    pub fn software(mut self, name: impl Into<String>) -> Server {
        self.software = Some(name.into());
        self
    }

    /// The sockets the server needs; empty for a server without alternates.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        self.addresses.map_or_else(Vec::new, |(a, b)| {
            vec![a, SocketAddr::new(a.ip(), b.port()), SocketAddr::new(b.ip(), a.port()), b]
        })
    }

    /// The answer to the datagram that `from` sent to our socket `local`; `None` if there is nothing to answer
    /// (no STUN, no request, another method, no port to answer to).
    pub fn respond(&self, local: SocketAddr, from: SocketAddr, datagram: &[u8]) -> Option<Response> {
        let request = Message::decode(datagram).ok()?;
        if request.class != Class::Request || request.method != Method::BINDING || from.port() == 0 {
            return None;
        }
        let (mut from_local, mut to) = (local, from);
        let plan = self.plan(local, &request);
        let mut answer = Message { class: Class::Success, attributes: Vec::new(), ..request };
        match plan {
            Ok(plan) => {
                from_local = plan.from_local;
                if let Some(port) = plan.port {
                    to.set_port(port);
                }
                let mapped = SocketAddr::new(from.ip().to_canonical(), from.port());
                answer.attributes.push(Attribute::XorMappedAddress(mapped));
                self.describe(local, &plan, &mut answer);
            }
            Err((code, reason, unknown)) => {
                answer.class = Class::Error;
                answer.attributes.push(Attribute::ErrorCode { code, reason: reason.to_owned() });
                if !unknown.is_empty() {
                    answer.attributes.push(Attribute::UnknownAttributes(unknown));
                }
            }
        }
        Some(Response { from_local, to, data: answer.to_vec() })
    }

    fn plan(&self, local: SocketAddr, request: &Message) -> Result<Plan, (u16, &'static str, Vec<u16>)> {
        let mut unknown = request.unknown_required();
        let mut plan = Plan { from_local: local, port: None, padding: None, asked: false };
        for attribute in &request.attributes {
            match attribute {
                Attribute::ChangeRequest { ip, port } => match self.other(local) {
                    Some(other) => {
                        plan.asked = true;
                        let ip = if *ip { other.ip() } else { local.ip() };
                        let port = if *port { other.port() } else { local.port() };
                        plan.from_local = SocketAddr::new(ip, port);
                    }
                    None => unknown.push(CHANGE_REQUEST),
                },
                Attribute::ResponsePort(port) => (plan.port, plan.asked) = (Some(*port), true),
                Attribute::Padding(length) => (plan.padding, plan.asked) = (Some(*length), true),
                _ => {}
            }
        }
        if !unknown.is_empty() {
            return Err((UNKNOWN_ATTRIBUTE, "Unknown Attribute", unknown));
        }
        // RFC 5780 §7.5: a request with both is not to be processed; port 0 cannot be answered to.
        if plan.port == Some(0) || (plan.port.is_some() && plan.padding.is_some()) {
            return Err((BAD_REQUEST, "Bad Request", Vec::new()));
        }
        Ok(plan)
    }

    /// Adds RESPONSE-ORIGIN, OTHER-ADDRESS, SOFTWARE and PADDING where asked for, or where they cost nothing.
    fn describe(&self, local: SocketAddr, plan: &Plan, answer: &mut Message) {
        if let Some(other) = self.other(local) {
            answer.attributes.push(Attribute::ResponseOrigin(plan.from_local));
            answer.attributes.push(Attribute::OtherAddress(other));
            if !plan.asked && answer.to_vec().len() > PLAIN_LIMIT {
                answer.attributes.truncate(1);
            }
        }
        if let Some(software) = self.software.as_ref().filter(|_| plan.asked) {
            answer.attributes.push(Attribute::Software(software.clone()));
        }
        if let Some(length) = plan.padding {
            answer.attributes.push(Attribute::Padding(length));
        }
    }

    /// The address that differs from `local` in both address and port.
    fn other(&self, local: SocketAddr) -> Option<SocketAddr> {
        let (a, b) = self.addresses?;
        let flip = |is_a: bool| if is_a { b } else { a };
        Some(SocketAddr::new(flip(local.ip() == a.ip()).ip(), flip(local.port() == a.port()).port()))
    }
}

/// How a request is to be answered.
struct Plan {
    from_local: SocketAddr,
    port: Option<u16>,
    padding: Option<u16>,
    asked: bool,
}

/// Why two addresses do not make a server with alternates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlternateError {
    /// One is IPv4, the other IPv6.
    #[error("both addresses must be of one family")]
    Family,
    /// They share the address or the port.
    #[error("the alternate must differ in address and in port")]
    Same,
}
