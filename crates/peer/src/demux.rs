//! Tells apart what arrives on the one UDP socket.

/// The protocol of a datagram, from its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Stun,
    Disco,
    WireGuard,
}

/// STUN has its cookie, disco its magic; WireGuard gets the rest and authenticates it. The order is magicsock's. A WireGuard
/// message passes for STUN only if a session index equals the cookie, once in 2^32 sessions.
pub(crate) fn protocol(datagram: &[u8]) -> Protocol {
    if stun::message::is_stun(datagram) {
        Protocol::Stun
    } else if disco::looks_like_disco(datagram) {
        Protocol::Disco
    } else {
        Protocol::WireGuard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stun::message::{Message, TransactionId};

    #[test]
    fn a_binding_request_is_stun() {
        let request = Message::binding_request(TransactionId([7; 12])).to_vec();
        assert_eq!(protocol(&request), Protocol::Stun);
    }

    #[test]
    fn a_sealed_message_is_disco() {
        let key = disco::PrivateKey::from_bytes([1; 32]);
        let shared = disco::SharedKey::new(&key, &key.public());
        let ping = disco::Message::Ping { tx: [0; 12], node_key: None, padding: 0 };
        let datagram = disco::seal(&ping, &key.public(), &shared, [2; 24]);
        assert_eq!(protocol(&datagram), Protocol::Disco);
    }

    #[test]
    fn the_rest_is_left_to_wireguard() {
        for datagram in [&[][..], &[4, 0, 0, 0, 1, 2, 3, 4], &[0xff; 64]] {
            assert_eq!(protocol(datagram), Protocol::WireGuard);
        }
    }
}
