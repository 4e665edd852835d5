//! The consoles of an image: what must be seen is written to each of them, and none of them may hold the run up.
//!
//! Events go to serial lines only, for programs; sentences and the verdict go to all. A console that takes nothing for
//! three seconds (a stopped terminal, a port without hardware) is given up.

use crate::facts::Root;
use crate::report::events::{Event, TEXT_BEGIN, TEXT_END, VERSION, What};
use crate::report::screen::Style;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

/// How long a console may take nothing at all.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait for a serial line to have sent what it took: 4 KiB at 9600 baud take longer than that, and then the
/// next line merely waits its turn.
const DRAIN: Duration = Duration::from_secs(2);

/// All consoles that can be used.
#[derive(Debug, Default)]
pub struct Consoles {
    consoles: Vec<Console>,
    /// Number of the next event.
    seq: u32,
    /// The kernel's console log level, put back after each event.
    level: Option<String>,
}

#[derive(Debug)]
struct Console {
    /// The device's name, such as `ttyS0`.
    name: String,
    file: File,
}

/// The kernel's console log level; the first number is the one in force.
const PRINTK: &str = "/proc/sys/kernel/printk";

impl Consoles {
    /// Opens what the kernel itself writes to, and the screen in any case.
    pub fn open(root: &Root) -> Self {
        let active = root.text("/sys/class/tty/console/active");
        let names = choose(active.value().map_or("", String::as_str));
        let consoles = names.into_iter().filter_map(|name| {
            let file = OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
                .open(format!("/dev/{name}"));
            Some(Console { name, file: file.ok()? })
        });
        let level =
            root.text(PRINTK).value().and_then(|text| text.split_whitespace().next().map(str::to_owned));
        Self { consoles: consoles.collect(), seq: 0, level }
    }

    /// The device names, for a shell on each.
    pub fn names(&self) -> Vec<String> {
        self.consoles.iter().map(|console| console.name.clone()).collect()
    }

    /// Sentences for people.
    pub fn say(&mut self, text: &str) {
        self.write_all(&format!("gdsboot: {text}\n"), |_| true);
    }

    /// An event for programs. The kernel is kept quiet meanwhile, so that no message of its own lands inside the line.
    pub fn event(&mut self, what: What) {
        let event = Event { v: VERSION, seq: self.seq, up_ms: up_ms(), what };
        self.seq += 1;
        let line = format!("{}\n", event.line());
        self.quietly(|consoles| consoles.write_all(&line, Console::is_serial));
    }

    /// The screen at the end: `render` draws it in the style that a console can show. The kernel stays quiet from here
    /// on, so that it stands.
    pub fn screen(&mut self, render: impl Fn(Style) -> String) {
        self.silence_kernel();
        self.write_all(&render(Style::Colour), |console| !console.is_serial());
        self.write_all(&render(Style::Plain), Console::is_serial);
    }

    /// The whole text report on the serial lines, where there is nowhere else to put it.
    pub fn text_report(&mut self, text: &str) {
        let text = format!("{TEXT_BEGIN}\n{text}{TEXT_END}\n");
        self.quietly(|consoles| consoles.write_all(&text, Console::is_serial));
    }

    /// No more kernel messages on the consoles, emergencies excepted.
    pub fn silence_kernel(&mut self) {
        self.quietly(|consoles| {
            if let Some(level) = &mut consoles.level {
                *level = "1".into();
            }
        });
    }

    /// Without a level to put back nothing is changed: then these are not a machine's consoles.
    fn quietly(&mut self, work: impl FnOnce(&mut Self)) {
        if self.level.is_some() {
            set_level("1");
        }
        work(self);
        if let Some(level) = &self.level {
            set_level(level);
        }
    }

    fn write_all(&mut self, text: &str, wanted: impl Fn(&Console) -> bool) {
        // A console that fails is gone for good; there is nobody to tell.
        self.consoles.retain_mut(|console| !wanted(console) || console.write(text.as_bytes()).is_ok());
        for console in self.consoles.iter().filter(|console| wanted(console)) {
            console.drain();
        }
    }
}

/// The screen first, then everything else that is active. `tty0` is whichever virtual terminal is shown.
fn choose(active: &str) -> Vec<String> {
    let mut names = vec!["tty0".to_owned()];
    for name in active.split_whitespace() {
        let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric());
        let is_screen = name.strip_prefix("tty").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
        // ttynull swallows everything, and the virtual terminals are all the one screen.
        if is_plain && !is_screen && name != "ttynull" && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn set_level(level: &str) {
    // Without it events may be torn, and their reader copes.
    let _ = std::fs::write(PRINTK, level);
}

/// Milliseconds since the kernel started.
fn up_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |time| u64::try_from(time.tv_sec() * 1000 + time.tv_nsec() / 1_000_000).unwrap_or(0))
}

impl Console {
    fn is_serial(&self) -> bool {
        self.name != "tty0"
    }

    fn write(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        let mut deadline = Instant::now() + PATIENCE;
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    bytes = &bytes[taken..];
                    deadline = Instant::now() + PATIENCE;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(error);
                    }
                    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                    match poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)], timeout) {
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the line has sent what it took, so that the kernel's own output comes after it. tcdrain(3) would wait
    /// for ever for a terminal that was stopped by Ctrl-S.
    fn drain(&self) {
        let deadline = Instant::now() + DRAIN;
        while self.unsent().is_some_and(|bytes| bytes > 0) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[allow(unsafe_code, reason = "nix has no TIOCOUTQ")]
    fn unsent(&self) -> Option<i32> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: TIOCOUTQ writes one int (tty_ioctl(4)), and the file is open as long as `self`.
        let rc = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        (rc == 0).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_comes_first_and_once() {
        assert_eq!(choose("tty0 ttyS0"), ["tty0", "ttyS0"]);
        assert_eq!(choose("ttyS1 tty1 hvc0 ttyS1 ttynull ../x"), ["tty0", "ttyS1", "hvc0"]);
        assert_eq!(choose(""), ["tty0"]);
    }

    #[test]
    fn a_console_that_takes_nothing_is_an_error_in_bounded_time() {
        let (_reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
        let mut console = Console { name: "ttyS9".into(), file: File::from(writer) };
        let start = Instant::now();
        assert!(console.write(&vec![b'x'; 1 << 20]).is_err());
        assert!(start.elapsed() < PATIENCE + Duration::from_secs(2));
    }

    #[test]
    fn events_are_counted() {
        let mut consoles = Consoles::default();
        consoles.event(What::StageStarted { stage: "a".into() });
        consoles.event(What::StageStarted { stage: "b".into() });
        assert_eq!(consoles.seq, 2);
    }
}
