//! What is fuzzed: one function per parser, from bytes to nothing. They may refuse, they must not panic, hang or grow
//! without bound. The test `tests/parsers.rs` runs the same functions on damaged fixtures.

use gdsboot::bench::gdsio::answer::VerifyAnswer;
use gdsboot::bench::scratch::signatures::{self, Ends, Probe};
use gdsboot::bench::workload::config;
use gdsboot::builder::{apt, deb, elf, lock, mirror, module_info, profile, sbat};
use gdsboot::checks::check::{Side, Status};
use gdsboot::checks::judge::judge;
use gdsboot::checks::waiver;
use gdsboot::facts::cufile::CufileConfig;
use gdsboot::facts::cufile_env::CufileVariable;
use gdsboot::facts::gdscheck::Gdscheck;
use gdsboot::facts::gdsio::GdsioRun;
use gdsboot::facts::log_lines::LogLines;
use gdsboot::facts::nvidia_smi::NvidiaSmi;
use gdsboot::facts::pci_config::PciConfig;
use gdsboot::facts::{Facts, Root, dma, kmsg, module_tree};
use gdsboot::fleet::row::Row;
use gdsboot::fleet::{csv, deviation, jsonl, prometheus};
use gdsboot::http;
use gdsboot::hypervisor::context::{Context, Hints};
use gdsboot::hypervisor::machine::Kind;
use gdsboot::hypervisor::{judge as vm_judge, proxmox, source};
use gdsboot::redact;
use gdsboot::report::diff::Samples;
use gdsboot::report::events::Event;
use gdsboot::report::fat::{Fat, ReadAt};
use gdsboot::report::model::Report;
use gdsboot::report::source::Source;
use gdsboot::report::source::qcow2::Qcow2;
use gdsboot::report::utc::Utc;
use gdsboot::report::{gpt, html, json, junit, menu, text as report_text};
use gdsboot::smoke::machine::Machine;
use std::io;
use std::path::{Component, Path};

