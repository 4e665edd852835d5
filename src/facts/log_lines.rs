//! Lines of logs that are worth keeping. A log may be gigabytes and a report must not be: lines without any of the known
//! words are left out, long ones are cut, and of too many the first and the last are kept.

use super::packed::Packing;
use super::{Fact, Root};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _};

/// How many bytes of a log file are read.
const BYTES: u64 = 64 << 20;
/// How many lines of one log are kept from its beginning, and again from its end.
const KEPT: usize = 250;
/// How often one text is kept; a storm of errors of a link says nothing new after that and would push all else out.
const SAME: u64 = 20;
/// How many different texts are counted.
const TEXTS: usize = 4096;
/// The longest line that is kept, in characters.
const LONGEST: usize = 400;

/// What was kept of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct LogLines {
    /// The file's absolute path on the machine, or the command that printed it.
    pub from: String,
    /// The lines with a known word, in their order.
    pub lines: Vec<String>,
    /// How many more there were with a known word.
    pub left_out: u64,
    /// Texts that came so often that only their first lines were kept, without the time: how many more there were.
    pub repeated: Vec<(String, u64)>,
    /// Why it is not the whole log, where it is not.
    pub incomplete: Option<String>,
}

/// Words of which a line must have one, in lower case.
const WORDS: &[&str] = &[
    "nvrm",
    "nvidia",
    "nvfs",
    "nvml",
    "xid",
    "nouveau",
    "nova",
    "nvme",
    "dmar",
    "amd-vi",
    "iommu",
    "io_page_fault",
    "dmi: ",
    "hypervisor detected",
    "aer:",
    "pcie bus error",
    "p2pdma",
    "peer-to-peer",
    "upstream bridge",
    "acs redirect",
    "whitelist",
    "can't assign",
    "failed to assign",
    "no space for",
    "no room for",
    "firmware load",
    "firmware image",
    "gsp",
    "wpr2",
    "rminitadapter",
    "module verification",
    "unsigned module",
    "unavailable key",
    "key was rejected",
    "required key",
    "memory encryption",
    "tdx: guest",
    "secureboot",
    "secure boot",
    "lockdown",
    "x86/pat",
    "ext4",
    "xfs",
    "i/o error",
    "input/output error",
    "critical target error",
    "critical medium error",
    "no available path",
    "vfio",
    "passthrough of host pci",
    "can't enable device",
    "flr",
    "not viable",
    "cufile",
    "cufio",
    "cuinit",
    "cuda",
    "gds",
    "out of memory",
    "oom-kill",
    "fabric",
    "request_free_mem_region",
    "error opening log file",
    "code 43",
    "unable to pin",
    "device-mapper",
    "xfertype",
    "driver configuration:",
    "cufile configuration:",
    "platform info:",
    "platform verification",
    "properties.",
];

/// Words that make a line worthless although it has one of the others: they stand in every healthy log, in hundreds.
const NOISE: &[&str] = &["adding to iommu group", "removing from iommu group"];

/// Is a line worth keeping?
pub fn is_of_interest(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    // cuFile's own log of every transfer.
    if (line.contains(" trace ") || line.contains(" debug ")) && !line.contains("errornum") {
        return false;
    }
    WORDS.iter().any(|word| line.contains(word)) && !NOISE.iter().any(|word| line.contains(word))
}

/// A line without what cannot be printed, and not too long.
pub fn tidy(line: &str) -> String {
    let plain = line.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(LONGEST).collect()
}

/// Collects lines of one log.
#[derive(Debug)]
pub struct Collector {
    from: String,
    first: Vec<String>,
    last: VecDeque<String>,
    /// How often each text came.
    texts: HashMap<String, u64>,
    left_out: u64,
    incomplete: Option<String>,
}

impl Collector {
    /// For a log that stands at `from`.
    pub fn new(from: impl Into<String>) -> Self {
        Self {
            from: from.into(),
            first: Vec::new(),
            last: VecDeque::new(),
            texts: HashMap::new(),
            left_out: 0,
            incomplete: None,
        }
    }

