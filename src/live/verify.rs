//! Is the root what the command line says it is? Its bytes are read once, in large pieces, and hashed while the next
//! piece is being read.

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use std::io::Read;
use std::sync::mpsc::sync_channel;

/// One piece. Large enough for a disk to be fast, small enough for the CPU's cache.
const PIECE: usize = 1 << 20;
/// Pieces that are read and not hashed yet.
const AHEAD: usize = 4;

/// The SHA-256 of the first `size` bytes of `source`, hex. `progress` is called after each piece with the bytes so far.
pub fn sha256<R: Read + Send>(source: R, size: u64, mut progress: impl FnMut(u64)) -> anyhow::Result<String> {
    std::thread::scope(|scope| {
        let (send, receive) = sync_channel::<std::io::Result<Vec<u8>>>(AHEAD);
        scope.spawn(move || {
            let mut source = source.take(size);
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                let read = source.by_ref().take(PIECE as u64).read_to_end(&mut piece).map(|_| piece);
                let is_last = read.as_ref().map_or(true, Vec::is_empty);
                // The receiver is gone when it failed; that error is the one to report.
                if send.send(read).is_err() || is_last {
                    return;
                }
            }
        });
        let mut hash = Sha256::new();
        let mut done = 0;
        for piece in receive {
            let piece = piece.with_context(|| format!("reading the root at byte {done}"))?;
            hash.update(&piece);
            done += piece.len() as u64;
            progress(done);
        }
        if done < size {
            bail!("reading the root: it ends after {done} of {size} bytes");
        }
        Ok(hex::encode(hash.finalize()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_bytes_count() {
        let mut source = vec![b'a'; 3 * PIECE + 5];
        let expected = hex::encode(Sha256::digest(&source));
        let size = source.len() as u64;
        source.extend([0; 4096]);
        let mut seen = Vec::new();
        assert_eq!(sha256(&source[..], size, |done| seen.push(done)).unwrap(), expected);
        assert_eq!(seen.last(), Some(&size));
        assert!(seen.is_sorted());
    }

    #[test]
    fn a_root_that_ends_early_is_an_error() {
        let error = sha256(&b"short"[..], 6, |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "reading the root: it ends after 5 of 6 bytes");
    }

    #[test]
    fn a_disk_that_fails_is_an_error() {
        struct Bad;
        impl Read for Bad {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::from_raw_os_error(libc::EIO))
            }
        }
        let error = sha256(Bad, 6, |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "reading the root at byte 0");
    }
}
