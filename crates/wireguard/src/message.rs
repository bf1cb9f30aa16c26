//! Framing of the four messages (paper §5.4.2 to §5.4.7). All integers are little-endian.

use crate::Kind;

/// Type 1, paper §5.4.2: type 4, sender 4, Noise 108, mac1 16, mac2 16.
pub(crate) const INITIATION_LEN: usize = 148;
/// Type 2, paper §5.4.3: type 4, sender 4, receiver 4, Noise 48, mac1 16, mac2 16.
pub(crate) const RESPONSE_LEN: usize = 92;
/// Type 3, paper §5.4.7: type 4, receiver 4, nonce 24, sealed cookie 32.
pub(crate) const COOKIE_REPLY_LEN: usize = 64;
/// Type 4, paper §5.4.6: type 4, receiver 4, counter 8, then the sealed packet.
pub(crate) const DATA_HEADER_LEN: usize = 16;
/// Length of a Poly1305 tag.
pub(crate) const TAG_LEN: usize = 16;
/// What a data message adds to the (padded) packet.
pub(crate) const DATA_OVERHEAD: usize = DATA_HEADER_LEN + TAG_LEN;
/// Ephemeral key 32, sealed static key 48, sealed timestamp 28.
pub(crate) const NOISE_INITIATION_LEN: usize = 108;
/// Ephemeral key 32, tag of the empty payload 16.
pub(crate) const NOISE_RESPONSE_LEN: usize = 48;
/// Length of mac1 and of mac2.
pub(crate) const MAC_LEN: usize = 16;

const INITIATION: u32 = 1;
const RESPONSE: u32 = 2;
const COOKIE_REPLY: u32 = 3;
const DATA: u32 = 4;

/// A datagram whose type and length fit together. Nothing in it has been authenticated.
pub(crate) enum Message<'a> {
    Initiation { sender: u32, noise: &'a [u8], macs: Macs<'a> },
    Response { sender: u32, receiver: u32, noise: &'a [u8], macs: Macs<'a> },
    CookieReply { receiver: u32, nonce: &'a [u8; 24], sealed: &'a [u8; 32] },
    Data { receiver: u32, counter: u64, sealed: &'a [u8] },
}

/// The two authenticators that end both handshake messages, with the bytes each of them covers.
pub(crate) struct Macs<'a> {
    pub(crate) under_mac1: &'a [u8],
    pub(crate) mac1: &'a [u8; MAC_LEN],
    pub(crate) under_mac2: &'a [u8],
    pub(crate) mac2: &'a [u8; MAC_LEN],
}

impl<'a> Macs<'a> {
    fn split(datagram: &'a [u8]) -> Option<Macs<'a>> {
        let (under_mac2, mac2) = datagram.split_last_chunk()?;
        let (under_mac1, mac1) = under_mac2.split_last_chunk()?;
        Some(Macs { under_mac1, mac1, under_mac2, mac2 })
    }
}

impl<'a> Message<'a> {
    /// Splits a datagram. `None` when its type is unknown or its length does not fit its type.
    pub(crate) fn parse(datagram: &'a [u8]) -> Option<Message<'a>> {
        // The three reserved bytes are zero, so the type reads as one 32-bit number.
        let (kind, rest) = split_u32(datagram)?;
        match (kind, datagram.len()) {
            (INITIATION, INITIATION_LEN) => {
                let (sender, rest) = split_u32(rest)?;
                Some(Message::Initiation {
                    sender,
                    noise: rest.get(..NOISE_INITIATION_LEN)?,
                    macs: Macs::split(datagram)?,
                })
            }
            (RESPONSE, RESPONSE_LEN) => {
                let (sender, rest) = split_u32(rest)?;
                let (receiver, rest) = split_u32(rest)?;
                Some(Message::Response {
                    sender,
                    receiver,
                    noise: rest.get(..NOISE_RESPONSE_LEN)?,
                    macs: Macs::split(datagram)?,
                })
            }
            (COOKIE_REPLY, COOKIE_REPLY_LEN) => {
                let (receiver, rest) = split_u32(rest)?;
                let (nonce, rest) = rest.split_first_chunk()?;
                let (sealed, _) = rest.split_first_chunk()?;
                Some(Message::CookieReply { receiver, nonce, sealed })
            }
            (DATA, DATA_OVERHEAD..) => {
                let (receiver, rest) = split_u32(rest)?;
                let (counter, sealed) = rest.split_first_chunk()?;
                Some(Message::Data { receiver, counter: u64::from_le_bytes(*counter), sealed })
            }
            _ => None,
        }
    }
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*head), rest))
}

/// An initiation up to mac1.
pub(crate) fn initiation(sender: u32, noise: &[u8; NOISE_INITIATION_LEN]) -> Vec<u8> {
    let mut out = Vec::with_capacity(INITIATION_LEN);
    out.extend_from_slice(&INITIATION.to_le_bytes());
    out.extend_from_slice(&sender.to_le_bytes());
    out.extend_from_slice(noise);
    out
}