/// A parser under its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them; each has a file of its name in `fuzz_targets/`.
pub const TARGETS: [Target; 27] = [
    ("apt_output", apt_output),
    ("captured_machine", captured_machine),
    ("captured_text", captured_text),
    ("config_space", config_space),
    ("deb", deb),
    ("disk", disk),
    ("domain_xml", domain_xml),
    ("elf", elf),
    ("fat", fat),
    ("gdsio_output", gdsio_output),
    ("gdsio_verify_output", gdsio_verify_output),
    ("gpt", gpt),
    ("guest_lines", guest_lines),
    ("http_answer", http_answer),
    ("kernel_module", kernel_module),
    ("lock", lock),
    ("machine_file", machine_file),
    ("packed_log", packed_log),
    ("packed_module", packed_module),
    ("profile", profile),
    ("proxmox_conf", proxmox_conf),
    ("qemu_command_line", qemu_command_line),
    ("qcow2", qcow2),
    ("report", report),
    ("row", row),
    ("samples", samples),
    ("write_log", write_log),
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

/// A whole machine, from its files to every form of its report: each part begins with a line `== path`.
pub fn captured_machine(data: &[u8]) {
    let Ok(folder) = tempfile::tempdir() else { return };
    let mut rest = data;
    while let Some(part) = rest.strip_prefix(b"== ") {
        let end = part.windows(4).position(|four| four == b"\n== ").map_or(part.len(), |at| at + 1);
        let (part, next) = part.split_at(end);
        rest = next;
        let Some(line) = part.iter().position(|byte| *byte == b'\n') else { continue };
        let (Ok(path), bytes) = (std::str::from_utf8(&part[..line]), &part[line + 1..]) else { continue };
        let path = Path::new(path);
        if path.components().all(|component| matches!(component, Component::Normal(_))) {
            let path = folder.path().join(path);
            let made = path.parent().is_some_and(|parent| std::fs::create_dir_all(parent).is_ok());
            if made && !path.is_dir() {
                let _ = std::fs::write(path, bytes);
            }
        }
    }
    let facts = Facts::read(&Root::at(folder.path()));
    for side in [Side::Guest, Side::Host, Side::BareMetal] {
        let judgement = judge(&facts, side, None, &[], "2026-11-24");
        // A check that panics is an error of its own, and a bug all the same.
        assert!(!judgement.findings.iter().any(|finding| finding.status == Status::Error));
        let _ = junit::write(judgement.verdict, judgement.simulated, &judgement.findings, &mut io::sink());
        let report = Report::of_check(facts.clone(), None, judgement, "0a1b2c3d".into(), Utc(0));
        let _ = html::write(&report, &mut io::sink());
        let _ = report_text::write(&report, &mut io::sink());
        let mut bytes = Vec::new();
        json::write(&report, &mut bytes).expect("a report can be written");
        assert_eq!(json::read(&bytes).expect("a report can be read"), report);
    }
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
        let _ = config::parse(&table);
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

/// What anybody may have left on a disk; the first eight bytes say how large it claims to be.
pub fn disk(data: &[u8]) {
    let Some((claimed, data)) = data.split_first_chunk() else { return };
    for bytes in [u64::from_le_bytes(*claimed), data.len() as u64] {
        let _ = signatures::find(&Ends { first: data, last: data, bytes });
        let _ = signatures::find(&Ends { first: &[], last: data, bytes });
    }
    let whole = data.len() / 512 * 512;
    let _ = Probe::of(whole as u64, 512, u64::from_le_bytes(*claimed), |offset, into| {
        Bytes(data).read_exact_at(into, offset)
    });
}

/// A virtual machine's configuration, from its bytes to findings.
fn configuration(kind: Kind, data: &[u8]) {
    let _ = source::recognise(data);
    let mappings = proxmox::Mappings::parse(&text(data), Some("pve"));
    let Ok(machine) = source::read("100.conf", data, Some(kind), &mappings) else { return };
    let hints = Hints::default();
    let _ = vm_judge::judge(&Context::new(&machine, None, &hints));
    let _ = vm_judge::judge(&Context::new(&machine, Some(&Facts::default()), &hints));
}

/// libvirt's domain XML.
pub fn domain_xml(data: &[u8]) {
    configuration(Kind::Libvirt, data);
}

/// A file of Proxmox' qemu-server.
pub fn proxmox_conf(data: &[u8]) {
    configuration(Kind::Proxmox, data);
}

/// A command line of QEMU.
pub fn qemu_command_line(data: &[u8]) {
    configuration(Kind::Qemu, data);
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
    let _ = fat.read("reports/x/report.json", 1 << 20);
    let _ = fat.label();
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join("x.img");
    if std::fs::write(&path, data).is_err() {
        return;
    }
    let Ok(source) = Source::open(&path) else { return };
    for run in source.runs().map(|listing| listing.runs).unwrap_or_default().iter().take(4) {
        let _ = source.files(run);
        let _ = source.read(run, "report.json", 1 << 20);
    }
}

/// What gdsio printed.
pub fn gdsio_output(data: &[u8]) {
    for result in GdsioRun::parse("x", text(data).lines()).results {
        let _ = (result.nonsense(), result.words());
    }
}

/// What gdsio_verify printed.
pub fn gdsio_verify_output(data: &[u8]) {
    let answer = VerifyAnswer::parse(text(data).lines());
    let _ = (answer.mismatch(), answer.nonsense(data.len() as u64));
}

/// The partitions of a disk.
pub fn gpt(data: &[u8]) {
    let _ = gpt::Table::read(&mut io::Cursor::new(data));
}

/// What a web server answers, and the URL that it was asked by; a command line that quotes one.
pub fn http_answer(data: &[u8]) {
    let _ = http::Head::parse(data);
    let _ = http::Url::parse(&text(data));
    let _ = redact::url(&text(data));
    let _ = redact::command_line_bytes(data.to_vec());
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

/// A log of the writes to a disk.
pub fn write_log(data: &[u8]) {
    let _ = gdsboot::smoke::write_log::entries(data);
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

/// A disk as QEMU keeps it.
pub fn qcow2(data: &[u8]) {
    let Ok(image) = Qcow2::open(Bytes(data), data.len() as u64) else { return };
    let mut part = [0; 1000];
    for at in (0..image.size()).step_by(1 << 18).take(32) {
        let _ = image.read_exact_at(&mut part, at);
    }
}

/// A report.json.
pub fn report(data: &[u8]) {
    let _ = json::head(data);
    let _ = json::read(data);
}

/// A report as a table of a fleet reads it, and what is made of it.
pub fn row(data: &[u8]) {
    let Ok(row) = Row::read(data, "x") else { return };
    let rows = vec![row; 5];
    let _ = deviation::find(&rows);
    let _ = csv::write(&rows, &mut io::sink());
    let _ = jsonl::write(&rows, &mut io::sink());
    let _ = prometheus::write(&rows, &mut io::sink());
}

/// Raw samples of a benchmark, as two runs are compared by them.
pub fn samples(data: &[u8]) {
    let _ = Samples::read(data);
}
