//! What an ICMP error says to whoever sent the packet that it is about.

/// What an ICMP error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// No route (RFC 792 type 3 code 0, RFC 4443 type 1 code 0).
    NetUnreachable,
    /// Nobody there (RFC 792 type 3 code 1, RFC 4443 type 1 code 3).
    HostUnreachable,
    /// No socket on that port (RFC 792 type 3 code 3, RFC 4443 type 1 code 4).
    PortUnreachable,
    /// A filter forbids it (RFC 1812 type 3 code 13, RFC 4443 type 1 code 1).
    Prohibited,
    /// Longer than the next link takes (RFC 1191 type 3 code 4, RFC 4443 type 2).
    TooBig {
        /// The MTU of that link in bytes.
        mtu: u32,
    },
    /// The TTL ran out on the way (RFC 792 type 11 code 0, RFC 4443 type 3 code 0).
    TimeExceeded,
}

impl ErrorKind {
    /// A short word for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::NetUnreachable => "net-unreachable",
            ErrorKind::HostUnreachable => "host-unreachable",
            ErrorKind::PortUnreachable => "port-unreachable",
            ErrorKind::Prohibited => "prohibited",
            ErrorKind::TooBig { .. } => "too-big",
            ErrorKind::TimeExceeded => "time-exceeded",
        }
    }
}
