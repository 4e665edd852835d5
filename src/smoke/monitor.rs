//! What is asked of a running QEMU, by its monitor's protocol (QMP) on a socket in the boot's folder.

use super::gpus::LONGEST_SOCKET;
use crate::error::{Advise as _, Status, hinted};
use anyhow::{Context as _, Result};
use qapi::qmp::{QmpCommand, device_del, quit};
use qapi::{Qmp, Stream};
use std::ffi::OsString;
use std::io::{BufReader, BufWriter};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longer than QEMU takes for an answer, even where the guest has both cores.
const PATIENCE: Duration = Duration::from_secs(30);

/// A monitor's socket.
#[derive(Clone, Debug)]
pub struct Monitor {
    socket: PathBuf,
}

impl Monitor {
    /// One in `folder`, which QEMU makes.
    ///
    /// # Errors
    /// The folder's path is too long for sockets.
    pub fn new(folder: &Path) -> Result<Self> {
        let socket = folder.join("monitor");
        if socket.as_os_str().len() > LONGEST_SOCKET {
            let what = format!("{} is too long for a socket ({LONGEST_SOCKET} bytes)", socket.display());
            return Err(hinted(what, "name a shorter folder: --keep DIR, or TMPDIR")).status(Status::Usage);
        }
        Ok(Self { socket })
    }

    /// QEMU's arguments for it.
    pub fn arguments(&self) -> Vec<OsString> {
        let socket = super::argv_disks::with_path("socket,id=monitor,server=on,wait=off,path=", &self.socket);
        ["-chardev".into(), socket, "-qmp".into(), "chardev:monitor".into()].to_vec()
    }

    /// Ends QEMU as if the machine lost its power: the guest is told nothing.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn quit(&self) -> Result<()> {
        self.ask("ending QEMU", &quit {})
    }

    /// Takes a device out, as a hand at the slot's button does: the guest may let go of it first.
    ///
    /// # Errors
    /// QEMU does not answer, has no such device, or its slot cannot be emptied.
    pub fn unplug(&self, id: &str) -> Result<()> {
        self.ask("taking a device out", &device_del { id: id.to_owned() })
    }

    fn ask<C: QmpCommand>(&self, what: &str, command: &C) -> Result<()> {
        let asked = || -> Result<()> {
            let stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            // A command goes out as one piece: QEMU obeys its closing brace, and after `quit` nobody reads its line's end.
            let mut qmp = Qmp::new(Stream::new(BufReader::new(&stream), BufWriter::new(&stream)));
            qmp.handshake()?;
            qmp.execute(command)?;
            Ok(())
        };
        asked().with_context(|| format!("{what} by {}", self.socket.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11}, "package": ""}, "capabilities": []}}"#;

    /// Obeys what it is told by now, as a QEMU does that never reads on.
    fn obey(mut stream: &UnixStream) -> String {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).unwrap();
        stream.write_all(b"{\"return\": {}}\n").unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    #[test]
    fn a_command_is_one_piece() {
        let folder = tempfile::tempdir().unwrap();
        let monitor = Monitor::new(folder.path()).unwrap();
        let listener = UnixListener::bind(folder.path().join("monitor")).unwrap();
        let times = 100;
        let qemu = std::thread::spawn(move || {
            for _ in 0..times {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(GREETING.as_bytes()).unwrap();
                stream.write_all(b"\n").unwrap();
                for name in ["qmp_capabilities", "quit"] {
                    let command = obey(&stream);
                    assert!(command.contains(name) && command.ends_with("}\n"), "{command:?}");
                }
            }
        });
        for _ in 0..times {
            monitor.quit().unwrap();
        }
        qemu.join().unwrap();
    }
}
