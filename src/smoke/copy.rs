//! A copy of an image for one boot. Holes stay holes; on a filesystem that shares extents nothing is copied at all
//! (copy_file_range(2), which `std::io::copy` uses between files). The original is only read.

use crate::error::Advise as _;
use crate::extents::next_data;
use crate::interrupt;
use crate::progress::Stage;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Between two looks at whether the user interrupts.
const CHUNK: u64 = 64 << 20;

/// Copies the file `from` to the new file `to`; `stage` counts the bytes, holes included.
pub fn sparse(from: &Path, to: &Path, stage: &Stage) -> Result<()> {
    let context = || format!("copying {} to {}", from.display(), to.display());
    let source = File::open(from).with_context(context)?;
    let size = source.metadata().with_context(context)?.len();
    let target = File::create_new(to).with_context(context)?;
    extents(&source, &target, size, stage)
        .with_context(context)
        .hint("the folder for temporary files needs room for the image: set TMPDIR, or name one with --keep")
}

fn extents(mut source: &File, mut target: &File, size: u64, stage: &Stage) -> Result<()> {
    target.set_len(size)?;
    let mut at = 0;
    while let Some((start, end)) = next_data(source, at, size)? {
        stage.advance(start - at);
        at = start;
        while at < end {
            interrupt::check()?;
            source.seek(SeekFrom::Start(at))?;
            target.seek(SeekFrom::Start(at))?;
            let copied = io::copy(&mut source.take(CHUNK.min(end - at)), &mut target)?;
            anyhow::ensure!(copied > 0, "the file became shorter while it was read");
            at += copied;
            stage.advance(copied);
        }
    }
    stage.advance(size - at);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{Progress, Unit};
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    #[test]
    fn the_copy_has_the_same_bytes_and_the_same_holes() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(&[9; 10_000], 33 << 20).unwrap();
        sparse(&from, &to, &Progress::none().stage("copy", 0, Unit::Bytes)).unwrap();
        assert!(fs_err::read(&from).unwrap() == fs_err::read(&to).unwrap());
        let blocks = fs_err::metadata(&to).unwrap().blocks();
        assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
    }

    #[test]
    fn files_of_one_hole_and_of_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for (name, size) in [("hole", 1 << 20), ("empty", 0)] {
            let (from, to) = (folder.path().join(name), folder.path().join(format!("{name}-copy")));
            File::create(&from).unwrap().set_len(size).unwrap();
            sparse(&from, &to, &Progress::none().stage("copy", 0, Unit::Bytes)).unwrap();
            assert_eq!(fs_err::metadata(&to).unwrap().len(), size);
        }
    }

    #[test]
    fn an_existing_target_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        fs_err::write(&from, "new").unwrap();
        fs_err::write(&to, "old").unwrap();
        let stage = Progress::none().stage("copy", 0, Unit::Bytes);
        assert!(sparse(&from, &to, &stage).unwrap_err().to_string().starts_with("copying "));
        assert_eq!(fs_err::read(&to).unwrap(), b"old");
    }
}
