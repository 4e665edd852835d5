//! The drives of a machine file that are not the image: files of their own, made for one boot.

use super::machine::{DataDrive, Holds};
use crate::bench::transfer::pattern::Pattern;
use crate::error::Advise as _;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// Bytes that are written at a time.
const CHUNK: usize = 1 << 20;

/// Makes the files of all drives in a folder, in their order.
///
/// # Errors
/// There is no room.
pub fn make(drives: &[DataDrive], folder: &Path) -> Result<Vec<PathBuf>> {
    (0..).zip(drives).map(|(number, drive)| make_one(number, drive, folder)).collect()
}

fn make_one(number: u64, drive: &DataDrive, folder: &Path) -> Result<PathBuf> {
    let path = folder.join(format!("data{number}.img"));
    let write = || -> Result<()> {
        let file = File::create_new(&path)?;
        file.set_len(drive.bytes())?;
        if drive.holds == Holds::Nothing {
            return Ok(());
        }
        // No two blocks are alike, so that a block of another place is seen.
        let pattern = Pattern { seed: number };
        let mut out = BufWriter::new(file);
        let mut chunk = vec![0; CHUNK];
        for offset in (0..drive.bytes()).step_by(CHUNK) {
            pattern.fill(&mut chunk, offset);
            out.write_all(&chunk)?;
        }
        Ok(out.flush()?)
    };
    write()
        .with_context(|| format!("making {}", path.display()))
        .hint("the folder for temporary files needs room for the machine's drives: set TMPDIR, or name one with --keep")?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smoke::machine::DriveKind;

    #[test]
    fn drives_hold_what_their_file_says() {
        let dir = tempfile::tempdir().unwrap();
        let drive = |holds| DataDrive {
            serial: "S".into(),
            size_mib: 2,
            block: 512,
            holds,
            kind: DriveKind::Nvme,
            behind: None,
            bad_sector: None,
            bytes_per_second: None,
            unplug: None,
        };
        let paths = make(&[drive(Holds::Data), drive(Holds::Nothing)], dir.path()).unwrap();
        let data = fs_err::read(&paths[0]).unwrap();
        assert_eq!((data.len(), Pattern { seed: 0 }.check(&data, 0)), (2 << 20, Ok(())));
        assert!(fs_err::read(&paths[1]).unwrap() == vec![0; 2 << 20]);
        assert!(make(&[drive(Holds::Nothing)], dir.path()).is_err(), "nothing is overwritten");
    }
}
