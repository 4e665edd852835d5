//! Takes a machine along: everything that the readers ask for, as a tar that mirrors absolute paths. Reading it back gives
//! the same facts, on any other machine.
//!
//! Only regular files, folders and symbolic links are taken; devices are never opened, the kernel log excepted. What this
//! user may not read, and what is known by its name alone, is listed in [`super::root::DENIED`].

use super::commands::{CAPTURED, CAPTURED_WITHOUT_DRIVER, run_programs};
use super::kmsg::{self, Next};
use super::packed::Packing;
use super::platform::CAPTURED_HYPERVISOR;
use super::root::DENIED;
use super::search::occurrences;
use super::{Fact, Facts, Root, cufile_env, module_tree};
use crate::boot_contract::{RUN_BENCHMARK, RUN_MODULE_LOADS};
use crate::error::one_line;
use crate::program::Finished;
use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

/// A file larger than this is left out.
const LIMIT: u64 = 32 << 20;
/// Links in one path; the kernel's own limit (`MAXSYMLINKS`, include/linux/namei.h).
const MAX_LINKS: usize = 40;

/// What a capture holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Files, links and folders.
    pub entries: usize,
    /// Paths that this user may not read.
    pub denied: usize,
    /// Serial numbers that were replaced by hashes.
    pub hashed: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    File(Vec<u8>),
    Link(PathBuf),
    Folder,
    /// A file of which only the name is known.
    Name,
}

#[derive(Debug, Default)]
struct Capture {
    entries: BTreeMap<PathBuf, Entry>,
    denied: BTreeSet<String>,
}

/// Captures the machine that this runs on into a tar. `hash_serials` replaces serial numbers, UUIDs and world-wide names
/// by hashes of them, which are the same in every capture.
///
/// # Errors
/// Only where the tar cannot be written.
pub fn capture(out: impl Write, hash_serials: bool) -> anyhow::Result<Summary> {
    let root = Root::recording();
    let facts = Facts::read(&root);
    // What transfers came to is no fact, and judged with them.
    let _ = root.bytes(&format!("/{RUN_BENCHMARK}"));
    let mut capture = Capture::default();
    for path in root.asked() {
        capture.take(Path::new("/"), &path);
    }
    capture.put("dev/kmsg", kernel_log());
    // What no file says.
    match facts.platform.hypervisor {
        Fact::Known { value, .. } => capture.put(&CAPTURED_HYPERVISOR[1..], value + "\n"),
        Fact::Missing { .. } => capture.put(&CAPTURED_HYPERVISOR[1..], ""),
        _ => {}
    }
    capture.programs();
    capture.hide_url();
    let hashed = if hash_serials { capture.hash_serials() } else { 0 };
    capture.list_denied();
    capture.write(out)?;
    Ok(Summary { entries: capture.entries.len(), denied: capture.denied.len(), hashed })
}

impl Capture {
    fn put(&mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) {
        self.entries.insert(path.into(), Entry::File(bytes.into()));
    }