/// A response up to mac1.
pub(crate) fn response(sender: u32, receiver: u32, noise: &[u8; NOISE_RESPONSE_LEN]) -> Vec<u8> {
    let mut out = Vec::with_capacity(RESPONSE_LEN);
    out.extend_from_slice(&RESPONSE.to_le_bytes());
    out.extend_from_slice(&sender.to_le_bytes());
    out.extend_from_slice(&receiver.to_le_bytes());
    out.extend_from_slice(noise);
    out
}

/// A whole cookie reply.
pub(crate) fn cookie_reply(receiver: u32, nonce: &[u8; 24], sealed: &[u8; 32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(COOKIE_REPLY_LEN);
    out.extend_from_slice(&COOKIE_REPLY.to_le_bytes());
    out.extend_from_slice(&receiver.to_le_bytes());
    out.extend_from_slice(nonce);
    out.extend_from_slice(sealed);
    out
}

/// The header of a data message, with room for `sealed_len` bytes behind it, zeroed.
pub(crate) fn data(receiver: u32, counter: u64, sealed_len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(DATA_HEADER_LEN + sealed_len);
    out.extend_from_slice(&DATA.to_le_bytes());
    out.extend_from_slice(&receiver.to_le_bytes());
    out.extend_from_slice(&counter.to_le_bytes());
    out.resize(DATA_HEADER_LEN + sealed_len, 0);
    out
}

impl Kind {
    /// What a datagram claims to be, by its type and length alone. `None`: not a WireGuard message.
    #[must_use]
    pub fn of(datagram: &[u8]) -> Option<Kind> {
        Some(match Message::parse(datagram)? {
            Message::Initiation { .. } => Kind::Initiation,
            Message::Response { .. } => Kind::Response,
            Message::CookieReply { .. } => Kind::Cookie,
            Message::Data { sealed, .. } if sealed.len() == TAG_LEN => Kind::Keepalive,
            Message::Data { .. } => Kind::Data,
        })
    }
}

/// The length an IP packet states in its own header, if the bytes start like one.
pub(crate) fn ip_len(packet: &[u8]) -> Option<usize> {
    match packet.first()? >> 4 {
        // RFC 791 §3.1: total length; RFC 8200 §3: payload length after a 40-byte header.
        4 if packet.len() >= 20 => Some(usize::from(u16::from_be_bytes([packet[2], packet[3]]))),
        6 if packet.len() >= 40 => Some(40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_add_up() {
        assert_eq!(initiation(7, &[1; NOISE_INITIATION_LEN]).len() + 2 * MAC_LEN, INITIATION_LEN);
        assert_eq!(response(7, 8, &[1; NOISE_RESPONSE_LEN]).len() + 2 * MAC_LEN, RESPONSE_LEN);
        assert_eq!(cookie_reply(7, &[0; 24], &[0; 32]).len(), COOKIE_REPLY_LEN);
        assert_eq!(data(7, 0, TAG_LEN).len(), DATA_OVERHEAD);
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        let mut datagram = data(7, 0, TAG_LEN);
        assert_eq!(Kind::of(&datagram), Some(Kind::Keepalive));
        datagram[2] = 1;
        assert_eq!(Kind::of(&datagram), None);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_do_not(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..6) {
            let mut framed = vec![kind, 0, 0, 0];
            framed.extend_from_slice(&bytes);
            for datagram in [&bytes, &framed] {
                let parsed = Message::parse(datagram).is_some();
                prop_assert_eq!(parsed, Kind::of(datagram).is_some());
                let _ = ip_len(datagram);
            }
        }

        #[test]
        fn data_round_trips(receiver: u32, counter: u64, body in proptest::collection::vec(any::<u8>(), 16..99)) {
            let mut datagram = data(receiver, counter, body.len());
            datagram[DATA_HEADER_LEN..].copy_from_slice(&body);
            let Some(Message::Data { receiver: r, counter: c, sealed }) = Message::parse(&datagram) else {
                return Err(TestCaseError::fail("not read as data"));
            };
            prop_assert_eq!((r, c, sealed), (receiver, counter, &body[..]));
        }

        #[test]
        fn handshake_messages_round_trip(sender: u32, receiver: u32, byte: u8) {
            let mut first = initiation(sender, &[byte; NOISE_INITIATION_LEN]);
            first.extend_from_slice(&[2; MAC_LEN]);
            first.extend_from_slice(&[3; MAC_LEN]);
            let Some(Message::Initiation { sender: s, noise, macs }) = Message::parse(&first) else {
                return Err(TestCaseError::fail("not read as initiation"));
            };
            prop_assert_eq!((s, noise), (sender, &[byte; NOISE_INITIATION_LEN][..]));
            prop_assert_eq!((macs.mac1, macs.mac2), (&[2; MAC_LEN], &[3; MAC_LEN]));
            prop_assert_eq!(macs.under_mac1.len() + MAC_LEN, macs.under_mac2.len());
            let mut second = response(sender, receiver, &[byte; NOISE_RESPONSE_LEN]);
            second.extend_from_slice(&[0; 2 * MAC_LEN]);
            let Some(Message::Response { sender: s, receiver: r, noise, .. }) = Message::parse(&second) else {
                return Err(TestCaseError::fail("not read as response"));
            };
            prop_assert_eq!((s, r, noise), (sender, receiver, &[byte; NOISE_RESPONSE_LEN][..]));
        }
    }
}
