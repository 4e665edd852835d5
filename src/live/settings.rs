//! What the run was asked to do: `gdsboot.toml` on the report partition, then SMBIOS OEM strings, then QEMU's fw_cfg,
//! then the kernel command line; later wins. Nothing in them is fatal: what is not understood is a complaint in the
//! report, and what stands before it counts.

use super::delivery;
use super::network::Plan;
use super::params::Params;
use crate::bench::plan::Thoroughness;
use crate::bench::transfer::job::size;
use crate::bench::workload::{self, Workload};
use crate::boot_contract::REPORT_SETTINGS;
use crate::checks::waiver::{self, Waiver};
use crate::facts::{Fact, Root, smbios};
use crate::redact;
use crate::report::model::{After, Settings};

/// The keys that every place may set.
pub const KEYS: [&str; 13] = [
    "after",
    "capture",
    "bench",
    "bench_seconds",
    "gdsio",
    "scratch_serial",
    "scratch_filesystem",
    "scratch_size",
    "wipe",
    "report_url",
    "report_seconds",
    "report_ca",
    "net",
];

/// What one place says.
#[derive(Clone, Debug, Default)]
struct Said {
    /// The place, as the report names it.
    from: &'static str,
    /// What to do afterwards.
    after: Option<After>,
    /// Whether to leave a capture.
    capture: Option<bool>,
    /// How thorough the benchmark is.
    bench: Option<Thoroughness>,
    /// How long each of its measurements takes.
    bench_seconds: Option<f64>,
    /// Whether NVIDIA's tools are run beside it.
    gdsio: Option<bool>,
    /// The serial number of a disk that may be written to.
    scratch_serial: Option<String>,
    /// The UUID of a filesystem on which a temporary file may be made.
    scratch_filesystem: Option<String>,
    /// How large that file is.
    scratch_size: Option<u64>,
    /// The consent to lose what is on that disk.
    wipe: Option<String>,
    /// Where the report is sent, secrets and all.
    report_url: Option<String>,
    /// How long that may take, in seconds.
    report_seconds: Option<u32>,
    /// Whom to trust with it: a file on the report partition.
    report_ca: Option<String>,
    /// How the machine gets an address, as it was said, and what that means.
    net: Option<(String, Plan)>,
    /// Findings that are to be lived with.
    waive: Vec<Waiver>,
    /// The operator's own programs.
    workloads: Vec<Workload>,
    /// What was not understood.
    complaints: Vec<String>,
}

/// The place of what nobody asked for.
pub const DEFAULT: &str = "default";

/// Settings larger than this are not ours.
const LIMIT: usize = 64 << 10;
/// No measurement takes longer, in seconds.
const LONGEST: f64 = 600.0;
/// A temporary file is at least this large.
const SMALLEST: u64 = 16 << 20;

/// What a run is asked to do.
#[derive(Debug, Default)]
pub struct Asked {
    /// As the report keeps it.
    pub settings: Settings,
    /// The operator's own programs.
    pub workloads: Vec<Workload>,
    /// Where the report is sent, secrets and all.
    pub report_url: Option<String>,
    /// How the machine gets an address.
    pub net: Plan,
}

/// Reads all places. `file` is the content of `gdsboot.toml`, where the report partition has one.
pub fn read(root: &Root, file: Option<&[u8]>, params: &Params) -> Asked {
    let mut places = Vec::new();
    places.extend(file.map(from_file));
    places.push(from_oem_strings(root));
    places.push(from_fw_cfg(root));
    places.push(from_params(params));
    resolve(places)
}

