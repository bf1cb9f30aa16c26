//! The two ends by which a box is reached.

use std::fs::File;
use std::io;

use nat::Side;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::Error;
use crate::veth::Veth;

/// By which kind of device packets get into a box and out of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ends {
    /// [`Ends::Tun`] where /dev/net/tun can be opened, else [`Ends::Veth`].
    #[default]
    Auto,
    /// Two TUN devices: the kernel forwards within the `write`.
    Tun,
    /// Two veth pairs, their far ends in a namespace of their own with a packet socket on each: needs no device file,
    /// but a packet that comes to nothing is known to only once an ARP request behind it has been answered.
    Veth,
}

/// The device file of TUN (Documentation/networking/tuntap).
const TUN: &str = "/dev/net/tun";

impl Ends {
    /// With [`Ends::Auto`] decided.
    pub(crate) fn decided(self) -> Ends {
        match self {
            Ends::Auto if File::options().read(true).write(true).open(TUN).is_ok() => Ends::Tun,
            Ends::Auto => Ends::Veth,
            decided => decided,
        }
    }
}

/// The devices of a box, called `lan` and `wan` inside it.
pub(crate) enum Devices {
    Tun { lan: SyncDevice, wan: SyncDevice },
    Veth { lan: Veth, wan: Veth },
}

impl Devices {
    /// Makes them in the namespace of this thread, still down.
    pub(crate) fn new(ends: Ends) -> Result<Devices, Error> {
        if ends.decided() == Ends::Veth {
            let (lan, wan) = Veth::pairs()?;
            return Ok(Devices::Veth { lan, wan });
        }
        let device = |name: &str| {
            let device = DeviceBuilder::new().name(name).layer(Layer::L3).mtu(1500).build_sync();
            let device = device.and_then(|device| device.set_nonblocking(true).map(|()| device));
            device.map_err(|error| Error::Io { what: "making a TUN device".to_owned(), error })
        };
        Ok(Devices::Tun { lan: device("lan")?, wan: device("wan")? })
    }

    /// Which kind they are.
    pub(crate) fn ends(&self) -> Ends {
        match self {
            Devices::Tun { .. } => Ends::Tun,
            Devices::Veth { .. } => Ends::Veth,
        }
    }

    /// What a route to a device needs besides the device, for the command `ip`.
    pub(crate) fn gateway(&self) -> &'static str {
        match self {
            Devices::Tun { .. } => "",
            Devices::Veth { .. } => Veth::GATEWAY,
        }
    }

    /// What the command `ip` has to do before there is any route, and again once a device has lost its last address.
    pub(crate) fn neighbours(&self) -> &'static str {
        match self {
            Devices::Tun { .. } => "",
            Devices::Veth { .. } => Veth::NEIGHBOURS,
        }
    }

    /// Waits until both are fit for use.
    pub(crate) fn ready(&mut self) -> io::Result<()> {
        match self {
            Devices::Tun { .. } => Ok(()),
            Devices::Veth { lan, wan } => lan.ready().and_then(|()| wan.ready()),
        }
    }

    /// Sends a packet in and hands over all that comes out of either device; `take` says whether it was on account of
    /// this packet.
    pub(crate) fn exchange(
        &mut self,
        side: Side,
        packet: &[u8],
        buffer: &mut [u8],
        mut take: impl FnMut(Side, &[u8]) -> bool,
    ) -> io::Result<()> {
        match self {
            Devices::Tun { lan, wan } => {
                match side {
                    Side::Inside => lan.send(packet)?,
                    Side::Outside => wan.send(packet)?,
                };
                for (out, device) in [(Side::Inside, lan), (Side::Outside, wan)] {
                    while let Some(length) = unless_empty(device.recv(buffer))? {
                        take(out, buffer.get(..length).unwrap_or_default());
                    }
                }
                Ok(())
            }
            Devices::Veth { lan, wan } => {
                // The end that the packet goes in by, and the other.
                let (this, other, there) = match side {
                    Side::Inside => (lan, wan, Side::Outside),
                    Side::Outside => (wan, lan, Side::Inside),
                };
                let mut drain = |this: &mut Veth, other: &mut Veth| {
                    let mut came = false;
                    for (out, end) in [(side, this), (there, other)] {
                        while let Some(packet) = end.receive(buffer)? {
                            came |= take(out, packet);
                        }
                    }
                    Ok::<_, io::Error>(came)
                };
                this.send(packet)?;
                if drain(this, other)? {
                    return Ok(());
                }
                // Dropped, or on its way still: a request behind it comes out after it.
                this.ask()?;
                loop {
                    // Before draining: what came out on the other end is there by the time of the answer.
                    let answered = this.answered();
                    if drain(this, other)? || answered {
                        return Ok(());
                    }
                    if !this.answered() {
                        this.wait()?;
                    }
                }
            }
        }
    }
}

/// `None` for a device with nothing to read.
pub(crate) fn unless_empty(read: io::Result<usize>) -> io::Result<Option<usize>> {
    match read {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
