//! Writes a .deb byte by byte, honest or not: nothing here refuses a path, a size or a link that a real package must not
//! have. Format: deb(5), ar with `debian-binary`, `control.tar*`, `data.tar*`; the tars are GNU's, as dpkg-deb makes them.

use super::hash;
use super::stanza::Stanza;
use std::collections::BTreeSet;
use std::io::{Read, Write as _};
use std::path::Path;
use std::sync::Arc;

/// How a member of a .deb is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// `dpkg-deb -Znone`: the member is called plain `data.tar`. Ubuntu's kernel packages since 23.10.
    None,
    /// `.gz`.
    Gzip,
    /// `.xz`: Debian's default, and some of Ubuntu's packages.
    Xz,
    /// `.zst`: Ubuntu's default since 21.10.
    Zstd,
}

impl Compression {
    /// What follows `data.tar`.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
        }
    }

    /// Compresses, at the fastest level. Results may be joined: all three formats allow several streams in a row.
    pub fn compress(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::None => bytes.to_vec(),
            Self::Gzip => {
                let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                out.write_all(bytes).unwrap();
                out.finish().unwrap()
            }
            Self::Xz => {
                let mut out = liblzma::write::XzEncoder::new(Vec::new(), 0);
                out.write_all(bytes).unwrap();
                out.finish().unwrap()
            }
            // With the size in the frame's head: kmod reads no module without it.
            Self::Zstd => zstd::bulk::compress(bytes, 1).unwrap(),
        }
    }

    /// The reverse, for a member's or a module's name.
    pub fn decompress(name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match name.rsplit('.').next() {
            Some("gz") => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).map(drop),
            Some("xz") => liblzma::read::XzDecoder::new_multi_decoder(bytes).read_to_end(&mut out).map(drop),
            Some("zst") => zstd::stream::copy_decode(bytes, &mut out),
            _ => return bytes.to_vec(),
        }
        .unwrap_or_else(|e| panic!("decompressing {name}: {e}"));
        out
    }
}

/// What an entry of a tar is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A regular file.
    File(Arc<[u8]>),
    /// A directory.
    Dir,
    /// A symbolic link to this text.
    Symlink(String),
    /// A hard link to this member, written as it stands here.
    Hardlink(String),
    /// GNU's old sparse format: (offset, bytes) of the parts that are there, and the file's whole length.
    Sparse(Vec<(u64, Vec<u8>)>, u64),
    /// A regular file whose header claims this many bytes, and the bytes that really follow.
    Claims(u64, Vec<u8>),
    /// A regular file of this many zeros, compressed piecewise so that no memory is needed to write it.
    Zeros(u64),
    /// A named pipe.
    Fifo,
    /// A character device, major and minor.
    Char(u32, u32),
}

/// One entry of a tar.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As written, `./` included. Directories end in `/`.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: u64,
}

impl Entry {
    /// A path taken as it is, owned by root; 0755 for directories, 0777 for links, else 0644.
    pub fn raw(path: impl Into<String>, kind: Kind) -> Self {
        let mode = match kind {
            Kind::Dir => 0o755,
            Kind::Symlink(_) => 0o777,
            _ => 0o644,
        };
        Self { path: path.into(), kind, mode, uid: 0, gid: 0, mtime: 1_700_000_000 }
    }

    /// An entry as dpkg-deb writes it: `path` gets its leading `./`, a directory its trailing slash.
    pub fn new(path: &str, kind: Kind) -> Self {
        let slash = if matches!(kind, Kind::Dir) && !path.is_empty() { "/" } else { "" };
        Self::raw(format!("./{path}{slash}"), kind)
    }

    /// With other permission bits.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
}

/// A .deb in the making.
#[derive(Clone, Debug)]
pub struct Deb {
    /// Its `control`.
    pub control: Stanza,
    /// Further files of the control archive, such as `postinst`, with their mode.
    pub scripts: Vec<(String, u32, Vec<u8>)>,
    /// What it installs, in the order in which it is written.
    pub data: Vec<Entry>,
    /// Compression of `control.tar`.
    pub control_compression: Compression,
    /// Compression of `data.tar`.
    pub data_compression: Compression,
    /// Further members of the ar, after the data.
    pub extra_members: Vec<(String, Vec<u8>)>,
}

