//! What cuFile counts of its transfers, for each GPU (`CUfileStatsLevel3_t`).

use crate::behaviour::{Layout, MOST_GPUS, behaviour};
use crate::cufile::error;
use crate::enter;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

static COUNTING: AtomicBool = AtomicBool::new(false);
/// For each GPU, of reads and of writes: bytes, all, p2p, nvfs, posix, errors.
static COUNTERS: [[[AtomicU64; 6]; 2]; MOST_GPUS] =
    [const { [const { [const { AtomicU64::new(0) }; 6] }; 2] }; MOST_GPUS];
/// Where these are in CUfilePerGpuStats_t.
const OFFSETS: [[usize; 6]; 2] = [[16, 48, 56, 64, 72, 112], [120, 152, 160, 168, 176, 200]];
/// sizeof(CUfilePerGpuStats_t)
const GPU_BYTES: usize = 248;

/// By which way a transfer went: the place of its counter.
#[derive(Clone, Copy)]
pub enum Way {
    P2p = 2,
    Nvfs = 3,
    Posix = 4,
}

/// Counts a transfer that was made.
pub fn count(gpu: usize, write: bool, way: Way, bytes: usize) {
    if COUNTING.load(Relaxed) {
        let counters = &COUNTERS[gpu][usize::from(write)];
        counters[0].fetch_add(bytes as u64, Relaxed);
        counters[1].fetch_add(1, Relaxed);
        counters[way as usize].fetch_add(1, Relaxed);
    }
}

/// Counts one that failed.
pub fn count_error(gpu: usize, write: bool) {
    if COUNTING.load(Relaxed) {
        COUNTERS[gpu][usize::from(write)][5].fetch_add(1, Relaxed);
    }
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub extern "C" fn cuFileSetStatsLevel(_level: c_int) -> u64 {
    error(enter("cuFileSetStatsLevel"))
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub extern "C" fn cuFileStatsStart() -> u64 {
    COUNTING.store(true, Relaxed);
    error(enter("cuFileStatsStart"))
}

#[cfg(not(feature = "old"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileGetStatsL3(stats: *mut u8) -> u64 {
    let wanted = behaviour();
    let gpus = &wanted.gpus;
    let (length, count) = match wanted.layout {
        Layout::Old => (5000, 1024),
        Layout::New => (5112, 1136),
        Layout::Partial => (1136 + 8 + gpus.len() * GPU_BYTES, 1136),
        Layout::Strange => (5200, 1200),
    };
    let mut bytes = vec![0; length];
    bytes[count] = gpus.len() as u8;
    for ((place, gpu), counters) in bytes[count + 8..].chunks_mut(GPU_BYTES).zip(gpus).zip(&COUNTERS) {
        if !wanted.anonymous {
            place[..16].copy_from_slice(&gpu.uuid);
        }
        for (offset, counter) in OFFSETS.as_flattened().iter().zip(counters.as_flattened()) {
            place[*offset..][..8].copy_from_slice(&counter.load(Relaxed).to_le_bytes());
        }
    }
    unsafe { stats.copy_from(bytes.as_ptr(), length) };
    error(enter("cuFileGetStatsL3"))
}
