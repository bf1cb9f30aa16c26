//! For worlds in which somebody does what nobody should: packets with any source, programs that others have tampered with.

use super::World;
use super::build::BuildError;
use super::net::{Inner, Step};
use crate::host::Program;
use crate::packet::Packet;

impl World {
    /// Puts a packet onto the cable of a host or server as if that had sent it, whatever its source says. Nobody on the way
    /// checks that: where networks do (BCP 38), nothing can be spoofed.
    ///
    /// # Errors
    /// If nothing has that name.
    pub fn inject(&mut self, node: &str, mut packet: Packet) -> Result<(), BuildError> {
        let node = self.named(node)?;
        packet.id = self.packets;
        self.packets += 1;
        self.log_sent(node, &packet);
        self.travel(Step::Leave(node, Box::new(packet)));
        Ok(())
    }

    /// Starts the program that the scenario puts on a host or server, now, inside of another one. That one lasts until the
    /// first restart.
    ///
    /// # Errors
    /// If the scenario puts nothing there.
    pub fn wrap_program(
        &mut self,
        node: &str,
        wrap: impl FnOnce(Box<dyn Program>) -> Box<dyn Program>,
    ) -> Result<(), BuildError> {
        let index = self.named(node)?;
        let (starter, slot) = self.starter_of(index).ok_or_else(|| BuildError::Missing(node.to_owned()))?;
        let program = wrap(self.make(starter));
        self.start_program(index, slot, program);
        Ok(())
    }

    /// A program of that type which runs on a host or server.
    pub fn program<P: Program>(&self, node: &str) -> Option<&P> {
        match &self.sites[self.named(node).ok()? as usize].body {
            Inner::Host(host) => host.program(),
            Inner::Router(_) | Inner::Outlet(_) => None,
        }
    }

    fn named(&self, node: &str) -> Result<u32, BuildError> {
        self.by_name.get(node).copied().ok_or_else(|| BuildError::Missing(node.to_owned()))
    }
}
