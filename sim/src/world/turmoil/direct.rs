//! [`daemon::Net`] on turmoil's own sockets, for shells without a scenario around them.

use ::turmoil::net::{TcpListener, TcpStream, UdpSocket};
use bytes::Bytes;
use daemon::Datagram;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

/// Longest UDP payload.
const MAX_PAYLOAD: usize = 65_535;
/// Datagrams taken at a time.
const BATCH: usize = 32;

/// The network of the host of turmoil that it is used on. Its clock is tokio's, which is the host's.
#[derive(Debug, Clone)]
pub struct TurmoilNet {
    own: IpAddr,
}

impl TurmoilNet {
    /// The network of a host, by the name that the simulation knows it by. To be called on a host.
    pub fn new(name: &str) -> TurmoilNet {
        TurmoilNet { own: ::turmoil::lookup(name) }
    }
}

impl daemon::Net for TurmoilNet {
    type Udp = DirectUdp;
    type Listener = DirectListener;
    type Stream = TcpStream;

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + 'static {
        tokio::time::sleep_until(at.into())
    }

    async fn udp(&mut self, port: u16) -> io::Result<Vec<DirectUdp>> {
        Ok(vec![DirectUdp(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await?)])
    }

    async fn listen(&mut self, port: u16) -> io::Result<Vec<DirectListener>> {
        Ok(vec![DirectListener(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?)])
    }

    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + 'static {
        TcpStream::connect(to)
    }

    fn addresses(&self) -> Vec<IpAddr> {
        vec![self.own]
    }
}

/// A UDP socket of turmoil.
#[derive(Debug)]
pub struct DirectUdp(UdpSocket);

impl daemon::Udp for DirectUdp {
    fn carries(&self, to: SocketAddr) -> bool {
        to.is_ipv4()
    }

    async fn recv(&self, into: &mut Vec<Datagram>) -> io::Result<()> {
        let mut buffer = vec![0; MAX_PAYLOAD];
        let mut take = |(len, addr): (usize, SocketAddr), buffer: &[u8]| {
            into.push(Datagram { addr, data: Bytes::copy_from_slice(&buffer[..len]) });
        };
        let first = self.0.recv_from(&mut buffer).await?;
        take(first, &buffer);
        for _ in 1..BATCH {
            match self.0.try_recv_from(&mut buffer) {
                Ok(next) => take(next, &buffer),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn try_send(&self, queue: &mut VecDeque<Datagram>) -> io::Result<()> {
        while let Some(Datagram { addr, data }) = queue.front() {
            self.0.try_send_to(data, *addr)?;
            queue.pop_front();
        }
        Ok(())
    }

    async fn writable(&self) -> io::Result<()> {
        self.0.writable().await
    }
}

/// A listening TCP socket of turmoil.
pub struct DirectListener(TcpListener);

impl daemon::Listener for DirectListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}
