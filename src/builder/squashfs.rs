//! tree -> squashfs, through sqfstar(1) of the tools root: a tar stream goes in, nothing is unpacked.
//!
//! sqfstar keeps what the tar says (owners, modes, times), so no root is needed; since squashfs-tools 4.4 its output
//! depends on its input alone, whatever the number of processors (squashfs-tools, `README-4.6.1`, "reproducible
//! filesystem images").

use super::sandbox::Sandbox;
use super::tree::Tree;
use crate::interrupt;
use crate::progress::{Progress, Stage, Unit};
use anyhow::{Context as _, Result};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::Path;
use std::process::Stdio;

/// Bytes per block. The largest that squashfs has would compress better and make every small read expensive.
const BLOCK: &str = "256K";

/// Writes a squashfs to `out`, which must not exist. Every time in it is `epoch`.
pub fn write(
    tree: &Tree,
    out: &Path,
    tools: &Sandbox,
    epoch: u64,
    level: Option<u32>,
    progress: &Progress,
) -> Result<()> {
    let folder = out.parent().context("the squashfs has no folder")?;
    let name = out.file_name().context("the squashfs has no name")?;
    let total =
        tree.iter().map(|(_, n)| if let super::tree::Kind::File(c) = &n.kind { c.len() } else { 0 }).sum();
    let stage = progress.stage("compressing the root", total, Unit::Bytes);
    let (errors, error_writer) = io::pipe().context("making a pipe")?;
    let mut command = tools.clone().bind(folder, "/out", true).command("/usr/bin/sqfstar").args([
        "-quiet",
        "-no-progress",
        "-comp",
        "zstd",
    ]);
    if let Some(level) = level {
        command = command.args(["-Xcompression-level", &level.to_string()]);
    }
    let command = command
        // The root folder is not in the stream: its time would be that of the build.
        .args(["-b", BLOCK, "-mkfs-time", &epoch.to_string(), "-all-time", &epoch.to_string()])
        .arg(Path::new("/out").join(name))
        .stdin(Stdio::piped());
    let mut child = command.spawn(Stdio::null(), error_writer)?;
    let stdin = child.stdin.take().context("sqfstar has no standard input")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let mut errors = errors;
        errors.read_to_string(&mut text).map(|_| text)
    });
    let written = tree
        .write_tar(BufWriter::with_capacity(1 << 20, Counted { inner: stdin, stage: stage.clone() }), epoch);
    if interrupt::requested() {
        child.kill().ok();
    }
    let status = child.wait().context("waiting for sqfstar")?;
    drop(stage);
    let errors = reader.join().ok().and_then(Result::ok).unwrap_or_default();
    interrupt::check()?;
    // When sqfstar stops, writing to it fails too; what it said is the reason.
    anyhow::ensure!(status.success(), "sqfstar failed ({status}): {}", errors.trim());
    written.context("feeding sqfstar")
}

struct Counted<W> {
    inner: W,
    stage: Stage,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if interrupt::requested() {
            return Err(io::Error::other("interrupted"));
        }
        let n = self.inner.write(buf)?;
        self.stage.advance(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
