//! The kernel log: records from `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg), on the machine itself or captured; else
//! what syslog, journald or dmesg made of it.

use super::commands::CommandOutput;
use super::kmsg::{self, Next, Record};
use super::log_lines::{Collector, LogLines};
use super::{Fact, Root};
use serde::{Deserialize, Serialize};

const KMSG: &str = "/dev/kmsg";
/// How many records are read: more than the largest buffer holds, so that a kernel that logs faster than we read ends.
const RECORDS: usize = 1 << 20;

/// What was kept of the kernel log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct KernelLog {
    /// Where it was found: usually one place.
    pub sources: Vec<LogLines>,
}

impl KernelLog {
    /// Why it is not the whole log since the kernel started, where it is not.
    pub fn incomplete(&self) -> Option<&str> {
        // One whole source is enough.
        if self.sources.iter().any(|source| source.incomplete.is_none()) {
            return None;
        }
        self.sources.iter().find_map(|source| source.incomplete.as_deref())
    }

    /// Reads it from the first place that has it: the kernel's records, else text.
    pub fn read(root: &Root, commands: &[CommandOutput]) -> Fact<Self> {
        let records = if root.is_live() { live(root) } else { captured(root) };
        if let Fact::Known { value, from } = records {
            return Fact::Known { value: Self { sources: vec![value] }, from };
        }
        let mut sources: Vec<LogLines> =
            text_files(root).iter().filter_map(|path| LogLines::read(root, path).value().cloned()).collect();
        sources.extend(commands.iter().filter_map(|command| command.kernel_log.clone()));
        match sources.first() {
            Some(first) => Fact::Known { from: first.from.clone(), value: Self { sources } },
            None => records.map(|_| Self::default()),
        }
    }
}

/// What the running kernel hands out: one read is one record, until there is none.
fn live(root: &Root) -> Fact<LogLines> {
    let mut file = match root.open(KMSG) {
        Ok(file) => file,
        Err(error) => return Fact::from_error(KMSG, &error),
    };
    let mut log = Records::new();
    for _ in 0..RECORDS {
        match kmsg::next(&mut file) {
            Ok(Next::Record(record)) => log.take(&String::from_utf8_lossy(&record)),
            Ok(Next::Overwritten) => {
                log.collector.incomplete("records were overwritten before they could be read");
            }
            Ok(Next::End) => break,
            Err(error) => return Fact::from_error(KMSG, &error),
        }
    }
    Fact::known(KMSG, log.collector.finish())
}

fn captured(root: &Root) -> Fact<LogLines> {
    root.bytes_up_to(KMSG, 64 << 20).parse(|bytes| {
        let mut log = Records::new();
        // Lines that begin with a space belong to the record before them.
        for line in String::from_utf8_lossy(&bytes).lines().filter(|line| !line.starts_with(' ')) {
            log.take(line);
        }
        if log.count == 0 && !bytes.is_empty() {
            return Err("no line of it is a record of the kernel log");
        }
        Ok(log.collector.finish())
    })
}

/// Records on their way into a log.
struct Records {
    collector: Collector,
    count: u64,
    next: Option<u64>,
}

impl Records {
    fn new() -> Self {
        Self { collector: Collector::new(KMSG), count: 0, next: None }
    }

    /// A number that is missing is a record that is missing: those of a boot are counted from 0.
    fn take(&mut self, record: &str) {
        let Some(record) = Record::parse(record) else { return };
        // What programs wrote there (systemd does) is not the kernel's word, but still worth reading.
        self.collector.take(&crate::redact::command_line(&record.shown()));
        if record.seq > 0 && self.next.is_none() && record.usec > 60_000_000 {
            self.collector.incomplete("its beginning was overwritten");
        }
        self.next = record.seq.checked_add(1);
        self.count += 1;
    }
}

/// Names of files that hold the kernel log as text begin with one of these.
const NAMES: [&str; 6] = ["dmesg", "kern.log", "syslog", "messages", "journal", "kmsg"];