    /// Takes a line, if it is worth keeping. A kernel's first line makes all before it another boot's.
    pub fn take(&mut self, line: &str) {
        if is_first_of_boot(line) {
            *self = Self::new(std::mem::take(&mut self.from));
        }
        if !is_of_interest(line) {
            return;
        }
        let line = tidy(line);
        let text = without_time(&line);
        if let Some(count) = self.texts.get_mut(text) {
            *count += 1;
            if *count > SAME {
                return;
            }
        } else if self.texts.len() < TEXTS {
            self.texts.insert(text.to_owned(), 1);
        }
        if self.first.len() < KEPT {
            self.first.push(line);
            return;
        }
        self.last.push_back(line);
        if self.last.len() > KEPT {
            self.last.pop_front();
            self.left_out += 1;
        }
    }

    /// Says why it is not the whole log.
    pub fn incomplete(&mut self, why: impl Into<String>) {
        self.incomplete.get_or_insert(why.into());
    }

    /// What was kept.
    pub fn finish(mut self) -> LogLines {
        self.first.extend(self.last);
        if self.left_out > 0 {
            self.incomplete.get_or_insert_with(|| format!("{} lines were left out", self.left_out));
        }
        let often = self.texts.into_iter().filter(|(_, count)| *count > SAME);
        let mut repeated: Vec<(String, u64)> = often.map(|(text, count)| (text, count - SAME)).collect();
        repeated.sort();
        LogLines {
            from: self.from,
            lines: self.first,
            left_out: self.left_out,
            repeated,
            incomplete: self.incomplete,
        }
    }
}

/// A line without what dmesg, syslog or journalctl put before the kernel's words.
fn without_time(line: &str) -> &str {
    let text = line.split_once("kernel: ").map_or(line, |(_, text)| text);
    match text.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((time, text)) if time.contains(['.', ':']) => text,
        _ => text,
    }
}

/// `Linux version ...` as the kernel, syslog and journalctl show it.
fn is_first_of_boot(line: &str) -> bool {
    line.starts_with("Linux version ")
        || line.contains("] Linux version ")
        || line.contains("kernel: Linux version ")
}

impl LogLines {
    /// Reads a file of text lines, packed as its name says. One that is damaged is read as far as it goes.
    pub fn read(root: &Root, path: &str) -> Fact<Self> {
        let read = || -> std::io::Result<Self> {
            let packing = Packing::of(path);
            let unpacked = packing.reader(root.open(path)?.take(BYTES)).map_err(std::io::Error::other)?;
            let mut reader = BufReader::new(unpacked.take(BYTES));
            let mut collector = Collector::new(path);
            let mut line = Vec::new();
            let mut bytes = 0;
            loop {
                line.clear();
                match reader.read_until(b'\n', &mut line) {
                    Ok(0) => break,
                    Ok(length) => bytes += length as u64,
                    Err(error) if packing == Packing::None => return Err(error),
                    Err(error) => {
                        collector.take(&String::from_utf8_lossy(&line));
                        collector.incomplete(format!("it is damaged: {error}"));
                        break;
                    }
                }
                collector.take(&String::from_utf8_lossy(&line));
            }
            if bytes == BYTES {
                collector.incomplete(format!("only the first {BYTES} bytes were read"));
            }
            Ok(collector.finish())
        };
        match read() {
            Ok(lines) => Fact::known(path, lines),
            Err(error) => Fact::from_error(path, &error),
        }
    }