fn resolve(places: Vec<Said>) -> Asked {
    let mut settings = Settings { after_from: DEFAULT.into(), ..Settings::default() };
    let mut asked = Asked::default();
    for place in places {
        if let Some(after) = place.after {
            settings.after = after;
            settings.after_from = place.from.into();
        }
        settings.capture = place.capture.unwrap_or(settings.capture);
        settings.bench = place.bench.unwrap_or(settings.bench);
        settings.bench_seconds = place.bench_seconds.or(settings.bench_seconds);
        settings.gdsio = place.gdsio.or(settings.gdsio);
        settings.scratch_serial = place.scratch_serial.or(settings.scratch_serial);
        settings.scratch_filesystem = place.scratch_filesystem.or(settings.scratch_filesystem);
        settings.scratch_size = place.scratch_size.or(settings.scratch_size);
        settings.wipe = place.wipe.or(settings.wipe);
        settings.waive.extend(place.waive);
        settings.complaints.extend(place.complaints);
        settings.report_seconds = place.report_seconds.or(settings.report_seconds);
        settings.report_ca = place.report_ca.or(settings.report_ca);
        if let Some(url) = place.report_url {
            settings.report_url = Some(redact::url(&url));
            asked.report_url = Some(url);
        }
        if let Some((words, plan)) = place.net {
            settings.net = Some(words);
            asked.net = plan;
        }
        asked.workloads.extend(place.workloads);
    }
    Asked { settings, ..asked }
}

impl Said {
    fn take(&mut self, key: &str, value: &str) {
        let value = value.trim();
        let wrong = match key {
            "after" => match After::parse(value) {
                Some(after) => return self.after = Some(after),
                None => "is none of poweroff, reboot, hold, shell",
            },
            "capture" | "gdsio" => match yes_or_no(value) {
                Some(wanted) if key == "gdsio" => return self.gdsio = Some(wanted),
                Some(wanted) => return self.capture = Some(wanted),
                None => "is none of yes, no",
            },
            "bench" => match Thoroughness::parse(value) {
                Some(thoroughness) => return self.bench = Some(thoroughness),
                None => "is none of none, quick, full",
            },
            "bench_seconds" => match value.parse::<f64>() {
                Ok(seconds) if seconds > 0.0 && seconds <= LONGEST => {
                    return self.bench_seconds = Some(seconds);
                }
                _ => "is no number of seconds above 0 and up to 600",
            },
            "scratch_size" => match size(value) {
                Some(bytes) if bytes >= SMALLEST => return self.scratch_size = Some(bytes),
                _ => "is no size such as 4G, 16M at least",
            },
            // What is meant by these is found out where it is used: nothing may be guessed.
            "scratch_serial" if !value.is_empty() => return self.scratch_serial = Some(value.to_owned()),
            "scratch_filesystem" if !value.is_empty() => {
                return self.scratch_filesystem = Some(value.to_owned());
            }
            "wipe" if !value.is_empty() => return self.wipe = Some(value.to_owned()),
            "scratch_serial" | "scratch_filesystem" | "wipe" => "is empty",
            "report_url" => match delivery::check_url(value) {
                Ok(()) => return self.report_url = Some(value.to_owned()),
                // What is no URL may hide a password anywhere.
                Err(why) => return self.complaints.push(format!("{}: report_url {why}", self.from)),
            },
            "report_seconds" => match value.parse::<u32>() {
                Ok(seconds @ 1..=3600) => return self.report_seconds = Some(seconds),
                _ => "is no whole number of seconds from 1 to 3600",
            },
            "report_ca" if is_plain_path(value) => return self.report_ca = Some(value.to_owned()),
            "report_ca" => "is no file on the report partition, such as ca.pem",
            "net" => match Plan::parse(value) {
                Ok(plan) => return self.net = Some((value.to_owned(), plan)),
                // It quotes the value.
                Err(why) => {
                    let (value, why) = (redact::url(value), redact::url(&why));
                    return self.complaints.push(format!("{}: net = {value:?} {why}", self.from));
                }
            },
            // In a mistyped one a URL may stand.
            _ => {
                let key = redact::url(key);
                return self.complaints.push(format!("{}: unknown key {key:?}", self.from));
            }
        };
        // What stands at the wrong key may be a secret all the same.
        let value = redact::url(value);
        self.complaints.push(format!("{}: {key} = {value:?} {wrong}", self.from));
    }
}

/// A path that stays below the folder it begins in.
fn is_plain_path(path: &str) -> bool {
    let plain = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    !path.is_empty() && std::path::Path::new(path).components().all(plain)
}

fn yes_or_no(word: &str) -> Option<bool> {
    match word {
        "1" | "yes" | "true" => Some(true),
        "0" | "no" | "false" => Some(false),
        _ => None,
    }
}

/// What a run would not understand of a `gdsboot.toml`.
pub fn complaints(bytes: &[u8]) -> Vec<String> {
    from_file(bytes).complaints
}

