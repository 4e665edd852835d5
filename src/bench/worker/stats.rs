//! cuFile's counters as its library writes them: `CUfileStatsLevel3_t` of cufile.h. Two layouts are about, and none says
//! which it is: between GDS 1.16 and 1.20 the structure grew by 112 bytes before the counters of the GPUs. The caller
//! fills a larger buffer with [`SENTINEL`], and how far the library wrote tells them apart.

use super::{Counters, GpuCounters, OpCounters};

/// More than any layout that is known.
pub const BUFFER: usize = 16384;
/// What the buffer holds before the call. Counters that are all this byte do not occur.
pub const SENTINEL: u8 = 0xa7;

/// `sizeof(CUfilePerGpuStats_t)`, and how many of them there are.
const GPU_BYTES: usize = 248;
const GPUS: usize = 16;

struct Layout {
    bytes: usize,
    /// `num_gpus`; the GPUs follow 8 bytes later.
    count: usize,
}

const OLD: Layout = Layout { bytes: 5000, count: 1024 };
const NEW: Layout = Layout { bytes: 5112, count: 1136 };

/// Reads what the library wrote into a buffer of [`BUFFER`] bytes.
///
/// # Errors
/// The layout is neither of those that are known: no counter is better than a wrong one.
pub fn parse(buffer: &[u8]) -> Result<Counters, String> {
    let written = buffer.iter().rposition(|byte| *byte != SENTINEL).map_or(0, |last| last + 1);
    let number =
        |at: usize| -> Option<u64> { Some(u64::from_le_bytes(buffer.get(at..at + 8)?.try_into().ok()?)) };
    let count = |layout: &Layout| number(layout.count).map_or(0, |both| both & 0xffff_ffff) as usize;
    // All of the structure, or as much as there are GPUs: no length stands for both layouts.
    let fits = |layout: &Layout| {
        let count = count(layout);
        count <= GPUS && [layout.bytes, layout.count + 8 + count * GPU_BYTES].contains(&written)
    };
    let layout = [OLD, NEW].into_iter().find(fits);
    let layout = layout.ok_or_else(|| {
        format!("cuFile wrote {written} bytes of counters, not {} or {} as is known", OLD.bytes, NEW.bytes)
    })?;
    let count = count(&layout);
    let mut counters = Counters { layout: format!("{} bytes", layout.bytes), ..Counters::default() };
    for index in 0..count {
        let at = layout.count + 8 + index * GPU_BYTES;
        let field = |offset: usize| number(at + offset).unwrap_or_default();
        let gpu = GpuCounters {
            reads: OpCounters {
                bytes: field(16),
                total: field(48),
                p2p: field(56),
                nvfs: field(64),
                posix: field(72),
                errors: field(112),
            },
            writes: OpCounters {
                bytes: field(120),
                total: field(152),
                p2p: field(160),
                nvfs: field(168),
                posix: field(176),
                errors: field(200),
            },
        };
        counters.gpus.insert(hex::encode(&buffer[at..at + 16]), gpu);
    }
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A structure of one GPU whose fields hold their own offsets.
    fn written(layout: &Layout) -> Vec<u8> {
        let mut buffer = vec![SENTINEL; BUFFER];
        buffer[..layout.bytes].fill(0);
        buffer[layout.count] = 1;
        let at = layout.count + 8;
        for offset in (16..GPU_BYTES).step_by(8) {
            buffer[at + offset..][..8].copy_from_slice(&(offset as u64).to_le_bytes());
        }
        buffer[at] = 0xab;
        buffer
    }

    #[test]
    fn both_layouts_are_told_apart_and_read() {
        for layout in [OLD, NEW] {
            let counters = parse(&written(&layout)).unwrap();
            assert_eq!(counters.layout, format!("{} bytes", layout.bytes));
            let gpu = counters.gpus["ab000000000000000000000000000000"];
            let reads = OpCounters { bytes: 16, total: 48, p2p: 56, nvfs: 64, posix: 72, errors: 112 };
            let writes = OpCounters { bytes: 120, total: 152, p2p: 160, nvfs: 168, posix: 176, errors: 200 };
            assert_eq!((gpu.reads, gpu.writes), (reads, writes));
            let mut partly = written(&layout);
            partly[layout.count + 8 + GPU_BYTES..].fill(SENTINEL);
            assert_eq!(parse(&partly).unwrap(), counters);
        }
    }

    #[test]
    fn a_layout_that_is_not_known_has_no_counters() {
        let mut longer = written(&NEW);
        longer[5115] = 0;
        assert!(parse(&longer).unwrap_err().contains("5116 bytes"));
        assert!(parse(&vec![SENTINEL; BUFFER]).unwrap_err().contains("wrote 0 bytes"));
        assert!(parse(&vec![0; BUFFER]).is_err() && parse(&[]).is_err());
        let mut many = written(&OLD);
        many[OLD.count] = 17;
        assert!(parse(&many).unwrap_err().contains("5000 bytes"));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..5200)) {
            let _ = parse(&bytes);
        }
    }
}
