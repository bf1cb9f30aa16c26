//! The answers of a DNS64 to the question for its prefix.

use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};

use crate::{ADDRESSES, NAME, Pref64};

/// How long an answer may be kept: a day. The prefix changes with the network, not in it.
const TTL: u32 = 86_400;

/// A resolver that knows one name, the one that tells its prefix, and refuses every other.
#[derive(Clone, Copy, Debug)]
pub struct Resolver {
    prefix: Pref64,
}

impl Resolver {
    /// A resolver that makes IPv6 addresses with this prefix (RFC 6147 §5.1.7).
    pub fn new(prefix: Pref64) -> Resolver {
        Resolver { prefix }
    }

    /// The answer to a datagram; `None` for anything that is no question.
    pub fn respond(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let query = Packet::parse(datagram).ok()?;
        if query.has_flags(PacketFlag::RESPONSE) || query.questions.len() != 1 {
            return None;
        }
        let (asked, desired) = (query.questions[0].clone(), query.has_flags(PacketFlag::RECURSION_DESIRED));
        let mut reply = Packet::new_reply(query.id());
        reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
        if desired {
            reply.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        let known = asked.qname.to_string().eq_ignore_ascii_case(NAME);
        if known && asked.qclass == QCLASS::CLASS(CLASS::IN) {
            for v4 in ADDRESSES {
                let data = match asked.qtype {
                    QTYPE::TYPE(TYPE::AAAA) => RData::AAAA(AAAA { address: self.prefix.embed(v4).to_bits() }),
                    QTYPE::TYPE(TYPE::A) => RData::A(A { address: v4.to_bits() }),
                    _ => continue,
                };
                reply.answers.push(ResourceRecord::new(Name::new_unchecked(NAME), CLASS::IN, TTL, data));
            }
        } else {
            *reply.rcode_mut() = RCODE::Refused;
        }
        reply.questions.push(asked);
        reply.build_bytes_vec().ok()
    }
}
