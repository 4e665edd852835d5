//! Imitates libcuda, libcufile and NVML over the CPU's memory, as much of them as gdsboot-dma calls: one library that
//! stands in a folder under all three names, as links to one file, because it is loaded once and its parts know each
//! other. It is on no image that is meant for a machine, and gdsboot-dma says of every answer that it came from here by
//! the symbol `gdsboot_simulated`.
//!
//! How it behaves is said by the first of these that is there:
//!
//! 1. the variable `GDSBOOT_SIMULATED`,
//! 2. `/sys/firmware/qemu_fw_cfg/by_name/opt/gdsboot-simulated/raw`, what QEMU was given by
//!    `-fw_cfg name=opt/gdsboot-simulated,string=…` (a comma is written twice there),
//! 3. `gdsboot-simulated.conf` in the folder that the library was loaded from.
//!
//! Each holds words `name=value` with commas, spaces or ends of lines between; `#` begins a comment. A word that is not in
//! this table ends the process with status 64 and a line that names it. Words with FUNCTION may stand there several times.
//!
//! | word | what it does |
//! |---|---|
//! | `route=nvfs`, `p2pdma`, `compat` | which route is there |
//! | `bounce=N` | every Nth transfer is copied by the CPU |
//! | `uncounted=N` | every Nth transfer is not counted |
//! | `corrupt=N` | every Nth transfer has a wrong byte |
//! | `lost=N` | every Nth transfer says that it was made, and was not |
//! | `short=N` | every Nth transfer is of half its bytes |
//! | `hang_after=N`, `crash_after=N` | the transfer after N others never returns |
//! | `error=FUNCTION:STATUS` | the function fails; a negative status of a transfer is an errno |
//! | `hang=FUNCTION`, `crash=FUNCTION`, `exit=FUNCTION` | the function never returns |
//! | `slow=FUNCTION:MICROSECONDS` | the function takes so much longer, at least; transfers are cuFileRead and cuFileWrite in every way to make them |
//! | `print=FUNCTION` | the function prints a line that looks like an answer to standard output |
//! | `stats=old`, `new`, `partial`, `strange` | how the counters are laid out |
//! | `anonymous=1` | the counters bear no UUID |
//! | `unforced=1` | cuFile takes the route, and counts it, also where it is told to copy by the CPU |
//! | `gpus=N` | how many GPUs there are, 0 to 16; 1 where neither this nor `pci` is there |
//! | `pci=ADDRESS/ADDRESS/…` | where they are, such as `0000:c1:00.0`; libcuda sorts them where it is told to |
//! | `celsius=N` | the GPUs' temperature |
//! | `slowed=BITS` | why their clocks are held down, by the bits of nvml.h; `0x` begins a hexadecimal number |
//! | `between=FILE` | cuFileBufDeregister adds a line to the file: how many ticks of the CPU's clock passed between the end of a cuFileRead and the beginning of the next one, how many from the first one's beginning to the last one's end, and how many calls there were, all of the thread that made the first |

#![allow(
    non_snake_case,
    clippy::missing_safety_doc,
    reason = "the vendor's names, and the vendor's contracts"
)]
#![cfg_attr(
    feature = "old",
    allow(dead_code, unused_imports, reason = "some is there for newer functions alone")
)]

mod batch;
mod behaviour;
mod between;
mod counters;
mod cuda;
mod cufile;
mod nvml;
mod streams;

use behaviour::behaviour;
use std::ffi::c_int;
use std::io::Write as _;
use std::time::Duration;

/// What makes it known for what it is.
#[unsafe(no_mangle)]
pub static gdsboot_simulated: u8 = 1;

/// What is wanted of a function: its status, 0 where it is to work.
pub fn enter(function: &str) -> c_int {
    let wanted = behaviour();
    if wanted.print.iter().any(|name| name == function) {
        let line = "{\"v\":1,\"id\":1,\"body\":{\"answer\":\"closed\"}}";
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    if let Some(time) = of(&wanted.slow, function) {
        std::thread::sleep(*time);
    }
    if wanted.hang.iter().any(|name| name == function) {
        hang();
    }
    if wanted.crash.iter().any(|name| name == function) {
        crash();
    }
    if wanted.exit.iter().any(|name| name == function) {
        std::process::exit(3);
    }
    of(&wanted.errors, function).copied().unwrap_or(0)
}

fn of<'a, T>(pairs: &'a [(String, T)], function: &str) -> Option<&'a T> {
    pairs.iter().find(|(name, _)| name == function).map(|(_, value)| value)
}

pub fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

pub fn crash() {
    // SAFETY: none; the process is meant to die here.
    unsafe { std::ptr::null_mut::<u8>().wrapping_add(8).write_volatile(1) };
}
