//! Imitates libcuda, libcufile and NVML over the CPU's memory, as much of them as gdsboot-dma calls: one library that
//! tests put into a folder under all three names. It is never on an image, and gdsboot-dma says of every answer that it
//! came from here by the symbol `gdsboot_simulated`.
//!
//! `GDSBOOT_SIMULATED` says how it behaves, as words `name=value` with commas between:
//!
//! | word | what it does |
//! |---|---|
//! | `route=nvfs`, `p2pdma`, `compat` | which route is there |
//! | `bounce=N` | every Nth transfer is copied by the CPU |
//! | `uncounted=N` | every Nth transfer is not counted |
//! | `corrupt=N` | every Nth transfer has a wrong byte |
//! | `lost=N` | every Nth transfer says that it was made, and was not |
//! | `short=N` | every Nth transfer is of half its bytes |
//! | `error=FUNCTION:STATUS` | the function fails; a negative status of a transfer is an errno |
//! | `hang=FUNCTION`, `crash=FUNCTION`, `exit=FUNCTION` | the function never returns |
//! | `print=FUNCTION` | the function prints a line that looks like an answer to standard output |
//! | `stats=old`, `new`, `partial`, `strange` | how the counters are laid out |
//! | `anonymous=1` | the counters bear no UUID |

#![allow(
    non_snake_case,
    clippy::missing_safety_doc,
    reason = "the vendor's names, and the vendor's contracts"
)]

mod cuda;
mod cufile;
mod nvml;

use std::collections::HashMap;
use std::ffi::c_int;
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

/// What makes it known for what it is.
#[unsafe(no_mangle)]
pub static gdsboot_simulated: u8 = 1;

/// The GPU's UUID.
pub const UUID: [u8; 16] = *b"\x5a\x1d\xb0\x07simulatedgpu";

/// A word of the settings.
pub fn setting(name: &str) -> Option<&'static str> {
    static SETTINGS: OnceLock<HashMap<String, String>> = OnceLock::new();
    let settings = SETTINGS.get_or_init(|| {
        let text = std::env::var("GDSBOOT_SIMULATED").unwrap_or_default();
        let pairs = text.split(',').filter_map(|word| word.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    });
    settings.get(name).map(String::as_str)
}

/// Is the setting a number that divides this one?
pub fn each(name: &str, number: u64) -> bool {
    setting(name)
        .and_then(|every| every.parse().ok())
        .is_some_and(|every: u64| (number + 1).is_multiple_of(every))
}

/// What the settings want of a function: its status, 0 where it is to work.
pub fn enter(function: &str) -> c_int {
    if setting("print") == Some(function) {
        let line = "{\"v\":1,\"id\":1,\"body\":{\"answer\":\"closed\"}}";
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    if setting("hang") == Some(function) {
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    if setting("crash") == Some(function) {
        // SAFETY: none; the process is meant to die here.
        unsafe { std::ptr::null_mut::<u8>().wrapping_add(8).write_volatile(1) };
    }
    if setting("exit") == Some(function) {
        std::process::exit(3);
    }
    let error = setting("error").and_then(|error| error.split_once(':'));
    error.filter(|(name, _)| *name == function).map_or(0, |(_, status)| status.parse().unwrap_or(1))
}