fn from_file(bytes: &[u8]) -> Said {
    let mut said = Said { from: REPORT_SETTINGS, ..Said::default() };
    let text = match decode(bytes) {
        Ok(text) => text,
        Err(why) => {
            said.complaints.push(format!("{REPORT_SETTINGS}: {why}"));
            return said;
        }
    };
    match text.parse::<toml::Table>() {
        Ok(table) => {
            let (waive, complaints) = waiver::parse(&table);
            said.waive = waive;
            let (workloads, more) = workload::config::parse(&table);
            said.workloads = workloads;
            let complaints = complaints.into_iter().chain(more);
            said.complaints.extend(complaints.map(|why| format!("{REPORT_SETTINGS}: {why}")));
            for (key, value) in table.iter().filter(|(key, _)| !["waive", "workload"].contains(&key.as_str()))
            {
                match value {
                    toml::Value::String(value) => said.take(key, value),
                    other => said.take(key, &other.to_string()),
                }
            }
        }
        Err(error) => {
            let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or(""));
            let line = before.matches('\n').count() + 1;
            said.complaints.push(format!("{REPORT_SETTINGS}: line {line}: {}", error.message()));
        }
    }
    said
}

/// The text, as the editors that technicians have write it: UTF-8 with or without a mark, or UTF-16.
fn decode(bytes: &[u8]) -> Result<String, String> {
    if bytes.len() > LIMIT {
        return Err(format!("longer than {LIMIT} bytes"));
    }
    if let Some(utf16) = bytes.strip_prefix(b"\xff\xfe") {
        let units: Vec<u16> =
            utf16.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        return String::from_utf16(&units).map_err(|e| e.to_string());
    }
    let utf8 = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    String::from_utf8(utf8.to_vec()).map_err(|e| e.to_string())
}

fn from_oem_strings(root: &Root) -> Said {
    let mut said = Said { from: "SMBIOS OEM strings", ..Said::default() };
    for entry in smbios::read_all(root) {
        match entry {
            Fact::Known { value: strings, .. } => {
                // What is told of the host is no setting.
                for string in strings.iter().filter(|string| !string.starts_with(smbios::FROM_HOST)) {
                    if let Some((key, value)) =
                        string.strip_prefix("gdsboot.").and_then(|s| s.split_once('='))
                    {
                        said.take(key, value);
                    }
                }
            }
            other => said.complaints.push(format!("{}: {}", said.from, other.map(|_| ""))),
        }
    }
    said
}

fn from_fw_cfg(root: &Root) -> Said {
    const FOLDER: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/gdsboot";
    let mut said = Said { from: "fw_cfg", ..Said::default() };
    let names = root.list(FOLDER);
    for name in names.value().into_iter().flatten() {
        match root.text(&format!("{FOLDER}/{name}/raw")) {
            Fact::Known { value, .. } => said.take(name, &value),
            other => said.complaints.push(format!("fw_cfg: {other}")),
        }
    }
    said
}