    /// Takes what stands at `path` (absolute) below `root`, and every link on the way to it.
    fn take(&mut self, root: &Path, path: &str) {
        let mut at = PathBuf::new();
        let mut todo: Vec<_> = parts(Path::new(path));
        todo.reverse();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            match std::fs::read_link(root.join(&next)) {
                Ok(target) if links < MAX_LINKS => {
                    links += 1;
                    if target.is_absolute() {
                        at = PathBuf::new();
                    }
                    todo.extend(parts(&target).into_iter().rev());
                    self.entries.insert(next, Entry::Link(target));
                }
                Ok(_) => return,
                Err(_) => at = next,
            }
        }
        self.take_real(root, &at, path);
    }

    fn take_real(&mut self, root: &Path, at: &Path, asked: &str) {
        let here = root.join(at);
        let Ok(metadata) = std::fs::symlink_metadata(&here) else { return };
        if metadata.is_dir() {
            if is_private(at) {
                return;
            }
            self.entries.entry(at.to_owned()).or_insert(Entry::Folder);
            match std::fs::read_dir(&here) {
                Ok(entries) => entries.flatten().for_each(|entry| self.name(at, &entry)),
                Err(error) => self.deny_if(&error, asked),
            }
        } else if metadata.is_file() {
            match read(&here) {
                Ok(bytes) => {
                    let bytes = keep(at, bytes);
                    // Files that every system has show that they were looked at; others that set nothing of ours are
                    // nobody's business, not even by name.
                    let is_usual = cufile_env::FILES.iter().any(|file| at == Path::new(&file[1..]));
                    if is_usual || !is_environment(at) || !bytes.is_empty() {
                        self.put(at, bytes);
                    }
                }
                Err(error) => self.deny_if(&error, asked),
            }
        }
    }

    /// A folder's entry, so that listing the folder gives the same names. Files are empty until they are asked for
    /// themselves.
    fn name(&mut self, folder: &Path, entry: &std::fs::DirEntry) {
        let path = folder.join(entry.file_name());
        let Ok(kind) = entry.file_type() else { return };
        let new = match std::fs::read_link(entry.path()) {
            Ok(target) => Entry::Link(target),
            Err(_) if kind.is_dir() => Entry::Folder,
            Err(_) if kind.is_file() => Entry::Name,
            Err(_) => return,
        };
        self.entries.entry(path).or_insert(new);
    }

    fn deny_if(&mut self, error: &std::io::Error, asked: &str) {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            self.denied.insert(asked.to_owned());
        }
    }

    fn list_denied(&mut self) {
        let names = self.entries.iter().filter(|(_, entry)| **entry == Entry::Name);
        let names = names.filter_map(|(path, _)| Some(format!("/{}", path.to_str()?)));
        let list: BTreeSet<_> = names.chain(self.denied.iter().cloned()).collect();
        if !list.is_empty() {
            let text = list.into_iter().collect::<Vec<_>>().join("\n") + "\n";
            self.put(DENIED.trim_start_matches('/'), text);
        }
    }

    /// Runs the programs that are there, and keeps their words as design says: one folder for each.
    fn programs(&mut self) {
        // NVIDIA's libraries load a driver that does not run. A run of the image has tried that already; elsewhere nobody
        // asked for it.
        let may_load = Path::new("/proc/driver/nvidia/version").exists()
            || Path::new("/").join(RUN_MODULE_LOADS).exists();
        let commands = if may_load { CAPTURED } else { CAPTURED_WITHOUT_DRIVER };
        for (n, (argv, finished)) in run_programs(commands).enumerate() {
            let (stdout, stderr, status) = match finished {
                Ok(Finished { status, stdout, stderr }) => (stdout, stderr, status.code()),
                // One that had to be killed said why, as it does in the report.
                Err(error) => (String::new(), one_line(&error), None),
            };
            let program = argv.first().map_or("", String::as_str);
            let name = program.rsplit('/').next().unwrap_or(program);
            let folder = PathBuf::from(format!("run/gdsboot/commands/{name}-{n}"));
            let status = status.map_or("signal".to_owned(), |code| code.to_string());
            self.put(folder.join("argv"), argv.join("\n") + "\n");
            self.put(folder.join("stdout"), stdout);
            self.put(folder.join("stderr"), stderr);
            self.put(folder.join("status"), status + "\n");
        }
    }

    /// Hides where the report is sent, wherever the kernel's command line is quoted.
    fn hide_url(&mut self) {
        for entry in self.entries.values_mut() {
            if let Entry::File(bytes) = entry {
                *bytes = crate::redact::command_line_bytes(std::mem::take(bytes));
            }
        }
    }

    /// Replaces every serial number by a hash, wherever it stands in a text. Returns how many there were.
    fn hash_serials(&mut self) -> usize {
        let mut secrets = BTreeSet::new();
        for (path, entry) in &self.entries {
            let Entry::File(bytes) = entry else { continue };
            let text = String::from_utf8_lossy(bytes);
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if SECRET_FILES.contains(&name) {
                secrets.insert(text.trim().to_owned());
            }
            for line in text.lines().filter(|_| !SECRET_FILES.contains(&name)) {
                let Some((label, value)) = line.split_once(':') else { continue };
                if SECRET_LABELS.contains(&label.trim()) {
                    secrets.insert(value.trim().to_owned());
                }
            }
        }
        secrets.retain(|secret| secret.len() >= 6 && secret.bytes().any(|b| b.is_ascii_digit() && b != b'0'));
        for (path, entry) in &mut self.entries {
            let Entry::File(bytes) = entry else { continue };
            if path.file_name().is_some_and(|name| name == "config") {
                hash_device_serial(bytes);
                continue;
            }
            let packing = path.to_str().map_or(Packing::None, Packing::of);
            let mut unpacked = Vec::new();
            let reader =
                packing.reader(&bytes[..]).map(|reader| reader.take(LIMIT).read_to_end(&mut unpacked));
            if !matches!(reader, Ok(Ok(_))) {
                // What cannot be unpacked cannot be cleaned.
                bytes.clear();
                continue;
            }
            // The longest first: one serial may be a part of another.
            let mut secrets: Vec<_> = secrets.iter().collect();
            secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
            let clean = secrets.iter().fold(None, |clean: Option<Vec<u8>>, secret| {
                let text = clean.as_deref().unwrap_or(&unpacked);
                replaced(text, secret.as_bytes(), hash(secret).as_bytes()).or(clean)
            });
            if let Some(clean) = clean {
                *bytes = packing.pack(&clean).unwrap_or_default();
            }
        }
        secrets.len()
    }

    fn write(&self, out: impl Write) -> anyhow::Result<()> {
        let mut tar = tar::Builder::new(out);
        for (path, entry) in &self.entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            let done = match entry {
                Entry::File(bytes) => {
                    header.set_size(bytes.len() as u64);
                    tar.append_data(&mut header, path, &bytes[..])
                }
                Entry::Name => {
                    header.set_size(0);
                    tar.append_data(&mut header, path, std::io::empty())
                }
                Entry::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    tar.append_link(&mut header, path, target)
                }
                Entry::Folder => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(0o755);
                    header.set_size(0);
                    tar.append_data(&mut header, path, std::io::empty())
                }
            };
            done.with_context(|| format!("writing {} into the capture", path.display()))?;
        }
        tar.finish().context("writing the capture")
    }
}

