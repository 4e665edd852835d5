//! What is fuzzed: one function per parser, from bytes to nothing. They may refuse, they must not panic, hang or grow
//! without bound. The test `tests/parsers.rs` runs the same functions on damaged fixtures.

use gdsboot::builder::{apt, deb, elf, lock, mirror, module_info, profile, sbat};
use gdsboot::checks::waiver;
use gdsboot::facts::cufile::CufileConfig;
use gdsboot::facts::cufile_env::CufileVariable;
use gdsboot::facts::gdscheck::Gdscheck;
use gdsboot::facts::gdsio::GdsioRun;
use gdsboot::facts::log_lines::LogLines;
use gdsboot::facts::nvidia_smi::NvidiaSmi;
use gdsboot::facts::pci_config::PciConfig;
use gdsboot::facts::{Root, dma, kmsg, module_tree};
use gdsboot::report::events::Event;
use gdsboot::report::fat::{Fat, ReadAt};
use gdsboot::report::{gpt, json, menu};
use gdsboot::smoke::machine::Machine;
use std::io;
use std::path::Path;

/// A parser under its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them; each has a file of its name in `fuzz_targets/`.
pub const TARGETS: [Target; 16] = [
    ("apt_output", apt_output),
    ("captured_text", captured_text),
    ("config_space", config_space),
    ("deb", deb),
    ("elf", elf),
    ("fat", fat),
    ("gdsio_output", gdsio_output),
    ("gpt", gpt),
    ("guest_lines", guest_lines),
    ("kernel_module", kernel_module),
    ("lock", lock),
    ("machine_file", machine_file),
    ("packed_log", packed_log),
    ("packed_module", packed_module),
    ("profile", profile),
    ("report", report),
];

fn text(data: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(data)
}

/// apt's words, the host's lists of sources, control stanzas.
pub fn apt_output(data: &[u8]) {
    let text = text(data);
    let _ = apt::parse_print_uris(&text);
    let _ = apt::parse_date(&text);
    let _ = apt::percent_decode(&text);
    let _ = mirror::parse_one_line(&text);
    let _ = mirror::parse_deb822(&text);
    let _ = deb::stanza(&text);
    let _ = deb::parse_control(&text);
}

/// What programs printed on a machine, and files that its owner wrote.
pub fn captured_text(data: &[u8]) {
    let text = text(data);
    let _ = Gdscheck::parse("x", text.lines());
    let _ = NvidiaSmi::parse("x", text.lines());
    let _ = CufileConfig::parse(&text);
    let _ = CufileVariable::parse("x", &text);
    if let Ok(table) = text.parse() {
        let _ = waiver::parse(&table);
    }
}

/// A PCI function's configuration space.
pub fn config_space(data: &[u8]) {
    let _ = PciConfig::parse(data);
}

/// A package.
pub fn deb(data: &[u8]) {
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join("x.deb");
    if std::fs::write(&path, data).is_ok() {
        let _ = deb::read(&path, folder.path(), &|_| true);
    }
}

/// What a program or a library needs, and the generations of a boot loader.
pub fn elf(data: &[u8]) {
    let _ = elf::parse(data);
    let _ = sbat::read(data);
    let _ = sbat::parse(data);
}

struct Bytes<'a>(&'a [u8]);

impl ReadAt for Bytes<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let found = start.and_then(|start| self.0.get(start..start.checked_add(buf.len())?));
        buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A report partition that Windows, Linux or a dying stick wrote.
pub fn fat(data: &[u8]) {
    let Ok(fat) = Fat::open(Bytes(data), data.len() as u64) else { return };
    for folder in fat.list("/").unwrap_or_default().iter().take(8) {
        let _ = fat.list(&folder.name);
        let _ = fat.read(&folder.name, 1 << 20);
    }
    let _ = fat.read("runs/x/report.json", 1 << 20);
}

/// What gdsio printed.
pub fn gdsio_output(data: &[u8]) {
    for result in GdsioRun::parse("x", text(data).lines()).results {
        let _ = (result.nonsense(), result.words());
    }
}

/// The partitions of a disk.
pub fn gpt(data: &[u8]) {
    let _ = gpt::Table::read(&mut io::Cursor::new(data));
}

/// What a guest prints: kernel messages, events, the worker's answer, the boot menu of its image.
pub fn guest_lines(data: &[u8]) {
    let text = text(data);
    let _ = kmsg::Record::parse(&text);
    let _ = Event::parse(&text);
    let _ = dma::DmaProbe::parse(&text);
    let _ = menu::parse(&text);
}

/// A kernel module's own description and signature.
pub fn kernel_module(data: &[u8]) {
    let _ = module_info::ModuleInfo::parse(data);
    let _ = module_info::split_signature(data);
    let _ = module_info::parse_modules_dep(&text(data));
}

/// A lock file.
pub fn lock(data: &[u8]) {
    let _ = lock::Lock::parse(&text(data), Path::new("x.toml"));
}

/// A machine file.
pub fn machine_file(data: &[u8]) {
    let _ = Machine::parse("x", "x.toml", &text(data));
}

/// A compressed module; the first byte chooses the compression.
pub fn packed_module(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let path = ["x.ko", "x.ko.xz", "x.ko.zst", "x.ko.gz"][usize::from(*first) % 4];
    let _ = module_tree::unpack(path, rest);
}

/// A log that was rotated away and packed; the first byte chooses the compression.
pub fn packed_log(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let name = ["kern.log.2", "kern.log.2.xz", "kern.log.2.zst", "kern.log.2.gz"][usize::from(*first) % 4];
    let Ok(folder) = tempfile::tempdir() else { return };
    if std::fs::write(folder.path().join(name), rest).is_ok() {
        let _ = LogLines::read(&Root::at(folder.path()), &format!("/{name}"));
    }
}

/// A profile.
pub fn profile(data: &[u8]) {
    let _ = profile::Profile::parse("x", &text(data), "x.toml");
    let _ = profile::for_host(&text(data));
}

/// A report.json.
pub fn report(data: &[u8]) {
    let _ = json::read(data);
}