fn from_params(params: &Params) -> Said {
    let mut said = Said { from: "kernel command line", ..Said::default() };
    params.settings.iter().for_each(|(key, value)| said.take(key, value));
    said.complaints.extend(params.complaints.iter().cloned());
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_places_win() {
        let dir = tempfile::tempdir().unwrap();
        let file = |path: &str, bytes: &[u8]| {
            let path = dir.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, bytes).unwrap();
        };
        let root = Root::at(dir.path());
        let nothing = Params::default();
        let toml = Some(&b"after = \"shell\"\n"[..]);
        let after = |params: &Params| {
            let settings = read(&root, toml, params).settings;
            assert_eq!(settings.complaints, Vec::<String>::new());
            (settings.after, settings.after_from)
        };
        assert_eq!(read(&root, None, &nothing).settings.after_from, "default");
        assert_eq!(after(&nothing), (After::Shell, "gdsboot.toml".into()));
        file(
            "sys/firmware/dmi/entries/11-0/raw",
            b"\x0b\x05\0\0\x02gdsboot.after=hold\0gdsboot.host=pair;distance=PIX\0\0",
        );
        assert_eq!(after(&nothing), (After::Hold, "SMBIOS OEM strings".into()));
        file("sys/firmware/qemu_fw_cfg/by_name/opt/gdsboot/after/raw", b"reboot");
        assert_eq!(after(&nothing), (After::Reboot, "fw_cfg".into()));
        let params = Params { settings: vec![("after".into(), "poweroff".into())], ..nothing };
        assert_eq!(after(&params), (After::Poweroff, "kernel command line".into()));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_complained_about() {
        let complaints = |bytes: &[u8]| from_file(bytes).complaints.join("; ");
        assert!(complaints(b"# fine\nafter = \n").starts_with("gdsboot.toml: line 2: "));
        assert_eq!(complaints(b"colour = 3\n"), "gdsboot.toml: unknown key \"colour\"");
        assert_eq!(
            complaints(b"after = 3"),
            "gdsboot.toml: after = \"3\" is none of poweroff, reboot, hold, shell"
        );
        assert!(complaints(b"\xff\xff").contains("utf-8"));
        assert!(complaints(&[b'#'; LIMIT + 1]).contains("longer"));
        assert_eq!(complaints(b""), "");
    }

    #[test]
    fn notepad_is_understood() {
        let utf16: Vec<u8> =
            "\u{feff}after = \"hold\"\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(from_file(&utf16).after, Some(After::Hold));
        assert_eq!(from_file(b"\xef\xbb\xbfafter = \"hold\"\r\n").after, Some(After::Hold));
    }

    #[test]
    fn a_capture_is_left_where_the_last_word_is_yes() {
        let dir = tempfile::tempdir().unwrap();
        let capture = |file: &str, word: &str| {
            let params = Params::parse(&format!("quiet gdsboot.capture={word}"));
            let Asked { settings, .. } = read(&Root::at(dir.path()), Some(file.as_bytes()), &params);
            (settings.capture, settings.complaints.len())
        };
        assert_eq!(capture("", "1"), (true, 0));
        assert_eq!(capture("capture = true", "no"), (false, 0));
        assert_eq!(capture("capture = true", "perhaps"), (true, 1));
        assert_eq!(capture("capture = 'yes'", ""), (true, 1));
        assert_eq!(capture("capture = 2", "0"), (false, 1));
    }

    #[test]
    fn what_the_benchmark_is_to_do() {
        let said = from_file(
            b"bench = 'full'\nbench_seconds = 2.5\nscratch_serial = 'S4YN 1'\nscratch_size = '8G'\nwipe = 'I-UNDERSTAND-S4YN 1'\n",
        );
        assert_eq!(said.complaints, Vec::<String>::new());
        assert_eq!((said.bench, said.bench_seconds), (Some(Thoroughness::Full), Some(2.5)));
        assert_eq!((said.scratch_serial.as_deref(), said.scratch_size), (Some("S4YN 1"), Some(8 << 30)));
        assert_eq!(said.wipe.as_deref(), Some("I-UNDERSTAND-S4YN 1"));
        for (text, why) in [
            ("bench = 'thorough'", "bench = \"thorough\" is none of none, quick, full"),
            ("bench_seconds = 0", "bench_seconds = \"0\" is no number of seconds"),
            ("bench_seconds = nan", "is no number of seconds"),
            ("scratch_size = '1K'", "is no size such as 4G"),
            ("scratch_serial = ''", "scratch_serial = \"\" is empty"),
            ("wipe = ' '", "wipe = \"\" is empty"),
        ] {
            let complaints = from_file(text.as_bytes()).complaints;
            assert!(complaints.len() == 1 && complaints[0].contains(why), "{complaints:?}");
        }
        let params = Params::parse("gdsboot.bench=none gdsboot.scratch_filesystem=1234");
        let dir = tempfile::tempdir().unwrap();
        let Asked { settings, .. } = read(&Root::at(dir.path()), Some(b"bench = 'full'"), &params);
        assert_eq!(
            (settings.bench, settings.scratch_filesystem.as_deref()),
            (Thoroughness::None, Some("1234"))
        );
        assert_eq!(settings.complaints, Vec::<String>::new());
    }

    #[test]
    fn all_that_the_image_offers_is_understood() {
        let offered: String = include_str!("../../image/templates/gdsboot.toml")
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| !line.starts_with([' ', '#']) && !line.is_empty())
            .map(|line| format!("{line}\n"))
            .collect();
        let said = from_file(offered.as_bytes());
        assert_eq!(said.complaints, Vec::<String>::new());
        let table: toml::Table = offered.parse().unwrap();
        let missing: Vec<_> = KEYS.iter().filter(|key| !table.contains_key(**key)).collect();
        assert!(missing.is_empty(), "{missing:?} cannot be found by reading gdsboot.toml");
        assert_eq!((said.waive.len(), said.workloads.len()), (1, 1));
        assert_eq!(said.wipe, said.scratch_serial.map(|serial| format!("I-UNDERSTAND-{serial}")));
    }

    #[test]
    fn where_the_report_is_sent_is_kept_apart_from_what_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = "report_url = 'https://s3/b/k?X-Amz-Signature=0ff'\nreport_seconds = 30\nreport_ca = 'ca.pem'\nnet = 'dhcp'";
        let asked = read(&Root::at(dir.path()), Some(file.as_bytes()), &Params::parse(""));
        assert_eq!(asked.report_url.as_deref(), Some("https://s3/b/k?X-Amz-Signature=0ff"));
        let settings = asked.settings;
        assert_eq!(settings.complaints, Vec::<String>::new());
        assert_eq!(settings.report_url.as_deref(), Some("https://s3/b/k?REDACTED"));
        assert_eq!((settings.report_seconds, settings.report_ca.as_deref()), (Some(30), Some("ca.pem")));
        for (text, why) in [
            // What is refused is not quoted.
            ("report_url = 'ftp://h/x?0ff'", "gdsboot.toml: report_url is no http or https address"),
            ("report_url = 'https://?0ff'", "is no http or https address"),
            ("report_url = 'me:0ff@reports.example/x'", "is no http or https address"),
            ("report_url = 'https:/me:0ff@h/x'", "is no http or https address"),
            ("report_url = 'https://me:0ff/ss@host/x'", "its port is no number"),
            ("after = 'https://me:0ff@h/x?0ff'", "https://REDACTED@h/x?REDACTED"),
            ("report_seconds = 0", "is no whole number of seconds"),
            ("report_ca = '../ca.pem'", "is no file on the report partition"),
            ("'report_url:https://me:0ff@h/x?a' = 1", "unknown key \"REDACTED@h/x?REDACTED\""),
            ("net = 'eth0,10.0.0.1'", "net = \"eth0,10.0.0.1\" is neither \"dhcp\" nor INTERFACE,IP/PREFIX"),
            ("net = 'https://me:0ff@h/x?0ff'", "net = \"https://REDACTED@h/x?REDACTED\""),
            ("net = 'any,10.0.0.1/8,h/x?0ff'", "net = \"any,10.0.0.1/8,h/x?REDACTED\""),
        ] {
            let said = from_file(text.as_bytes()).complaints;
            assert!(said.len() == 1 && said[0].contains(why) && !said[0].contains("0ff"), "{said:?}");
        }
    }

    #[test]
    fn a_bad_word_leaves_what_stood_before() {
        let params = Params { settings: vec![("after".into(), "explode".into())], ..Params::default() };
        let dir = tempfile::tempdir().unwrap();
        let Asked { settings, .. } = read(&Root::at(dir.path()), Some(b"after = 'hold'"), &params);
        assert_eq!(settings.after, After::Hold);
        assert_eq!(settings.complaints.len(), 1);
    }

    #[test]
    fn workloads_are_read_and_complained_about() {
        let dir = tempfile::tempdir().unwrap();
        let file = "gdsio = true\n[[workload]]\nname = 'wake'\ncommand = ['wake-model', '{folder}']\n\n[[workload]]\nname = 'x'\n";
        let Asked { settings, workloads, .. } =
            read(&Root::at(dir.path()), Some(file.as_bytes()), &Params::parse(""));
        let names: Vec<&str> = workloads.iter().map(|workload| workload.name.as_str()).collect();
        assert_eq!((names, settings.gdsio), (vec!["wake"], Some(true)));
        let [complaint] = settings.complaints.as_slice() else { panic!("{:?}", settings.complaints) };
        assert!(complaint.starts_with("gdsboot.toml: workload 2 \"x\": command"), "{complaint}");
    }
}