impl Deb {
    /// A package of one version for amd64, zstd-compressed, with no files yet.
    pub fn new(name: &str, version: &str) -> Self {
        let mut control = Stanza::new();
        control
            .set("Package", name)
            .set("Version", version)
            .set("Architecture", "amd64")
            .set("Maintainer", "Archive Test <archive@example.invalid>")
            .set("Section", "misc")
            .set("Priority", "optional")
            .set("Description", format!("test package {name}\n It stands in for the real one.").as_str());
        Self {
            control,
            scripts: Vec::new(),
            data: Vec::new(),
            control_compression: Compression::Zstd,
            data_compression: Compression::Zstd,
            extra_members: Vec::new(),
        }
    }

    /// Sets a control field; an empty value removes it.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.control.set(name, (!value.is_empty()).then_some(value));
        self
    }

    /// Sets `Depends`.
    pub fn depends(self, value: &str) -> Self {
        self.field("Depends", value)
    }

    /// Sets both compressions.
    pub fn compress(mut self, compression: Compression) -> Self {
        (self.control_compression, self.data_compression) = (compression, compression);
        self
    }

    /// Adds a regular file, mode 0644; `path` without a leading slash.
    pub fn file(self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.entry(Entry::new(path, Kind::File(bytes.into().into())))
    }

    /// Adds a program.
    pub fn program(self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.entry(Entry::new(path, Kind::File(bytes.into().into())).mode(0o755))
    }

    /// Adds a directory.
    pub fn dir(self, path: &str) -> Self {
        self.entry(Entry::new(path, Kind::Dir))
    }

    /// Adds a symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(Entry::new(path, Kind::Symlink(target.to_owned())))
    }

    /// Adds a hard link to another path of this package.
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(Entry::new(path, Kind::Hardlink(format!("./{target}"))))
    }

    /// Adds an entry as it is.
    pub fn entry(mut self, entry: Entry) -> Self {
        self.data.push(entry);
        self
    }

    /// Adds a maintainer script that fails if anybody runs it.
    pub fn script(mut self, name: &str) -> Self {
        let text = "#!/bin/sh\necho \"maintainer scripts are not run here\" >&2\nexit 1\n";
        self.scripts.push((name.to_owned(), 0o755, text.into()));
        self
    }

    /// Its package name.
    pub fn name(&self) -> &str {
        self.control.need("Package")
    }

    /// Its version.
    pub fn version(&self) -> &str {
        self.control.need("Version")
    }

    /// Its control, with `Installed-Size` in KiB.
    pub fn finished_control(&self) -> Stanza {
        let size: u64 = self
            .data
            .iter()
            .map(|entry| match &entry.kind {
                Kind::File(bytes) => (bytes.len() as u64).div_ceil(1024),
                Kind::Zeros(len) => len.div_ceil(1024),
                _ => 1,
            })
            .sum();
        let mut control = self.control.clone();
        if control.get("Installed-Size").is_none() {
            control.set("Installed-Size", size.to_string().as_str());
        }
        control
    }

    /// The .deb.
    pub fn bytes(&self) -> Vec<u8> {
        let mut control = Tar::new(self.control_compression);
        control.write(&Entry::new("", Kind::Dir));
        let text = self.finished_control().to_string();
        control.write(&Entry::new("control", Kind::File(text.into_bytes().into())));
        let sums = self.md5sums();
        if !sums.is_empty() {
            control.write(&Entry::new("md5sums", Kind::File(sums.into_bytes().into())));
        }
        for (name, mode, bytes) in &self.scripts {
            control.write(&Entry::new(name, Kind::File(bytes.clone().into())).mode(*mode));
        }

        let mut data = Tar::new(self.data_compression);
        data.write(&Entry::new("", Kind::Dir));
        let mut seen = BTreeSet::from([String::from("./")]);
        for entry in &self.data {
            // dpkg-deb lists every parent; a hostile path stands alone.
            if entry.path.starts_with("./") && !entry.path.contains("/../") {
                let parents: Vec<_> =
                    entry.path.match_indices('/').map(|(at, _)| &entry.path[..=at]).collect();
                for parent in parents {
                    if parent != entry.path && seen.insert(parent.to_owned()) {
                        data.write(&Entry::raw(parent, Kind::Dir));
                    }
                }
            }
            seen.insert(entry.path.clone());
            data.write(entry);
        }

        let mut members = vec![
            ("debian-binary".to_owned(), b"2.0\n".to_vec()),
            (format!("control.tar{}", self.control_compression.suffix()), control.finish()),
            (format!("data.tar{}", self.data_compression.suffix()), data.finish()),
        ];
        members.extend(self.extra_members.iter().cloned());
        ar(&members)
    }

    fn md5sums(&self) -> String {
        let mut text = String::new();
        for entry in &self.data {
            if let (Kind::File(bytes), Some(path)) = (&entry.kind, entry.path.strip_prefix("./")) {
                text.push_str(&format!("{}  {path}\n", hash::md5(bytes)));
            }
        }
        text
    }

    /// Reads a .deb back: its control, its scripts and its files. Both members keep their compression.
    pub fn read(path: &Path) -> Self {
        let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self::parse(file)
    }

    /// As [`Deb::read`], from any reader.
    pub fn parse(reader: impl Read) -> Self {
        let mut deb = Self::new("unread", "0");
        let mut archive = ar::Archive::new(reader);
        while let Some(member) = archive.next_entry() {
            let mut member = member.unwrap();
            let name = String::from_utf8(member.header().identifier().to_vec()).unwrap();
            let name = name.trim_end_matches('/').to_owned();
            let mut bytes = Vec::new();
            member.read_to_end(&mut bytes).unwrap();
            let compression = [Compression::Gzip, Compression::Xz, Compression::Zstd]
                .into_iter()
                .find(|c| name.ends_with(c.suffix()))
                .unwrap_or(Compression::None);
            if name.starts_with("control.tar") {
                deb.control_compression = compression;
                for entry in read_tar(&Compression::decompress(&name, &bytes)) {
                    let Kind::File(bytes) = entry.kind else { continue };
                    match entry.path.trim_start_matches("./") {
                        "control" => deb.control = Stanza::parse(std::str::from_utf8(&bytes).unwrap()),
                        "md5sums" => {}
                        other => deb.scripts.push((other.to_owned(), entry.mode, bytes.to_vec())),
                    }
                }
            } else if name.starts_with("data.tar") {
                deb.data_compression = compression;
                deb.data = read_tar(&Compression::decompress(&name, &bytes));
                deb.data.retain(|entry| entry.path != "./");
            } else if name != "debian-binary" {
                deb.extra_members.push((name, bytes));
            }
        }
        deb
    }

    /// The same files at other paths. `new_path` gets and gives a path without `./`; `None` drops the entry.
    pub fn move_files(mut self, new_path: impl Fn(&str) -> Option<String>) -> Self {
        let strip = |path: &str| path.trim_start_matches("./").trim_end_matches('/').to_owned();
        self.data.retain_mut(|entry| match new_path(&strip(&entry.path)) {
            Some(path) => {
                let slash = if matches!(entry.kind, Kind::Dir) { "/" } else { "" };
                entry.path = format!("./{path}{slash}");
                if let Kind::Hardlink(target) = &mut entry.kind {
                    *target = format!("./{}", new_path(&strip(target)).expect("a hard link's target stays"));
                }
                true
            }
            None => false,
        });
        self
    }
}

