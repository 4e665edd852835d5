//! What a kernel module says about itself, read from its bytes: `.modinfo`, the appended signature, and the order in
//! which modules have to be loaded.
//!
//! Everything here is a pure function of bytes that may come from anywhere: bad input is an error, and no more memory is
//! taken than the input's size (or the caller's limit) allows. Formats: `include/linux/moduleparam.h` and
//! `scripts/mod/modpost.c` (`.modinfo`), `include/linux/module_signature.h` and `kernel/module/signing.c` (signature),
//! modules.dep(5).

use anyhow::{Context as _, Result, bail, ensure};
use goblin::container::{Container, Ctx};
use goblin::elf::header::{EI_CLASS, ELFCLASS64, ET_REL, Header};
use goblin::elf::section_header::{SHT_NOBITS, SectionHeader};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// What a module's `.modinfo` section says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleInfo {
    /// The name as the running kernel knows it: with `_`, never `-`.
    pub name: String,
    /// `MODULE_VERSION`, where there is one.
    pub version: Option<String>,
    /// The modules whose symbols this one uses, by canonical name. Built-in code is not among them.
    pub depends: Vec<String>,
    /// Modules that ask to be loaded before this one, although no symbol is used (`softdep=pre:`).
    pub soft_pre: Vec<String>,
    /// The kernel that this module was compiled for, with the options that must match: `6.1.0-56-amd64 SMP ...`.
    pub vermagic: String,
    /// The devices that it drives, as modalias patterns.
    pub aliases: Vec<String>,
    /// `MODULE_LICENSE`.
    pub license: Option<String>,
    /// Firmware that it may ask for, relative to `/lib/firmware`.
    pub firmware: Vec<String>,
    /// The signature, if one is appended.
    pub signature: Option<Signature>,
}

impl ModuleInfo {
    /// Reads an uncompressed `.ko`, signed or not.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (elf, signature) = split_signature(bytes)?;
        let section = modinfo_section(elf)?;
        let mut info = Self { signature, ..Self::default() };
        let mut name = None;
        for entry in section.split(|&b| b == 0).filter(|e| !e.is_empty()) {
            let entry = std::str::from_utf8(entry).context(".modinfo holds an entry that is not UTF-8")?;
            // modpost writes nothing else; the kernel too passes over what has no `=`.
            let Some((key, value)) = entry.split_once('=') else { continue };
            match key {
                "name" => name = Some(canonical_name(value).into_owned()),
                "version" => info.version = Some(value.to_owned()),
                "vermagic" => value.trim_end().clone_into(&mut info.vermagic),
                "license" => info.license = Some(value.to_owned()),
                "alias" => info.aliases.push(value.to_owned()),
                "firmware" => info.firmware.push(value.to_owned()),
                "depends" => info.depends = names(value.split(',')),
                "softdep" => info.soft_pre.extend(soft_pre(value)),
                _ => {}
            }
        }
        info.name = name.context(".modinfo does not name the module")?;
        ensure!(!info.vermagic.is_empty(), ".modinfo does not say for which kernel the module is");
        Ok(info)
    }

    /// The release of the kernel that the module was compiled for: the first word of `vermagic`.
    pub fn kernel_release(&self) -> &str {
        self.vermagic.split(' ').next().unwrap_or_default()
    }
}

/// A module's name with `-` as `_`: file names and `depends=` may use either, and mean the same.
pub fn canonical_name(name: &str) -> Cow<'_, str> {
    if name.contains('-') { Cow::Owned(name.replace('-', "_")) } else { Cow::Borrowed(name) }
}

fn names<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    words.filter(|w| !w.is_empty()).map(|w| canonical_name(w).into_owned()).collect()
}

/// The `pre:` part of `pre: a b post: c`.
fn soft_pre(value: &str) -> Vec<String> {
    let mut pre = false;
    names(value.split_ascii_whitespace().filter(move |&word| match word {
        "pre:" => {
            pre = true;
            false
        }
        "post:" => {
            pre = false;
            false
        }
        _ => pre,
    }))
}

