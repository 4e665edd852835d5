//! The initramfs: the validator as `/init`, and only the modules that are needed to find the disk.
//!
//! gdsboot's own programs travel here and not in the root, so that a new validator does not mean a new root. Format: cpio
//! "newc" (Documentation/driver-api/early-userspace/buffer-format.rst), sorted, numbered from 1, all times 0, compressed
//! with zstd.

use super::content::Content;
use super::tree::{Kind, Node, Tree};
use crate::boot_contract as contract;
use anyhow::{Context as _, Result};
use std::io::Write as _;

/// zstd level: the kernel unpacks any of them at the same speed.
const LEVEL: i32 = 15;

/// What goes into it.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The static validator.
    pub validator: Content,
    /// The dynamic worker.
    pub dma: Content,
    /// The image's manifest as JSON.
    pub manifest: Vec<u8>,
    /// The kernel's release.
    pub release: &'a str,
    /// Modules in load order: file name, plain ELF file.
    pub modules: &'a [(String, Content)],
}

/// Builds the compressed initramfs.
pub fn build(inputs: &Inputs<'_>) -> Result<Vec<u8>> {
    let archive = newc(&tree(inputs)?)?;
    let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL).context("starting zstd")?;
    encoder.include_checksum(true).context("starting zstd")?;
    encoder.write_all(&archive).context("compressing the initramfs")?;
    encoder.finish().context("compressing the initramfs")
}

fn tree(inputs: &Inputs<'_>) -> Result<Tree> {
    let mut tree = Tree::new();
    for folder in ["dev", "proc", "root", "run", "sys"] {
        tree.insert_directory(folder)?;
    }
    // The kernel opens /dev/console for init's standard streams before init has mounted anything.
    let console = Kind::CharDevice { major: 5, minor: 1 };
    tree.insert("dev/console", Node { kind: console, mode: 0o600, uid: 0, gid: 0 })?;
    tree.insert_program(contract::INITRAMFS_INIT, inputs.validator.clone())?;
    tree.insert_program(contract::INITRAMFS_DMA, inputs.dma.clone())?;
    tree.insert_file(contract::INITRAMFS_MANIFEST, inputs.manifest.clone())?;
    let mut list = String::new();
    for (file, content) in inputs.modules {
        let path = format!("usr/lib/modules/{}/{file}", inputs.release);
        tree.insert_file(&path, content.clone())?;
        list.push_str(&format!("/{path}\n"));
    }
    tree.insert_file(contract::INITRAMFS_MODULES, list.into_bytes())?;
    Ok(tree)
}

/// A tree as a cpio archive.
fn newc(tree: &Tree) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for (number, (path, node)) in tree.iter().enumerate() {
        let (file_type, data, device) = match &node.kind {
            Kind::Directory => (0o040_000, Vec::new(), (0, 0)),
            Kind::File(content) => {
                (0o100_000, content.read().with_context(|| format!("reading {path}"))?, (0, 0))
            }
            Kind::Symlink(target) => (0o120_000, target.clone().into_bytes(), (0, 0)),
            Kind::CharDevice { major, minor } => (0o020_000, Vec::new(), (*major, *minor)),
        };
        let links = if matches!(node.kind, Kind::Directory) { 2 } else { 1 };
        let number = u32::try_from(number + 1).context("too many files for an initramfs")?;
        header(&mut out, path, number, file_type | node.mode, links, &data, device)?;
    }
    header(&mut out, "TRAILER!!!", 0, 0, 1, &[], (0, 0))?;
    Ok(out)
}

fn header(
    out: &mut Vec<u8>,
    path: &str,
    number: u32,
    mode: u32,
    links: u32,
    data: &[u8],
    device: (u32, u32),
) -> Result<()> {
    let size = u32::try_from(data.len()).with_context(|| format!("{path} is too large for an initramfs"))?;
    let name_size = u32::try_from(path.len() + 1).context("a path is too long for an initramfs")?;
    out.extend_from_slice(b"070701");
    // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    for field in [number, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0] {
        write!(out, "{field:08x}").context("writing a cpio header")?;
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(data);
    pad(out);
    Ok(())
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_what_cpio_reads() {
        let inputs = Inputs {
            validator: b"init".to_vec().into(),
            dma: b"dma".to_vec().into(),
            manifest: b"{}".to_vec(),
            release: "6.1",
            modules: &[],
        };
        let compressed = build(&inputs).unwrap();
        assert_eq!(compressed, build(&inputs).unwrap());
        let archive = zstd::decode_all(&compressed[..]).unwrap();
        // An independent reading of the format: fixed header, name, data, each padded to four bytes.
        let mut at = 0;
        let mut names = Vec::new();
        loop {
            assert_eq!(&archive[at..at + 6], b"070701");
            let field = |i: usize| {
                let text = std::str::from_utf8(&archive[at + 6 + 8 * i..at + 14 + 8 * i]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = std::str::from_utf8(&archive[at + 110..at + 110 + name_size - 1]).unwrap();
            if name == "TRAILER!!!" {
                break;
            }
            names.push(format!("{mode:o} {size} {name}"));
            at = (at + 110 + name_size).next_multiple_of(4);
            at = (at + size).next_multiple_of(4);
        }
        insta::assert_snapshot!(names.join("\n"));
    }
}