/// The entries of an uncompressed tar.
fn read_tar(bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let text = |bytes: std::borrow::Cow<'_, [u8]>| String::from_utf8(bytes.into_owned()).unwrap();
        let path = text(entry.path_bytes());
        let link = entry.link_name_bytes().map(text);
        let header = entry.header();
        let (mode, uid, gid) = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
        let mtime = header.mtime().unwrap();
        let kind = match header.entry_type() {
            tar::EntryType::Directory => Kind::Dir,
            tar::EntryType::Symlink => Kind::Symlink(link.unwrap()),
            tar::EntryType::Link => Kind::Hardlink(link.unwrap()),
            tar::EntryType::Regular => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                Kind::File(bytes.into())
            }
            other => panic!("{path}: {other:?} is not repacked"),
        };
        entries.push(Entry { path, kind, mode, uid, gid, mtime });
    }
    entries
}

/// An ar of these members: name, bytes.
pub fn ar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        assert!(name.len() <= 16, "{name}: ar's plain header has room for 16 bytes");
        let (time, id, mode, len) = (1_700_000_000, 0, "100644", bytes.len());
        writeln!(out, "{name:<16}{time:<12}{id:<6}{id:<6}{mode:<8}{len:<10}`").unwrap();
        out.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

/// A tar that is compressed while it is written, each piece as a stream of its own.
struct Tar {
    compression: Compression,
    plain: Vec<u8>,
    out: Vec<u8>,
}

impl Tar {
    fn new(compression: Compression) -> Self {
        Self { compression, plain: Vec::new(), out: Vec::new() }
    }

    fn flush(&mut self) {
        self.out.extend(self.compression.compress(&self.plain));
        self.plain.clear();
    }