/// The bytes of `.modinfo`. Only the section headers and their names are read, so that a module of any size costs
/// little.
fn modinfo_section(elf: &[u8]) -> Result<&[u8]> {
    let header =
        elf.get(..size_of::<goblin::elf64::header::Header>()).context("too short for a kernel module")?;
    let header: Header = goblin::elf::Elf::parse_header(header).context("reading the ELF header")?;
    ensure!(header.e_type == ET_REL, "not a kernel module: the ELF file is not relocatable");
    let container = if header.e_ident[EI_CLASS] == ELFCLASS64 { Container::Big } else { Container::Little };
    let ctx = Ctx::new(container, header.endianness().context("reading the ELF header")?);
    let table = usize::try_from(header.e_shoff).context("reading the section table")?;
    // The kernel takes e_shnum as it stands (kernel/module/main.c, elf_validity_check): no extended numbering.
    let count = usize::from(header.e_shnum);
    ensure!(count > 0, "the module has no section table");
    let sections = SectionHeader::parse(elf, table, count, ctx).context("reading the section table")?;
    let strings = sections.get(usize::from(header.e_shstrndx)).context("the module has no section names")?;
    let strings = contents(elf, strings).context("reading the section names")?;
    let modinfo = sections.iter().find(|section| {
        let name = strings.get(section.sh_name..).unwrap_or_default();
        name.starts_with(b".modinfo\0")
    });
    contents(elf, modinfo.context("not a kernel module: no .modinfo section")?).context("reading .modinfo")
}

fn contents<'a>(elf: &'a [u8], section: &SectionHeader) -> Result<&'a [u8]> {
    ensure!(section.sh_type != SHT_NOBITS, "the section has no contents");
    let range = || {
        let start = usize::try_from(section.sh_offset).ok()?;
        elf.get(start..start.checked_add(usize::try_from(section.sh_size).ok()?)?)
    };
    range().context("the section lies outside the file")
}

/// An appended signature: `module || PKCS#7 || struct module_signature || marker`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Length in bytes of the part of the file that is signed: the ELF file.
    pub signed_len: usize,
    /// Length in bytes of the PKCS#7 message behind it.
    pub pkcs7_len: usize,
}

/// `MODULE_SIG_STRING`.
const SIGNATURE_MARKER: &[u8] = b"~Module signature appended~\n";
/// `sizeof(struct module_signature)`: algo, hash, id_type, signer_len, key_id_len, three bytes of padding, and the
/// big-endian length of the signature.
const SIGNATURE_TRAILER: usize = 12;
/// `PKEY_ID_PKCS7`, the only kind that kernels since 4.3 accept.
const PKEY_ID_PKCS7: u8 = 2;

/// Splits a module into its ELF file and, where one is appended, its signature. Refuses what `mod_check_sig` refuses.
pub fn split_signature(bytes: &[u8]) -> Result<(&[u8], Option<Signature>)> {
    let Some(rest) = bytes.strip_suffix(SIGNATURE_MARKER) else {
        return Ok((bytes, None));
    };
    let Some((rest, trailer)) = rest.split_last_chunk::<SIGNATURE_TRAILER>() else {
        bail!("the module's signature is cut off");
    };
    let [algo, hash, id_type, signer_len, key_id_len, pad @ .., l0, l1, l2, l3] = *trailer;
    ensure!(id_type == PKEY_ID_PKCS7, "the module's signature is not PKCS#7 but of kind {id_type}");
    ensure!(
        [algo, hash, signer_len, key_id_len, pad[0], pad[1], pad[2]] == [0; 7],
        "the module's signature has fields that must be zero"
    );
    let pkcs7_len = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3]))?;
    let signed_len = rest.len().checked_sub(pkcs7_len).filter(|&len| len > 0);
    let signed_len = signed_len.context("the module's signature claims to be longer than the file")?;
    Ok((&rest[..signed_len], Some(Signature { signed_len, pkcs7_len })))
}

/// The most memory that a compressed module's dictionary may take; what kmod and the kernel use is far below it.
const DICTIONARY_LIMIT: u64 = 128 << 20;

