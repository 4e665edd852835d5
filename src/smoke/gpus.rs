//! The simulated GPUs of one boot: a server for each function, and how QEMU attaches it.

use super::machine::Machine;
use super::pci::Slot;
use crate::error::{Advise as _, Status, hinted};
use anyhow::Result;
use simulated_gpu::{Function, Server, qemu};
use std::ffi::OsString;
use std::path::Path;

/// Longer paths do not fit into the address of a socket (unix(7): 108 bytes with the zero at the end).
pub const LONGEST_SOCKET: usize = 107;

/// What is served for one boot; it ends with this.
#[derive(Debug, Default)]
pub struct Gpus {
    servers: Vec<Server>,
    arguments: Vec<OsString>,
}

impl Gpus {
    /// Serves all GPUs of a machine on sockets in `folder`.
    ///
    /// # Errors
    /// A GPU is impossible, or the sockets cannot be made.
    pub fn serve(machine: &Machine, slots: &[Slot], folder: &Path) -> Result<Self> {
        let mut gpus = Self::default();
        for (number, (gpu, slot)) in (0..).zip(machine.gpus.iter().zip(slots)) {
            let functions = gpu.functions(number).map_err(|error| hinted(&error, error.hint()))?;
            let several = functions.len() > 1;
            for function in functions {
                gpus.add(function, several, number, slot, folder)?;
            }
        }
        Ok(gpus)
    }

    fn add(
        &mut self,
        function: Function,
        several: bool,
        number: u16,
        slot: &Slot,
        folder: &Path,
    ) -> Result<()> {
        let socket = folder.join(format!("gpu{number}.{}", function.number));
        if socket.as_os_str().len() > LONGEST_SOCKET {
            let what = format!("{} is too long for a socket ({LONGEST_SOCKET} bytes)", socket.display());
            return Err(hinted(what, "name a shorter folder: --keep DIR, or TMPDIR")).status(Status::Usage);
        }
        let multifunction = several && function.number == 0;
        let device = qemu::device(&function, multifunction, &slot.bus, slot.number, &socket);
        self.arguments.extend(["-device".into(), device.into()]);
        let server = simulated_gpu::serve(&socket, function);
        self.servers.push(server.map_err(|error| hinted(&error, error.hint())).status(Status::Unavailable)?);
        Ok(())
    }

    /// QEMU's arguments that attach them.
    pub fn arguments(&self) -> &[OsString] {
        &self.arguments
    }
}
