//! What is written and must be found again: every 8 bytes depend on the seed and on their own place, so that a byte that
//! is wrong, stale, or at the wrong place is seen.

use super::offsets::random;
use std::fmt;

/// A pattern over a whole file or device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Another one for each run, so that an earlier run's data is no proof.
    pub seed: u64,
}

/// Data that is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where in the file or device, in bytes.
    pub offset: u64,
    /// The 8 bytes that were written there, as a little-endian number.
    pub wanted: u64,
    /// What was read.
    pub found: u64,
}

impl Pattern {
    fn word(self, index: u64) -> u64 {
        random(&mut (self.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Fills a buffer that will stand at `offset`, a multiple of 8.
    pub fn fill(self, buffer: &mut [u8], offset: u64) {
        for (index, word) in (offset / 8..).zip(buffer.chunks_mut(8)) {
            let bytes = self.word(index).to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
    }

    /// Compares a buffer that was read from `offset`, a multiple of 8.
    ///
    /// # Errors
    /// The first place that differs.
    pub fn check(self, buffer: &[u8], offset: u64) -> Result<(), Mismatch> {
        for (index, word) in (offset / 8..).zip(buffer.chunks(8)) {
            let wanted = self.word(index);
            let mut found = [0; 8];
            found[..word.len()].copy_from_slice(word);
            if word != &wanted.to_le_bytes()[..word.len()] {
                return Err(Mismatch { offset: index * 8, wanted, found: u64::from_le_bytes(found) });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, wanted, found } = self;
        write!(f, "at byte {offset}: {found:#018x} instead of {wanted:#018x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_fit_together_and_places_differ() {
        let pattern = Pattern { seed: 5 };
        let mut whole = vec![0; 8192];
        pattern.fill(&mut whole, 4096);
        let mut part = vec![0; 4096];
        pattern.fill(&mut part, 8192);
        assert_eq!(whole[4096..], part);
        assert_eq!(pattern.check(&whole, 4096), Ok(()));
        // A block that arrived at the wrong place, and one of an earlier run.
        assert!(pattern.check(&part, 4096).is_err());
        assert!(Pattern { seed: 6 }.check(&part, 8192).is_err());
        assert!(pattern.check(&[0; 512], 0).is_err());
    }

    proptest! {
        #[test]
        fn any_wrong_bit_is_found(seed: u64, at in 0_usize..4096, bit in 0_u32..8) {
            let pattern = Pattern { seed };
            let mut data = vec![0; 4096];
            pattern.fill(&mut data, 1 << 40);
            data[at] ^= 1 << bit;
            let mismatch = pattern.check(&data, 1 << 40).unwrap_err();
            prop_assert_eq!(mismatch.offset, (1 << 40) + at as u64 / 8 * 8);
        }
    }
}
