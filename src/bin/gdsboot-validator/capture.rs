//! `capture`: takes a machine along.

use anyhow::Context as _;
use gdsboot::error::{Advise as _, Status, usage};
use gdsboot::facts::capture::capture;
use std::path::PathBuf;

/// Take along what can be read of this machine, to be judged elsewhere: check --root FILE
#[derive(Debug, clap::Args)]
pub struct CaptureArgs {
    /// The file to be made; one that exists is not overwritten
    #[arg(value_name = "FILE.tar.zst")]
    file: PathBuf,
    /// Replace serial numbers, UUIDs and world-wide names by hashes
    #[arg(long)]
    hash_serials: bool,
}

pub fn run(args: &CaptureArgs) -> anyhow::Result<Status> {
    let path = &args.file;
    if path.exists() {
        return Err(usage(format!("{} exists", path.display()), "name a file that does not exist yet"));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(".".as_ref());
    // Whole or not at all: a temporary file beside it, then a rename.
    let temp = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("making a file in {}", folder.display()))
        .hint("name a file in a folder that can be written to")
        .status(Status::Usage)?;
    let mut packed = zstd::Encoder::new(temp, 9).context("compressing the capture")?;
    let summary = capture(&mut packed, args.hash_serials)?;
    let temp = packed.finish().context("compressing the capture")?;
    temp.as_file().sync_all().with_context(|| format!("writing {}", path.display()))?;
    temp.persist_noclobber(path).with_context(|| format!("writing {}", path.display()))?;
    let mut text = format!("{}: {} entries", path.display(), summary.entries);
    if args.hash_serials {
        text += &format!(", {} serial numbers hashed", summary.hashed);
    }
    if summary.denied > 0 {
        text += &format!("; {} paths may not be read by this user (root may)", summary.denied);
    }
    super::print(format!("{text}\n").as_bytes())?;
    Ok(Status::Pass)
}
