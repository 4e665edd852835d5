//! Reading a .deb (deb(5)): an ar archive of `debian-binary`, `control.tar[.x]`, `data.tar[.x]`.
//!
//! The data is read straight into entries whose bytes lie in one spool file; nothing is executed and nothing is written
//! at a path that the package chose. Compression is none, gzip, xz or zstd; further ar members that begin with `_`
//! (NVIDIA's `_gpgbuilder`) are passed over, as dpkg does.

use super::content::Content;
use super::tree::{Kind, Node};
use crate::error::hinted;
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::HashMap;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::Path;
use std::sync::Arc;

/// What a package's control file says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The stanza as it stands in the package, for the package database.
    pub text: String,
    /// `Package`.
    pub package: String,
    /// `Version`.
    pub version: String,
    /// `Architecture`.
    pub architecture: String,
    /// `Installed-Size` in KiB.
    pub installed_kib: Option<u64>,
    /// `Replaces`, names alone.
    pub replaces: Vec<String>,
    /// The file names in `conffiles`.
    pub conffiles: Vec<String>,
}

/// A package's content: entries in archive order, with the paths as the archive spells them.
#[derive(Debug)]
pub struct Package {
    /// Its control file.
    pub control: Control,
    /// Its files.
    pub entries: Vec<(String, Node)>,
}

/// Reads a package.
///
/// `keep` is asked for each path (without a leading `./`); the bytes of what is not kept are not stored. `spool` is the
/// folder for the file that holds the kept bytes; the file has no name.
///
/// # Errors
/// Anything that is not a well-formed package; a package that unpacks to far more than it declares.
pub fn read(deb: &Path, spool: &Path, keep: &dyn Fn(&str) -> bool) -> Result<Package> {
    let read = || -> Result<Package> {
        let file = fs_err::File::open(deb)?;
        let compressed = file.metadata()?.len();
        let mut archive = ar::Archive::new(BufReader::with_capacity(1 << 18, file));
        let mut control = None;
        let mut entries = None;
        let mut first = true;
        while let Some(member) = archive.next_entry() {
            let member = member.context("it is not an ar archive")?;
            let name = String::from_utf8_lossy(member.header().identifier()).trim_end_matches('/').to_owned();
            if std::mem::take(&mut first) {
                ensure!(name == "debian-binary", "its first member is {name:?} and not debian-binary");
                let mut version = String::new();
                member.take(16).read_to_string(&mut version).context("reading debian-binary")?;
                ensure!(version.starts_with("2."), "its format version {:?} is not 2.x", version.trim());
            } else if let Some(suffix) = name.strip_prefix("control.tar") {
                control = Some(read_control(decompress(member, suffix)?)?);
            } else if let Some(suffix) = name.strip_prefix("data.tar") {
                let control: &Control = control.as_ref().context("data.tar comes before control.tar")?;
                let limit = unpacked_limit(control.installed_kib, compressed);
                entries = Some(read_data(decompress(member, suffix)?, spool, limit, keep)?);
            } else if !name.starts_with('_') {
                bail!("it has an unknown member {name:?}");
            }
        }
        Ok(Package {
            control: control.context("it has no control.tar")?,
            entries: entries.context("it has no data.tar")?,
        })
    };
    read().with_context(|| format!("reading the package {}", deb.display()))
}

/// A package may unpack to what it declares plus a margin (`Installed-Size` counts in blocks and leaves out what
/// scripts make); one that declares nothing, to 100 times its own size. Whatever it declares, no real package packs its
/// files a thousandfold: an honest bomb fills a disk as well.
fn unpacked_limit(installed_kib: Option<u64>, compressed: u64) -> u64 {
    const MARGIN: u64 = 64 << 20;
    let limit = match installed_kib {
        Some(kib) => kib.saturating_mul(2048).min(compressed.saturating_mul(1000)),
        None => compressed.saturating_mul(100),
    };
    limit.saturating_add(MARGIN)
}

/// Memory that an xz stream may ask for: xz -9 needs 65 MiB per thread.
const XZ_MEMORY: u64 = 256 << 20;

fn decompress<'a>(member: impl Read + 'a, suffix: &str) -> Result<Box<dyn Read + 'a>> {
    Ok(match suffix {
        "" => Box::new(member),
        ".gz" => Box::new(flate2::read::MultiGzDecoder::new(member)),
        ".xz" => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::read::XzDecoder::new_stream(member, stream))
        }
        ".zst" => Box::new(zstd::Decoder::new(member).context("starting zstd")?),
        other => {
            return Err(hinted(
                format!("its compression {other:?} is not known"),
                "none, gz, xz and zst are",
            ));
        }
    })
}

/// A control archive is small; a larger one is not one.
const CONTROL_LIMIT: u64 = 16 << 20;

fn read_control(data: impl Read) -> Result<Control> {
    let mut archive = tar::Archive::new(data.take(CONTROL_LIMIT));
    let mut control = None;
    let mut conffiles = Vec::new();
    for entry in archive.entries().context("reading control.tar")? {
        let mut entry = entry.context("reading control.tar")?;
        let path = entry.path().context("reading control.tar")?.display().to_string();
        let mut text = String::new();
        match path.trim_start_matches("./") {
            "control" => {
                entry.read_to_string(&mut text).context("reading control")?;
                control = Some(parse_control(&text)?);
            }
            "conffiles" => {
                entry.read_to_string(&mut text).context("reading conffiles")?;
                conffiles.extend(text.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()));
            }
            _ => {}
        }
    }
    let mut control = control.context("control.tar has no control file")?;
    control.conffiles = conffiles;
    Ok(control)
}