/// The ELF bytes of `file_name` (`x.ko`, `x.ko.xz`, `x.ko.zst`, `x.ko.gz`). The name and the first bytes must agree, and
/// the result may not exceed `limit` bytes.
pub fn decompress<'a>(file_name: &str, bytes: &'a [u8], limit: usize) -> Result<Cow<'a, [u8]>> {
    let (suffix, magic): (_, &[u8]) = match file_name.rsplit_once(".ko") {
        Some((_, "")) => (".ko", b"\x7fELF"),
        Some((_, ".xz")) => (".ko.xz", b"\xfd7zXZ\0"),
        Some((_, ".zst")) => (".ko.zst", b"\x28\xb5\x2f\xfd"),
        Some((_, ".gz")) => (".ko.gz", b"\x1f\x8b"),
        _ => bail!("{file_name} is not named like a kernel module"),
    };
    ensure!(bytes.starts_with(magic), "{file_name} is not what its name says ({suffix})");
    let unpack = |reader: &mut dyn Read| -> Result<Cow<'a, [u8]>> {
        let mut elf = Vec::new();
        reader.take(u64::try_from(limit)?.saturating_add(1)).read_to_end(&mut elf)?;
        ensure!(elf.len() <= limit, "it unpacks to more than {limit} bytes");
        Ok(Cow::Owned(elf))
    };
    let elf = match suffix {
        ".ko.xz" => liblzma::stream::Stream::new_stream_decoder(DICTIONARY_LIMIT, 0)
            .map_err(anyhow::Error::from)
            .and_then(|stream| unpack(&mut liblzma::read::XzDecoder::new_stream(bytes, stream))),
        ".ko.zst" => zstd::Decoder::with_buffer(bytes)
            .and_then(|mut decoder| decoder.window_log_max(DICTIONARY_LIMIT.ilog2()).map(|()| decoder))
            .map_err(anyhow::Error::from)
            .and_then(|mut decoder| unpack(&mut decoder)),
        ".ko.gz" => unpack(&mut flate2::read::MultiGzDecoder::new(bytes)),
        _ if bytes.len() <= limit => Ok(Cow::Borrowed(bytes)),
        _ => bail!("{file_name} is larger than {limit} bytes"),
    };
    elf.with_context(|| format!("unpacking {file_name}"))
}

/// The modules to load so that every one of `wanted` is loaded, in an order in which each comes after what it depends
/// on. `available` maps canonical names to the canonical names that they depend on. The order does not depend on the
/// order of `wanted`'s duplicates, and is the same for the same input.
pub fn load_order<'a>(
    available: &'a BTreeMap<String, Vec<String>>,
    wanted: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<&'a str>> {
    let mut order = Vec::new();
    let mut done = BTreeSet::new();
    for module in wanted {
        // The path from `module` down to where the walk stands, each with how many of its dependencies were visited.
        // A stack of its own, because a hostile chain is as long as it likes.
        let mut path: Vec<(&str, usize)> = vec![(module, 0)];
        let mut on_path = BTreeSet::from([module]);
        while let Some((name, next)) = path.last_mut() {
            let name = *name;
            if *next == 0 && done.contains(name) {
                path.pop();
                on_path.remove(name);
                continue;
            }
            let Some(depends) = available.get(name) else {
                let by = path.len().checked_sub(2).map(|i| format!(" (which {} needs)", path[i].0));
                bail!("there is no kernel module {name}{}", by.unwrap_or_default());
            };
            if let Some(dependency) = depends.get(*next) {
                *next += 1;
                if done.contains(dependency.as_str()) {
                    continue;
                }
                if !on_path.insert(dependency) {
                    let from = path.iter().position(|(n, _)| n == dependency).unwrap_or(0);
                    let cycle: Vec<_> =
                        path[from..].iter().map(|(n, _)| *n).chain([dependency.as_str()]).collect();
                    bail!("kernel modules depend on each other in a circle: {}", cycle.join(" -> "));
                }
                path.push((dependency, 0));
            } else {
                path.pop();
                on_path.remove(name);
                done.insert(name);
                order.push(name);
            }
        }
    }
    Ok(order)
}

/// A line of modules.dep(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DependencyLine {
    /// The module's file, relative to `/lib/modules/<release>`.
    pub path: String,
    /// The files of everything that it needs, directly or not, the last one to be loaded first.
    pub needs: Vec<String>,
}

/// Reads a `modules.dep`: canonical module name -> its line.
pub fn parse_modules_dep(text: &str) -> Result<BTreeMap<String, DependencyLine>> {
    let mut modules = BTreeMap::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with('#')) {
        let (path, needs) =
            line.split_once(':').with_context(|| format!("modules.dep line {}: no colon", i + 1))?;
        let name = module_name(path).with_context(|| format!("modules.dep line {}: {path}", i + 1))?;
        let needs = needs.split_ascii_whitespace().map(str::to_owned).collect();
        modules.insert(name, DependencyLine { path: path.to_owned(), needs });
    }
    Ok(modules)
}

/// The canonical name of the module in the file `path`: `kernel/drivers/nvme/host/nvme-core.ko.xz` -> `nvme_core`.
pub fn module_name(path: &str) -> Result<String> {
    let file = path.rsplit('/').next().unwrap_or_default();
    match file.rsplit_once(".ko") {
        Some((stem, "" | ".xz" | ".zst" | ".gz")) if !stem.is_empty() => {
            Ok(canonical_name(stem).into_owned())
        }
        _ => bail!("{file} is not named like a kernel module"),
    }
}

#[cfg(test)]
mod tests;
