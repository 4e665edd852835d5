//! Which disk may be written to: what is known of each, and the decision, which is pure. Opens nothing for writing.
//!
//! What cannot be read refuses a disk: nothing is taken to be free because nobody could look. The kernel is asked the
//! same once more when the disk is opened with O_EXCL.

use super::signatures::Probe;
use crate::error::usage;
use crate::facts::mounts::Mount;
use crate::facts::{Fact, Root};
use anyhow::{Context as _, bail};
use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

/// A whole disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The kernel's name: `nvme0n1`.
    pub name: String,
    /// `major:minor`.
    pub number: String,
    /// What the drive says of itself, without blanks around it.
    pub serial: Option<String>,
    /// The world-wide name: two disks with the same one are one disk on two paths.
    pub wwid: Option<String>,
    /// The kernel's count of disks: never the same for another disk (since Linux 5.15).
    pub sequence: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// Its logical block size.
    pub block: u32,
    /// Can it not be written to?
    pub read_only: bool,
    /// The names of its partitions.
    pub partitions: Vec<String>,
    /// Who uses it or a partition of it, in words.
    pub users: Vec<String>,
}

/// What the operator asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The serial number of the disk, whole.
    pub serial: &'a str,
    /// For a disk that holds data: `I-UNDERSTAND-<serial>`.
    pub wipe: Option<&'a str>,
    /// Disks and partitions that are never written to, by the kernel's names: what the machine booted from, and the
    /// report partition. One that is not found refuses every disk.
    pub keep: &'a [String],
    /// Chooses where the probe looks.
    pub seed: u64,
}

impl Request<'_> {
    /// The consent that would give up what is on the disk.
    fn consent(&self) -> String {
        format!("I-UNDERSTAND-{}", self.serial)
    }

    /// Did the operator give up what is on the disk, in exactly these words?
    pub fn gives_up_data(&self) -> bool {
        !self.serial.is_empty() && self.wipe == Some(&*self.consent())
    }
}

/// The one disk that is meant and may be used, whatever it holds.
///
/// # Errors
/// There is none, there are several, or it is in use.
pub fn choose<'a>(disks: &'a [Disk], request: &Request<'_>) -> anyhow::Result<&'a Disk> {
    let serial = request.serial;
    if serial.is_empty() || serial.trim() != serial {
        return Err(usage(format!("{serial:?} is no serial number"), known(disks)));
    }
    if let Some(text) = request.wipe
        && !request.gives_up_data()
    {
        let hint = format!("to lose all that is on that disk, set wipe to exactly {:?}", request.consent());
        return Err(usage(format!("{text:?} does not consent to wiping the disk {serial}"), hint));
    }
    let mut matching = disks.iter().filter(|disk| disk.serial.as_deref() == Some(serial));
    let Some(disk) = matching.next() else {
        return Err(usage(format!("no disk has the serial number {serial:?}"), known(disks)));
    };
    let name = &disk.name;
    let refuse =
        |what: String, hint: &str| Err(usage(format!("not touching {name} ({serial}): {what}"), hint));
    if let Some(other) = matching.next() {
        let what = format!("{} has the same serial number", other.name);
        return refuse(
            what,
            "namespaces of one drive and paths to one disk cannot be told apart by it; use a drive with one namespace",
        );
    }
    if let Some(other) =
        disks.iter().find(|other| other.name != *name && other.wwid.is_some() && other.wwid == disk.wwid)
    {
        return refuse(
            format!("{} is the same disk on another path", other.name),
            "use a disk with one path",
        );
    }
    for kept in request.keep {
        let is = |disk: &Disk| disk.name == *kept || disk.partitions.contains(kept);
        if is(disk) {
            let what = format!("{kept} is what this machine booted from, or takes its report");
            return refuse(what, "use another disk");
        }
        if !disks.iter().any(is) {
            let what = format!("{kept}, which has to be kept, is on no disk that is seen");
            return refuse(what, "without it, nobody can tell that it is not on this one");
        }
    }
    if !disk.users.is_empty() {
        return refuse(
            format!("in use: {}", disk.users.join(", ")),
            "stop what uses it, or use another disk",
        );
    }
    if !disk.partitions.is_empty() {
        let what = format!("it has partitions: {}", disk.partitions.join(", "));
        return refuse(what, "use another disk, or remove them yourself if nothing on them is needed");
    }
    if disk.read_only {
        return refuse("it cannot be written to".into(), "use another disk");
    }
    Ok(disk)
}