    fn finish(mut self) -> Vec<u8> {
        self.plain.extend([0; 1024]);
        self.flush();
        self.out
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.plain.extend_from_slice(bytes);
        self.plain.resize(self.plain.len().next_multiple_of(512), 0);
    }

    /// A name or link target that does not fit the header, in the form that GNU tar gives it.
    fn long(&mut self, kind: tar::EntryType, text: &str) {
        let mut header = tar::Header::new_gnu();
        set_text(&mut header.as_gnu_mut().unwrap().name, "././@LongLink");
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(text.len() as u64 + 1);
        header.set_cksum();
        self.plain.extend_from_slice(header.as_bytes());
        self.padded(format!("{text}\0").as_bytes());
    }

    fn write(&mut self, entry: &Entry) {
        let link = match &entry.kind {
            Kind::Symlink(target) | Kind::Hardlink(target) => target.as_str(),
            _ => "",
        };
        if link.len() > 100 {
            self.long(tar::EntryType::GNULongLink, link);
        }
        if entry.path.len() > 100 {
            self.long(tar::EntryType::GNULongName, &entry.path);
        }
        let mut header = tar::Header::new_gnu();
        let gnu = header.as_gnu_mut().unwrap();
        set_text(&mut gnu.name, &entry.path);
        set_text(&mut gnu.linkname, link);
        set_text(&mut gnu.uname, if entry.uid == 0 { "root" } else { "" });
        set_text(&mut gnu.gname, if entry.gid == 0 { "root" } else { "" });
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(entry.gid);
        header.set_mtime(entry.mtime);
        header.set_size(0);
        header.set_entry_type(match &entry.kind {
            Kind::File(_) | Kind::Claims(..) | Kind::Zeros(_) => tar::EntryType::Regular,
            Kind::Dir => tar::EntryType::Directory,
            Kind::Symlink(_) => tar::EntryType::Symlink,
            Kind::Hardlink(_) => tar::EntryType::Link,
            Kind::Sparse(..) => tar::EntryType::GNUSparse,
            Kind::Fifo => tar::EntryType::Fifo,
            Kind::Char(..) => tar::EntryType::Char,
        });
        match &entry.kind {
            Kind::File(bytes) => {
                header.set_size(bytes.len() as u64);
                self.head(&mut header);
                self.padded(bytes);
            }
            Kind::Claims(size, bytes) => {
                header.set_size(*size);
                self.head(&mut header);
                self.plain.extend_from_slice(bytes);
            }
            Kind::Zeros(size) => {
                header.set_size(*size);
                self.head(&mut header);
                self.flush();
                const PIECE: u64 = 64 << 20;
                assert_eq!(size % PIECE, 0, "zeros come in pieces of 64 MiB");
                let piece = self.compression.compress(&vec![0; PIECE as usize]);
                for _ in 0..size / PIECE {
                    self.out.extend_from_slice(&piece);
                }
            }
            Kind::Sparse(parts, real_size) => {
                // A file that ends in a hole has an empty part at its end.
                let mut parts = parts.clone();
                let end = parts.last().map_or(0, |(offset, bytes)| offset + bytes.len() as u64);
                if end < *real_size {
                    parts.push((*real_size, Vec::new()));
                }
                assert!(parts.len() <= 4, "the header itself has room for four parts");
                header.set_size(parts.iter().map(|(_, bytes)| bytes.len() as u64).sum());
                let gnu = header.as_gnu_mut().unwrap();
                set_number(&mut gnu.realsize, *real_size);
                for (slot, (offset, bytes)) in gnu.sparse.iter_mut().zip(&parts) {
                    set_number(&mut slot.offset, *offset);
                    set_number(&mut slot.numbytes, bytes.len() as u64);
                }
                self.head(&mut header);
                let packed: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
                self.padded(&packed);
            }
            Kind::Char(major, minor) => {
                header.set_device_major(*major).unwrap();
                header.set_device_minor(*minor).unwrap();
                self.head(&mut header);
            }
            Kind::Dir | Kind::Symlink(_) | Kind::Hardlink(_) | Kind::Fifo => self.head(&mut header),
        }
    }

    fn head(&mut self, header: &mut tar::Header) {
        header.set_cksum();
        self.plain.extend_from_slice(header.as_bytes());
    }
}

fn set_text(field: &mut [u8], text: &str) {
    let len = text.len().min(field.len());
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
}

/// Octal where it fits, else GNU's base 256.
fn set_number(field: &mut [u8; 12], number: u64) {
    if number < 1 << 33 {
        set_text(field, &format!("{number:011o}"));
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&number.to_be_bytes());
    }
}