    /// Keeps what is worth it of a text.
    pub fn of_text(from: &str, text: &str) -> Self {
        let mut collector = Collector::new(from);
        text.lines().for_each(|line| collector.take(line));
        collector.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_keeps_both_ends_and_says_so() {
        let text: String = (0..2000).map(|n| format!("NVRM: line {n}\n")).collect();
        let kept = LogLines::of_text("x", &text);
        assert_eq!(kept.lines.len(), 2 * KEPT);
        assert_eq!(kept.lines.last().unwrap(), "NVRM: line 1999");
        assert_eq!(kept.left_out, 1500);
        assert!(kept.incomplete.is_some());
    }

    #[test]
    fn a_storm_of_one_text_leaves_room_for_others() {
        let storm = |n: u64| format!("[ {n}.5] pcieport 0000:00:01.0: AER: Corrected error received\n");
        let text: String = (0..5000).map(storm).chain(["[9.1] NVRM: Xid\n".to_owned()]).collect();
        let kept = LogLines::of_text("x", &text);
        assert_eq!((kept.lines.len() as u64, kept.left_out, &kept.incomplete), (SAME + 1, 0, &None));
        assert_eq!(
            kept.repeated,
            [("pcieport 0000:00:01.0: AER: Corrected error received".to_owned(), 5000 - SAME)]
        );
        assert_eq!(without_time("Nov 2 host kernel: [Fri 10:11:12] x"), "x");
        assert_eq!(without_time("[pid] x"), "[pid] x");
    }

    #[test]
    fn another_boot_is_forgotten() {
        let text =
            "[    0.0] Linux version 6.8\nNVRM: Xid old\nMay 1 host kernel: Linux version 6.8.0\nNVRM: new\n";
        assert_eq!(LogLines::of_text("x", text).lines, ["NVRM: new"]);
    }

    #[test]
    fn lines_without_known_words_and_transfers_are_left_out() {
        for line in ["usb 1-1: new device", "pci 0000:00:01.0: Adding to iommu group 1", ""] {
            assert!(!is_of_interest(line), "{line}");
        }
        assert!(!is_of_interest("[pid=1 tid=1] DEBUG  cufio_core:2971 gds path taken with ODIRECT fd: 224"));
        assert!(is_of_interest("NVRM: No NVIDIA GPU found."));
    }

    #[test]
    fn packed_logs_are_read_within_a_bound_and_as_far_as_they_go() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let noise: String = (0..20_000).map(|n| format!("{n} {:x}\n", n * 2_654_435_761_u64)).collect();
        let text = format!("NVRM: Xid old\n{noise}nvme last\n");
        for end in ["gz", "xz", "zst"] {
            let name = format!("kern.log.2.{end}");
            let read = |bytes: &[u8]| {
                fs_err::write(dir.path().join(&name), bytes).unwrap();
                LogLines::read(&root, &format!("/{name}")).value().cloned()
            };
            let packed = Packing::of(&name).pack(text.as_bytes()).unwrap();
            let whole = read(&packed).unwrap();
            assert_eq!((whole.lines.len(), whole.incomplete), (2, None), "{end}");
            let half = read(&packed[..packed.len() / 2]).unwrap();
            assert!(half.incomplete.is_some_and(|why| why.starts_with("it is damaged")), "{end}");
            assert!(read(b"neither").is_none_or(|log| log.lines.is_empty()), "{end}");
        }
        let bomb = Packing::Zstd.pack(&vec![b'\n'; BYTES as usize + 1]).unwrap();
        fs_err::write(dir.path().join("dmesg.1.zst"), bomb).unwrap();
        let log = LogLines::read(&root, "/dmesg.1.zst");
        assert!(
            log.value().unwrap().incomplete.as_deref().is_some_and(|why| why.starts_with("only the first"))
        );
    }

    #[test]
    fn damaged_logs_are_read_as_far_as_they_go() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("log"), b"NVRM: \x1b[31m\xff\0bad\nno newline nvme").unwrap();
        let root = Root::at(dir.path());
        let lines = LogLines::read(&root, "/log").value().unwrap().lines.clone();
        assert_eq!(lines, ["NVRM:  [31m\u{fffd} bad", "no newline nvme"]);
        assert!(matches!(LogLines::read(&root, "/none"), Fact::Missing { .. }));
        assert_eq!(tidy(&"é".repeat(10_000)).chars().count(), LONGEST);
    }
}