/// Is what a disk holds no obstacle? It is none where there is nothing, or where the operator gave it up.
///
/// # Errors
/// It holds something.
pub fn accept(disk: &Disk, probe: &Probe, request: &Request<'_>) -> anyhow::Result<()> {
    if request.gives_up_data() || (probe.data.is_none() && probe.signatures.is_empty()) {
        return Ok(());
    }
    let names: Vec<_> =
        probe.signatures.iter().map(|found| format!("{} at byte {}", found.name, found.at)).collect();
    let what = match (names.is_empty(), probe.data) {
        (true, at) => format!("data of an unknown kind at byte {}", at.unwrap_or_default()),
        (false, _) => names.join(", "),
    };
    Err(usage(
        format!("not touching {} ({}): it holds {what}", disk.name, request.serial),
        "use a blank disk; one whose data nobody needs becomes blank by `blkdiscard`",
    ))
}

fn known(disks: &[Disk]) -> String {
    let known: Vec<_> =
        disks.iter().filter_map(|disk| Some(format!("{} ({})", disk.serial.as_ref()?, disk.name))).collect();
    match known.is_empty() {
        true => "no disk of this machine has a serial number".into(),
        false => format!("name a disk by its whole serial number: {}", known.join(", ")),
    }
}

/// Reads all disks of a machine but those made of files or memory.
///
/// # Errors
/// Something could not be read that may say that a disk is in use.
pub fn read_all(root: &Root) -> anyhow::Result<Vec<Disk>> {
    let in_use = InUse::read(root)?;
    let all = need(root.list("/sys/block"))?;
    let made_up = |name: &str| ["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind));
    // With multipath, the paths to an NVMe namespace are hidden disks that have no device node.
    let hidden =
        |name: &str| root.text(&format!("/sys/block/{name}/hidden")).value().is_some_and(|h| h == "1");
    all.iter().filter(|name| !made_up(name) && !hidden(name)).map(|name| read(root, name, &in_use)).collect()
}

fn read(root: &Root, name: &str, in_use: &InUse) -> anyhow::Result<Disk> {
    let path = |file: &str| format!("/sys/block/{name}/{file}");
    let text = |file: &str| root.text(&path(file));
    let maybe = |files: &[&str]| -> anyhow::Result<Option<String>> {
        for file in files {
            match root.open(&path(file)).and_then(|mut open| {
                let mut said = String::new();
                open.read_to_string(&mut said)?;
                Ok(said.trim().to_owned())
            }) {
                Ok(said) => return Ok(Some(said).filter(|said| !said.is_empty())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // The file is there, and the disk says no such thing: a USB stick has no page for it (sdev_show_wwid of
                // drivers/scsi/scsi_sysfs.c).
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::EINVAL)) => {}
                Err(error) => return Err(error).with_context(|| format!("reading {}", path(file))),
            }
        }
        Ok(None)
    };
    let mut partitions = Vec::new();
    for entry in need(root.list(&path("")))? {
        if root.exists(&path(&format!("{entry}/partition"))) {
            partitions.push(entry);
        }
    }
    let number = need(text("dev"))?;
    let mut users: Vec<String> =
        need(root.list(&path("slaves")))?.iter().map(|of| format!("made of {of}")).collect();
    for (part, folder) in
        [(name, String::new())].into_iter().chain(partitions.iter().map(|part| (&**part, format!("{part}/"))))
    {
        let number = need(text(&format!("{folder}dev")))?;
        let holders = need(root.list(&path(&format!("{folder}holders"))))?;
        users.extend(holders.iter().map(|holder| format!("{holder} is made of {part}")));
        users.extend(in_use.of(part, &number));
    }
    let sectors: u64 = need(text("size"))?.parse().with_context(|| format!("reading {}", path("size")))?;
    Ok(Disk {
        name: name.to_owned(),
        number,
        // NVMe's controller or subsystem has it, and virtio's disk itself.
        serial: maybe(&["device/serial", "serial"])?,
        wwid: maybe(&["wwid", "device/wwid"])?,
        sequence: maybe(&["diskseq"])?,
        bytes: sectors.checked_mul(512).context("a disk of impossible size")?,
        block: need(text("queue/logical_block_size"))?
            .parse()
            .with_context(|| format!("reading {}", path("queue")))?,
        read_only: need(text("ro"))? != "0",
        partitions,
        users,
    })
}