/// Files that hold the kernel log as text, absolute on the machine.
pub fn text_files(root: &Root) -> Vec<String> {
    // A capture's owner may have put them anywhere; on the machine itself only syslog's own are meant.
    let folders: &[&str] =
        if root.is_live() { &["/var/log"] } else { &["/var/log", "/", "/root", "/tmp", "/run/gdsboot"] };
    let mut files = Vec::new();
    for folder in folders {
        let listed = root.list(folder);
        let names: Vec<&String> = listed.value().into_iter().flatten().filter(|name| is_name(name)).collect();
        for name in &names {
            // Rotated ones are an older boot's, and count only where nothing else is there.
            let newer = |other: &&String| !is_rotated(other) && stem(other) == stem(name);
            if !(is_rotated(name) && names.iter().any(newer)) {
                files.push(format!("{}/{name}", folder.trim_end_matches('/')));
            }
        }
    }
    files
}

fn is_name(name: &str) -> bool {
    NAMES.iter().any(|known| name.starts_with(known))
}

/// Is it of an older boot: `syslog.1`, `messages-20260101`, `kern.log.2.gz`?
pub fn is_rotated(name: &str) -> bool {
    let name = [".gz", ".xz", ".zst"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let end = name.rsplit(['.', '-']).next().unwrap_or(name);
    end != name && end.bytes().all(|b| b.is_ascii_digit())
}

fn stem(name: &str) -> &str {
    NAMES.into_iter().find(|known| name.starts_with(known)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        let root = Root::at(dir.path());
        (dir, root)
    }

    #[test]
    fn captured_records_come_before_text() {
        let (_dir, root) = machine(&[
            (
                "dev/kmsg",
                "6,0,0,-;Linux version 6.8.0\n3,1,2000000,-;NVRM: No NVIDIA GPU found.\n SUBSYSTEM=pci\n6,2,3,-;usb\n",
            ),
            ("var/log/dmesg", "NVRM: other\n"),
        ]);
        let log = KernelLog::read(&root, &[]);
        let log = log.value().unwrap();
        assert_eq!(log.sources[0].lines, ["[    2.000000] NVRM: No NVIDIA GPU found."]);
        assert_eq!(log.incomplete(), None);
    }

    #[test]
    fn a_log_whose_beginning_is_gone_is_incomplete() {
        let (_dir, root) = machine(&[("dev/kmsg", "6,9000,99000000,-;nvme late\n")]);
        assert!(KernelLog::read(&root, &[]).value().unwrap().incomplete().is_some());
    }

    #[test]
    fn text_stands_in_for_records() {
        let (_dir, root) = machine(&[
            ("var/log/syslog", "May 1 host kernel: NVRM: new\n"),
            ("var/log/syslog.1", "May 1 host kernel: NVRM: old\n"),
            ("dmesg.txt", "[ 1.0] nvme nvme0: x\n"),
        ]);
        let log = KernelLog::read(&root, &[]);
        let lines: Vec<&String> = log.value().unwrap().sources.iter().flat_map(|s| &s.lines).collect();
        assert_eq!(lines, ["May 1 host kernel: NVRM: new", "[ 1.0] nvme nvme0: x"]);
    }

    #[test]
    fn packed_logs_of_an_older_boot_count_where_nothing_else_is_there() {
        let (dir, root) = machine(&[("var/log/dmesg", "NVRM: new\n"), ("tmp/x", "")]);
        let put = |path: &str, packing: super::super::packed::Packing, text: &str| {
            fs_err::write(dir.path().join(path), packing.pack(text.as_bytes()).unwrap()).unwrap();
        };
        use super::super::packed::Packing::{Gzip, Xz};
        put("var/log/dmesg.1.gz", Gzip, "NVRM: older\n");
        put("var/log/kern.log.2.gz", Gzip, "host kernel: NVRM: old\n");
        put("tmp/syslog.xz", Xz, "nvme one\n");
        let log = KernelLog::read(&root, &[]);
        let lines: Vec<&String> = log.value().unwrap().sources.iter().flat_map(|s| &s.lines).collect();
        assert_eq!(lines, ["NVRM: new", "host kernel: NVRM: old", "nvme one"]);
    }

    #[test]
    fn nothing_and_nonsense() {
        let (_dir, root) = machine(&[]);
        assert!(matches!(KernelLog::read(&root, &[]), Fact::Missing { .. }));
        let (_dir, root) = machine(&[("dev/kmsg", "hello\nworld\n")]);
        assert!(matches!(KernelLog::read(&root, &[]), Fact::Malformed { .. }));
        let (_dir, root) = machine(&[("dev/kmsg", "6,18446744073709551615,1,-;nvme\n")]);
        assert!(KernelLog::read(&root, &[]).value().is_some());
    }
}