/// Parses one stanza of deb-control(5).
///
/// # Errors
/// When `Package` or `Version` is missing.
pub fn parse_control(text: &str) -> Result<Control> {
    let fields = stanza(text);
    let get = |name: &str| fields.get(name).map(|v| v.trim().to_owned());
    let replaces = get("replaces").unwrap_or_default();
    let first_word = |item: &str| item.split([' ', '(', ':']).next().map(str::to_owned);
    Ok(Control {
        text: text.trim_end().to_owned(),
        package: get("package").context("the control file has no Package field")?,
        version: get("version").context("the control file has no Version field")?,
        architecture: get("architecture").unwrap_or_default(),
        installed_kib: get("installed-size").and_then(|v| v.parse().ok()),
        replaces: replaces
            .split(',')
            .filter_map(|item| first_word(item.trim()))
            .filter(|n| !n.is_empty())
            .collect(),
        conffiles: Vec::new(),
    })
}

/// The fields of one deb822 stanza, names in lower case, continuation lines joined by newlines.
pub fn stanza(text: &str) -> HashMap<String, String> {
    let mut fields: HashMap<String, String> = HashMap::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            if let Some(value) = current.as_ref().and_then(|name| fields.get_mut(name)) {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            let name = name.trim().to_ascii_lowercase();
            fields.insert(name.clone(), value.trim().to_owned());
            current = Some(name);
        }
    }
    fields
}

fn read_data(
    data: impl Read,
    spool: &Path,
    limit: u64,
    keep: &dyn Fn(&str) -> bool,
) -> Result<Vec<(String, Node)>> {
    let spool = tempfile::tempfile_in(spool)
        .with_context(|| format!("creating a temporary file in {}", spool.display()))?;
    let spool = Arc::new(spool);
    let mut writer = BufWriter::with_capacity(1 << 18, &*spool);
    let mut offset = 0;
    let mut total = 0_u64;
    let mut entries: Vec<(String, Node)> = Vec::new();
    let mut files: HashMap<String, Content> = HashMap::new();
    let mut archive = tar::Archive::new(Limited { inner: data, left: limit });
    let too_large = |path: &str| {
        hinted(
            format!("it unpacks to more than {limit} bytes (at {path})"),
            "the package declares a far smaller Installed-Size; it is not what it claims to be",
        )
    };
    for entry in archive.entries().context("reading data.tar")? {
        let mut entry = entry.context("reading data.tar")?;
        let header = entry.header().clone();
        let path = utf8(&entry.path_bytes(), "path")?;
        // The package database names one path a line.
        ensure!(!path.contains(char::is_control), "the path {path:?} holds a control character");
        let kind = header.entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let plain = path.trim_start_matches("./").to_owned();
        let field = |value: io::Result<u64>, what: &str| -> Result<u32> {
            let value = value.with_context(|| format!("reading the {what} of {path}"))?;
            u32::try_from(value).with_context(|| format!("the {what} of {path} is {value}"))
        };
        let node = |kind: Kind| -> Result<Node> {
            Ok(Node {
                kind,
                mode: header.mode().with_context(|| format!("reading the mode of {path}"))? & 0o7777,
                uid: field(header.uid(), "owner")?,
                gid: field(header.gid(), "group")?,
            })
        };
        let link_target = || -> Result<String> {
            let target = entry.link_name_bytes().with_context(|| format!("the link {path} has no target"))?;
            utf8(&target, "link target")
        };
        if kind.is_dir() {
            if keep(plain.trim_end_matches('/')) {
                entries.push((path.clone(), node(Kind::Directory)?));
            }
        } else if kind.is_symlink() {
            let target = link_target()?;
            if keep(&plain) {
                entries.push((path.clone(), node(Kind::Symlink(target))?));
            }
        } else if kind.is_hard_link() {
            let target = link_target()?;
            if keep(&plain) {
                let content = files.get(target.trim_start_matches("./")).with_context(|| {
                    format!(
                        "{path} is a hard link to {target}, which is not kept or not in the package before it"
                    )
                })?;
                let content = content.clone();
                files.insert(plain, content.clone());
                entries.push((path.clone(), node(Kind::File(content))?));
            }
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            total = total.saturating_add(entry.size());
            if total > limit {
                return Err(too_large(&path));
            }
            let len = entry.size();
            if keep(&plain) {
                let placeless = node(Kind::Directory)?;
                let copied =
                    io::copy(&mut entry, &mut writer).with_context(|| format!("unpacking {path}"))?;
                ensure!(copied == len, "{path} is cut short: {copied} of {len} bytes");
                let content = Content::Slice { file: spool.clone(), offset, len };
                offset += len;
                files.insert(plain, content.clone());
                entries.push((path, Node { kind: Kind::File(content), ..placeless }));
            }
        } else if kind.is_character_special() || kind.is_block_special() || kind.is_fifo() {
            bail!("{path} is a device or a pipe, which no package of ours ships");
        } else {
            bail!("{path} is of the unknown tar type {:?}", char::from(kind.as_byte()));
        }
    }
    writer.flush().context("writing a spool file")?;
    drop(writer);
    Ok(entries)
}

fn utf8(bytes: &[u8], what: &str) -> Result<String> {
    String::from_utf8(bytes.to_vec())
        .with_context(|| format!("the {what} {:?} is not UTF-8", String::from_utf8_lossy(bytes)))
}

/// Ends with an error instead of going on for ever.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other("it unpacks to far more than its Installed-Size")),
        }
        Ok(n)
    }
}