/// Uses that do not stand in a disk's own folder.
#[derive(Debug, Default)]
struct InUse {
    mounts: Vec<Mount>,
    /// Device nodes that are swap space or lie under a loop device, with what they are.
    nodes: Vec<(String, String)>,
    /// Numbers of devices that another process has open, with the process.
    open: BTreeSet<(String, String)>,
}

impl InUse {
    /// Reads what is visible of all processes: each may have mounts of its own, and a virtual machine's disk is a file that
    /// its process has open.
    fn read(root: &Root) -> anyhow::Result<Self> {
        let mut found = Self::default();
        found.add_mounts(&need(root.bytes("/proc/self/mountinfo"))?)?;
        match root.text("/proc/swaps") {
            Fact::Missing { .. } => {}
            swaps => {
                let swaps = need(swaps)?;
                let paths = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
                found.nodes.extend(paths.map(|path| (path.to_owned(), "swap space".to_owned())));
            }
        }
        for name in need(root.list("/sys/block"))?.iter().filter(|name| name.starts_with("loop")) {
            if let Some(path) = root.text(&format!("/sys/block/{name}/loop/backing_file")).value() {
                found.nodes.push((path.clone(), name.clone()));
            }
        }
        let is_process = |name: &&String| name.bytes().all(|byte| byte.is_ascii_digit());
        let ours = std::process::id().to_string();
        for process in need(root.list("/proc"))?.iter().filter(is_process).filter(|process| **process != ours)
        {
            // It may be gone by now.
            if let Some(bytes) = root.bytes(&format!("/proc/{process}/mountinfo")).value() {
                found.add_mounts(bytes)?;
            }
            let folder = format!("/proc/{process}/fd");
            let files = match root.list(&folder) {
                Fact::Missing { .. } => continue,
                files => need(files)?,
            };
            let Ok(here) = root.locate(&folder) else { continue };
            for file in files {
                if let Ok(metadata) = std::fs::metadata(here.join(file))
                    && metadata.file_type().is_block_device()
                {
                    let program = root.text(&format!("/proc/{process}/comm"));
                    let program = program.value().map_or("?", String::as_str);
                    found.open.insert((number(metadata.rdev()), format!("process {process} ({program})")));
                }
            }
        }
        Ok(found)
    }

    fn add_mounts(&mut self, table: &[u8]) -> anyhow::Result<()> {
        for line in String::from_utf8_lossy(table).lines() {
            match Mount::parse_mountinfo(line) {
                Some(mount) => self.mounts.push(mount),
                None => bail!("{line:?} is no mount"),
            }
        }
        Ok(())
    }

    /// The uses of a disk or partition.
    fn of(&self, name: &str, number: &str) -> BTreeSet<String> {
        // A filesystem of several devices has a number of its own and names one of them.
        let is_node = |path: &str| path.strip_prefix("/dev/").is_some_and(|node| node == name);
        let is_mount = |mount: &&Mount| mount.device.as_deref() == Some(number) || is_node(&mount.source);
        let mounts = self.mounts.iter().filter(is_mount);
        let nodes = self.nodes.iter().filter(|(path, _)| is_node(path));
        let open = self.open.iter().filter(|(open, _)| open == number);
        mounts
            .map(|mount| format!("{name} is mounted at {}", mount.at))
            .chain(nodes.map(|(_, by)| format!("{name} is used by {by}")))
            .chain(open.map(|(_, by)| format!("{name} is open in {by}")))
            .collect()
    }
}

/// A device's number as sysfs writes it.
pub fn number(device: u64) -> String {
    format!("{}:{}", libc::major(device), libc::minor(device))
}

fn need<T>(fact: Fact<T>) -> anyhow::Result<T> {
    match fact {
        Fact::Known { value, .. } => Ok(value),
        Fact::Missing { from } => bail!("{from} is missing"),
        Fact::Denied { from } => bail!("{from} may not be read by this user"),
        Fact::Malformed { from, why } | Fact::Failed { from, why } => bail!("{from}: {why}"),
        Fact::NotRead { why } => bail!("{why}"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