/// Files whose whole content identifies one machine or one part.
const SECRET_FILES: [&str; 12] = [
    "serial",
    "product_serial",
    "product_uuid",
    "board_serial",
    "chassis_serial",
    "board_asset_tag",
    "chassis_asset_tag",
    "wwid",
    "uuid",
    "eui",
    "nguid",
    "unique_id",
];

/// The same in lines of `label: value` (the driver's, nvidia-smi's).
const SECRET_LABELS: [&str; 4] = ["GPU UUID", "Serial Number", "Board Serial Number", "GPU PDI"];

fn hash(secret: &str) -> String {
    format!("hash-{}", hex::encode(&Sha256::digest(format!("gdsboot capture {secret}"))[..8]))
}

/// `bytes` with `new` in place of each `old`; `None` where there is no `old`.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut done = 0;
    for at in occurrences(bytes, old) {
        if at >= done {
            out.extend_from_slice(&bytes[done..at]);
            out.extend_from_slice(new);
            done = at + old.len();
        }
    }
    out.extend_from_slice(&bytes[done..]);
    (done > 0).then_some(out)
}

/// Hashes the Device Serial Number extended capability (PCI Express Base Specification 7.9.3) of a config space.
fn hash_device_serial(config: &mut [u8]) {
    let mut at = 0x100;
    // There is room for 960 bytes of capabilities of at least 4 bytes each.
    for _ in 0..960 {
        let Some(head) = config.get(at..at + 4) else { return };
        let head = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if head & 0xffff == 0x0003 {
            if let Some(serial) = config.get_mut(at + 4..at + 12) {
                let digest = Sha256::digest(&*serial);
                serial.copy_from_slice(&digest[..8]);
            }
            return;
        }
        at = (head >> 20) as usize;
        if at < 0x100 {
            return;
        }
    }
}

