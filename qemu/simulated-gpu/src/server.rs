//! Serving one function to one client, on a thread.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::function::Function;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_AUTOMASKED, VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_MASKABLE, VFIO_PCI_INTX_IRQ_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_NUM_IRQS,
};
use vfio_user::IrqInfo;

/// How long a server that is dropped waits for its thread.
const PATIENCE: Duration = Duration::from_secs(2);

/// A function that is being served. Dropping it stops it and removes its socket.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    /// The listener once more: by it the thread is woken that waits for a client.
    listener: UnixStream,
    counters: Arc<Counters>,
    ended: Receiver<Result<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a client has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// It has read or written something, or told of its memory.
    pub talked: bool,
    /// Reads of BAR0.
    pub register_reads: u64,
    /// Resets, function level resets among them.
    pub resets: u64,
    /// Resets that were refused.
    pub refused_resets: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub talked: AtomicBool,
    pub register_reads: AtomicU64,
    pub resets: AtomicU64,
    pub refused_resets: AtomicU64,
}

/// Serves a function to the first client that connects to `socket`. The socket is there when this returns, so that QEMU,
/// which connects when it starts, can be started next.
///
/// # Errors
/// Where the socket cannot be made or the windows' memory cannot be had.
pub fn serve(socket: &Path, function: Function) -> Result<Server> {
    let counters = Arc::<Counters>::default();
    let mut device = Device::new(function, Arc::clone(&counters))?;
    let (listener, waker) = listen(socket)?;
    // Reset is offered even where it is refused: QEMU would not ask for it otherwise.
    let server = vfio_user::Server::from_owned_fd(listener.into(), true, interrupts(), device.regions());
    let (end, ended) = channel();
    let bound = Bound(socket.to_owned());
    let thread = std::thread::Builder::new().name("simulated-gpu".into()).spawn(move || {
        // Removed before anybody is told of the end, in a panic too.
        let bound = bound;
        let result = server.run(&mut device);
        let result = outcome(&bound.0, device.counters().talked.load(Relaxed), result);
        drop(bound);
        // Nobody may be left to be told.
        let _ = end.send(result);
    });
    let thread = thread.map_err(|error| {
        Error::new("starting a thread for a simulated GPU", "see the limits of this process").caused_by(error)
    })?;
    Ok(Server { socket: socket.to_owned(), listener: waker, counters, ended, thread: Some(thread) })
}

fn listen(socket: &Path) -> Result<(UnixListener, UnixStream)> {
    let place = socket.display();
    let listener = UnixListener::bind(socket).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => "remove it, if no other program listens on it",
            std::io::ErrorKind::InvalidInput => "choose a path of at most 107 bytes",
            _ => "choose a path in a folder that exists and can be written to",
        };
        Error::new(format!("listening on {place}"), hint).caused_by(error)
    })?;
    let waker = listener.try_clone().map_err(|error| {
        remove(socket);
        Error::new(format!("listening on {place}"), "see the limits of this process").caused_by(error)
    })?;
    Ok((listener, UnixStream::from(OwnedFd::from(waker))))
}

/// One interrupt of each kind but MSI-X. QEMU wants to know of them, though none is ever raised.
fn interrupts() -> Vec<IrqInfo> {
    let interrupt = |index| IrqInfo {
        index,
        count: u32::from(index != VFIO_PCI_MSIX_IRQ_INDEX),
        flags: match index {
            VFIO_PCI_INTX_IRQ_INDEX => {
                VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED
            }
            VFIO_PCI_MSIX_IRQ_INDEX => 0,
            _ => VFIO_IRQ_INFO_EVENTFD,
        },
    };
    (0..VFIO_PCI_NUM_IRQS).map(interrupt).collect()
}

/// A client that is killed may leave in the middle of a message; that is an end like any other.
fn outcome(socket: &Path, talked: bool, result: std::result::Result<(), vfio_user::Error>) -> Result<()> {
    use vfio_user::Error::{ReceiveWithFd, SocketAccept, StreamRead, StreamWrite};
    match result {
        Ok(()) | Err(SocketAccept(_)) => Ok(()),
        Err(ReceiveWithFd(_) | StreamRead(_) | StreamWrite(_)) if talked => Ok(()),
        Err(error) => Err(Error::new(
            format!("serving on {}", socket.display()),
            "connect a client that speaks vfio-user: QEMU from 10.1 on",
        )
        .caused_by(error)),
    }
}

/// A socket that is removed when nobody serves on it any more.
struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(socket: &Path) {
    // It may be gone already.
    let _ = std::fs::remove_file(socket);
}

impl Server {
    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the client has done so far.
    pub fn seen(&self) -> Seen {
        Seen {
            talked: self.counters.talked.load(Relaxed),
            register_reads: self.counters.register_reads.load(Relaxed),
            resets: self.counters.resets.load(Relaxed),
            refused_resets: self.counters.refused_resets.load(Relaxed),
        }
    }

    /// Waits until the client has gone away; `false` where the time is up first.
    ///
    /// # Errors
    /// Where what connected does not speak vfio-user.
    pub fn wait(&mut self, time: Duration) -> Result<bool> {
        if self.thread.is_none() {
            return Ok(true);
        }
        let result = match self.ended.recv_timeout(time) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => Err(Error::new(
                format!("the thread that served on {} has panicked", self.socket.display()),
                "connect a client that speaks vfio-user: QEMU from 10.1 on",
            )),
        };
        if let Some(thread) = self.thread.take() {
            // Its result has been told, or its panic has.
            let _ = thread.join();
        }
        result.map(|()| true)
    }

    /// Stops waiting for a client, and waits until one that is there has gone away.
    ///
    /// # Errors
    /// Where the client is still there when the time is up, or did not speak vfio-user.
    pub fn stop(mut self, time: Duration) -> Result<()> {
        self.wake();
        if self.wait(time)? {
            return Ok(());
        }
        Err(Error::new(
            format!("the client on {} is still connected", self.socket.display()),
            "end QEMU before the GPU that it uses",
        ))
    }

    /// A thread that waits for a client waits no longer. One that has a client does not notice.
    fn wake(&self) {
        // It may have ended already.
        let _ = self.listener.shutdown(std::net::Shutdown::Both);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.wake();
        // Whoever wanted to know has asked. A thread whose client stays ends when that goes away.
        let _ = self.wait(PATIENCE);
        if self.thread.is_some() {
            remove(&self.socket);
        }
    }
}
