//! wireguard