/// Files that set environment variables (see [`super::cufile_env`]).
fn is_environment(path: &Path) -> bool {
    let is = |other: &str| path.starts_with(other);
    ["etc/environment", "etc/environment.d", "etc/profile", "etc/profile.d", "etc/bash.bashrc"]
        .into_iter()
        .any(is)
        || is("etc/systemd")
}

/// Folders of people and programs, in which readers look for a log: what else lies there, even by name, is nobody's
/// business.
fn is_private(folder: &Path) -> bool {
    let is = |path: &str| folder == Path::new(path);
    is("")
        || is("root")
        || is("tmp")
        || folder.starts_with("home")
        || folder.starts_with("var/log")
        || is_environment(folder)
}

fn parts(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Of the kernel's symbols only those that readers look for: the whole list has 10 MB and tells where the kernel lies. The
/// same of modules.
fn keep(path: &Path, bytes: Vec<u8>) -> Vec<u8> {
    if let Some(name) =
        path.to_str().filter(|_| path.starts_with("usr/lib/modules") || path.starts_with("lib/modules"))
        && module_tree::is_module(name)
    {
        return module_tree::only_hooks(name, &bytes).unwrap_or(bytes);
    }
    if is_environment(path) {
        // Proxies' passwords stand beside what is looked for.
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter(|line| line.contains("CUFILE_"));
        return lines.flat_map(|line| [line, "\n"]).collect::<String>().into_bytes();
    }
    if path != Path::new("proc/kallsyms") {
        return bytes;
    }
    let text = String::from_utf8_lossy(&bytes);
    let wanted = |line: &&str| line.contains("nvfs") || line.contains("p2pdma");
    let mut kept: String = text.lines().take(1).chain(text.lines().skip(1).filter(wanted)).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    );
    if kept.is_empty() {
        kept.push('\n');
    }
    kept.into_bytes()
}

