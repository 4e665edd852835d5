//! Imitates libcuda, libcufile and NVML over the CPU's memory, as much of them as gdsboot-dma calls: one library that
//! tests put into a folder under all three names. It is on no image but those that an overlay brings it to, and
//! gdsboot-dma says of every answer that it came from here by the symbol `gdsboot_simulated`.
//!
//! How it behaves is said by words `name=value`, parted by commas, blanks or line breaks. They are taken from the first
//! of these places that there is: the environment variable `GDSBOOT_SIMULATED`, QEMU's fw_cfg
//! (`opt/gdsboot-simulated`), and the file `gdsboot-simulated.conf` beside the library.
//!
//! | word | what it does |
//! |---|---|
//! | `gpus=N` | so many GPUs, 1 unless told otherwise |
//! | `pci=ADDRESS/ADDRESS` | their PCI addresses |
//! | `celsius=N`, `slowed=BITS` | their temperature, and why their clocks are slow, as NVML says it |
//! | `route=nvfs`, `p2pdma`, `compat` | which route is there |
//! | `bounce=N` | every Nth transfer is copied by the CPU |
//! | `uncounted=N` | every Nth transfer is not counted |
//! | `corrupt=N` | every Nth transfer has a wrong byte |
//! | `lost=N` | every Nth transfer says that it was made, and was not |
//! | `short=N` | every Nth transfer is of half its bytes |
//! | `error=FUNCTION:STATUS` | the function fails; a negative status of a transfer is an errno |
//! | `slow=FUNCTION:MICROSECONDS` | the function takes so much longer |
//! | `hang=FUNCTION`, `crash=FUNCTION`, `exit=FUNCTION` | the function never returns |
//! | `hang_after=N`, `crash_after=N` | no transfer after the Nth returns |
//! | `print=FUNCTION` | the function prints a line that looks like an answer to standard output |
//! | `stats=old`, `new`, `partial`, `strange` | how the counters are laid out |
//! | `anonymous=1` | the counters bear no UUID |
//!
//! The three names are links to one file: it is one library to the loader, and has one memory.
//!
//! `error`, `slow`, `hang`, `crash`, `exit` and `print` may stand several times. The feature `old` leaves out what
//! libcufile learned with 1.15 and later, streams among it, and what NVML calls by newer names.

#![allow(
    non_snake_case,
    clippy::missing_safety_doc,
    reason = "the vendor's names, and the vendor's contracts"
)]

#![cfg_attr(feature = "old", allow(dead_code, unused_imports, reason = "what only newer functions need"))]

mod cuda;
mod cufile;
mod nvml;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// What makes it known for what it is.
#[unsafe(no_mangle)]
pub static gdsboot_simulated: u8 = 1;

/// The UUID of a GPU: they differ in the last byte.
pub fn uuid(index: usize) -> [u8; 16] {
    let mut uuid = *b"\x5a\x1d\xb0\x07simulatedgpu";
    uuid[15] = uuid[15].wrapping_add(index as u8);
    uuid
}

/// Dl_info of dlfcn.h.
#[repr(C)]
struct Place {
    file: *const c_char,
    base: *mut c_void,
    symbol: *const c_char,
    address: *mut c_void,
}

unsafe extern "C" {
    fn dladdr(address: *const c_void, place: *mut Place) -> c_int;
}

/// The settings' file beside this library.
fn beside() -> Option<String> {
    let mut place = Place {
        file: std::ptr::null(),
        base: std::ptr::null_mut(),
        symbol: std::ptr::null(),
        address: std::ptr::null_mut(),
    };
    // SAFETY: the address is one of this library, and the structure is the one that is asked for.
    let found = unsafe { dladdr((&raw const gdsboot_simulated).cast(), &raw mut place) };
    if found == 0 || place.file.is_null() {
        return None;
    }
    // SAFETY: the loader's own text, which lives as long as the library.
    let file = unsafe { CStr::from_ptr(place.file) }.to_str().ok()?;
    std::fs::read_to_string(Path::new(file).with_file_name("gdsboot-simulated.conf")).ok()
}

fn words() -> &'static [(String, String)] {
    static WORDS: OnceLock<Vec<(String, String)>> = OnceLock::new();
    WORDS.get_or_init(|| {
        let text = std::env::var("GDSBOOT_SIMULATED").ok();
        let text = text.or_else(|| {
            std::fs::read_to_string("/sys/firmware/qemu_fw_cfg/by_name/opt/gdsboot-simulated/raw").ok()
        });
        let text = text.or_else(beside).unwrap_or_default();
        let words = text.split(|c: char| c == ',' || c.is_whitespace());
        let pairs = words.filter_map(|word| word.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    })
}

/// A word of the settings.
pub fn setting(name: &str) -> Option<&'static str> {
    words().iter().find(|(word, _)| word == name).map(|(_, value)| value.as_str())
}

/// A word of the settings that is a number.
pub fn number(name: &str) -> Option<u64> {
    setting(name)?.parse().ok()
}

/// Is the setting a number that divides this one?
pub fn each(name: &str, count: u64) -> bool {
    number(name).is_some_and(|every| (count + 1).is_multiple_of(every))
}

/// Never returns.
pub fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Dies by a signal.
pub fn crash() {
    // SAFETY: none; the process is meant to die here.
    unsafe { std::ptr::null_mut::<u8>().wrapping_add(8).write_volatile(1) };
}

/// What the settings want of a function: its status, 0 where it is to work.
pub fn enter(function: &str) -> c_int {
    let mut status = 0;
    for (word, value) in words() {
        let (name, argument) = value.split_once(':').unwrap_or((value, ""));
        if name != function {
            continue;
        }
        match word.as_str() {
            "print" => {
                let line = "{\"v\":1,\"id\":1,\"body\":{\"answer\":\"closed\"}}";
                let _ = writeln!(std::io::stdout(), "{line}");
            }
            "hang" => hang(),
            "crash" => crash(),
            "exit" => std::process::exit(3),
            "slow" => std::thread::sleep(Duration::from_micros(argument.parse().unwrap_or_default())),
            "error" => status = argument.parse().unwrap_or(1),
            _ => {}
        }
    }
    status
}