/// The kernel's log as its records, as far as this user may read it.
fn kernel_log() -> Vec<u8> {
    let mut log = Vec::new();
    let open = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
    let Ok(mut file) = open else { return log };
    while let Ok(next) = kmsg::next(&mut file) {
        match next {
            Next::Record(record) => log.extend(record),
            Next::Overwritten => {}
            Next::End => break,
        }
        if log.len() as u64 > LIMIT {
            break;
        }
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_capture_has_every_link_on_the_way_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let machine = dir.path().join("machine");
        let device = "sys/devices/pci0000:00/0000:00:01.0";
        fs_err::create_dir_all(machine.join(device)).unwrap();
        fs_err::create_dir_all(machine.join("sys/bus/pci/devices")).unwrap();
        fs_err::write(machine.join(device).join("vendor"), "0x10de\n").unwrap();
        fs_err::write(machine.join(device).join("class"), "0x030200\n").unwrap();
        symlink(
            format!("../../../devices/{}", &device[12..]),
            machine.join("sys/bus/pci/devices/0000:00:01.0"),
        )
        .unwrap();
        symlink("loop", machine.join("loop")).unwrap();
        let mut capture = Capture::default();
        for path in ["/sys/bus/pci/devices", "/sys/bus/pci/devices/0000:00:01.0/vendor", "/loop/x", "/none"] {
            capture.take(&machine, path);
        }
        capture.take(&machine, "/sys/bus/pci/devices/0000:00:01.0/class");
        fs_err::write(machine.join("sys/only-listed"), "x").unwrap();
        capture.take(&machine, "/sys");
        capture.denied.insert("/secret".into());
        capture.list_denied();
        let mut bytes = Vec::new();
        capture.write(&mut bytes).unwrap();
        let unpacked = dir.path().join("unpacked");
        tar::Archive::new(&bytes[..]).unpack(&unpacked).unwrap();
        let root = Root::at(&unpacked);
        let devices = crate::facts::pci::PciDevice::read_all(&root);
        assert!(devices.value().unwrap()[0].is_nvidia_gpu(), "{devices:?}");
        assert_eq!(root.text("/secret"), crate::facts::Fact::Denied { from: "/secret".into() });
        assert!(matches!(root.text("/none"), crate::facts::Fact::Missing { .. }));
        assert_eq!(root.list("/sys").value().unwrap(), &["bus", "devices", "only-listed"]);
        assert!(matches!(root.text("/sys/only-listed"), crate::facts::Fact::Denied { .. }));
    }

    #[test]
    fn serials_are_replaced_wherever_they_stand() {
        let mut capture = Capture::default();
        capture.put("sys/class/nvme/nvme0/serial", "S4EWNX0R1234\n");
        capture.put("sys/class/dmi/id/product_serial", "None\n");
        capture.put("dev/kmsg", &b"6,1,2,-;nvme nvme0: \xff serial S4EWNX0R1234 found\n"[..]);
        let log = Packing::Gzip.pack(b"nvme nvme0: serial S4EWNX0R1234 again\n").unwrap();
        capture.put("var/log/kern.log.2.gz", log);
        capture.put("var/log/kern.log.3.gz", "damaged S4EWNX0R1234");
        capture.put("proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: X\nGPU UUID: GPU-12-ab\n");
        let mut config = vec![0; 4096];
        config[0x100..0x104].copy_from_slice(&0x1401_0001_u32.to_le_bytes());
        config[0x140..0x144].copy_from_slice(&0x0001_0003_u32.to_le_bytes());
        config[0x144..0x14c].copy_from_slice(b"SERIAL!!");
        capture.put("sys/devices/x/config", config);
        assert_eq!(capture.hash_serials(), 2);
        let all: Vec<u8> = capture
            .entries
            .values()
            .flat_map(|entry| if let Entry::File(bytes) = entry { bytes.clone() } else { vec![] })
            .collect();
        let all = String::from_utf8_lossy(&all).into_owned();
        for secret in ["S4EWNX0R1234", "GPU-12-ab", "SERIAL!!"] {
            assert!(!all.contains(secret), "{secret}");
        }
        let Some(Entry::File(log)) = capture.entries.get(Path::new("var/log/kern.log.2.gz")) else {
            panic!("log")
        };
        let mut text = String::new();
        Packing::Gzip.reader(&log[..]).unwrap().read_to_string(&mut text).unwrap();
        assert!(text.contains(&hash("S4EWNX0R1234")) && !text.contains("S4EWNX0R1234"), "{text}");
        assert!(all.contains("None") && all.matches(&hash("S4EWNX0R1234")).count() == 2);
    }

    #[test]
    fn of_environments_only_cufiles_lines_are_kept() {
        let text = b"http_proxy=http://me:secret@proxy\nexport CUFILE_NVTX=1\n".to_vec();
        let kept = |path: &str| keep(Path::new(path), text.clone());
        for path in ["etc/environment", "etc/profile.d/x.sh", "etc/systemd/system/x.service.d/y.conf"] {
            assert_eq!(kept(path), b"export CUFILE_NVTX=1\n", "{path}");
        }
        assert_eq!(kept("etc/cufile.json"), text);
        let dir = tempfile::tempdir().unwrap();
        let mut capture = Capture::default();
        for path in ["etc/profile", "etc/profile.d/vpn.sh", "etc/profile.d/gds.sh"] {
            let text = if path.ends_with("gds.sh") { "export CUFILE_NVTX=1\n" } else { "secret\n" };
            fs_err::create_dir_all(dir.path().join("etc/profile.d")).unwrap();
            fs_err::write(dir.path().join(path), text).unwrap();
            capture.take(dir.path(), &format!("/{path}"));
        }
        capture.take(dir.path(), "/etc/profile.d");
        let names: Vec<&str> = capture.entries.keys().filter_map(|path| path.to_str()).collect();
        assert_eq!(names, ["etc/profile", "etc/profile.d/gds.sh"]);
        assert!(is_private(Path::new("etc/systemd/system")) && !is_private(Path::new("etc")));
        assert_eq!(replaced(b"a111b", b"11", b"-"), Some(b"a-1b".to_vec()));
    }

    #[test]
    fn hostile_config_spaces_end() {
        for bytes in [vec![0xff; 4096], vec![0; 256], vec![], vec![0x10; 4096], vec![0x00, 0x01, 0x02]] {
            hash_device_serial(&mut bytes.clone());
        }
    }
}
