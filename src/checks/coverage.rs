//! `docs/coverage.md`: what the guide, gds-diag and the known failure signatures ask for, the checks that answer, and the
//! tests in which each passes and fails. Made from the register and from what checks answer while the tests run, so that it
//! cannot rot.

use super::all;
use super::check::Answer;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The guide's steps and causes, all of them.
const GUIDE: [(&str, &[&str]); 6] = [
    (
        "hypervisor",
        &[
            "VT-d / AMD-Vi in the BIOS",
            "VT-d / AMD-Vi active",
            "SR-IOV",
            "Above 4G decoding",
            "IOMMU parameters",
            "GPU present",
            "NVMe present",
            "same root complex or switch",
            "not across sockets",
            "PCIe link",
            "IOMMU groups",
            "ACS",
            "ACS override",
            "bound to vfio-pci",
            "messages of the hypervisor",
        ],
    ),
    (
        "VM",
        &[
            "machine q35",
            "PCI Express in the VM",
            "CPU type host",
            "hardware virtualisation",
            "balloon off",
            "hugepages",
            "all functions of the GPU",
            "NVMe controller passed through",
            "real NVMe",
            "BAR1 size",
            "flat or switched topology",
            "vIOMMU",
        ],
    ),
    (
        "guest software",
        &[
            "kernel version",
            "kernel headers",
            "driver loaded",
            "driver bound",
            "open driver",
            "driver branch",
            "userland equal to module",
            "GSP firmware",
            "nouveau",
            "supported GPU",
            "CUDA",
            "nvidia-uvm",
            "nvidia-fs loaded",
            "nvidia-fs version",
            "Secure Boot",
            "nvme patched",
            "P2PDMA in the kernel",
            "P2PDMA topology",
            "P2PDMA registry keys",
            "static BAR1",
            "nvme multipath",
            "cufile.json",
            "compat mode",
            "memory for P2PDMA",
            "fabric manager",
            "Xid",
            "AER",
        ],
    ),
    (
        "storage",
        &[
            "local NVMe",
            "filesystem",
            "no network filesystem",
            "no LVM, crypt or other device-mapper",
            "RAID",
            "O_DIRECT",
            "alignment",
            "namespace health",
        ],
    ),
    ("GDS", &["gdscheck", "possible routes"]),
    ("benchmark", &["transfers", "data verification", "route proven", "throughput", "workloads"]),
];

/// What every signature is about; the texts are in `signatures.rs`.
const SIGNATURES: [&str; 38] = [
    "Secure Boot rejects a module",
    "driver not loaded",
    "no GPU passed through",
    "BAR not assigned",
    "GPU bound elsewhere",
    "probe failed",
    "GPU in use on the host",
    "GSP firmware missing",
    "GPU wedged",
    "GPU fell off the bus",
    "Xid",
    "NVML and driver differ",
    "unsupported GPU",
    "cuInit 802",
    "cuInit 100, 999",
    "HMM and KASLR",
    "nvme unpatched",
    "nvidia-fs does not fit the driver",
    "BAR1 cannot be mapped",
    "GeForce",
    "P2PDMA not built",
    "static BAR1 missing",
    "P2P refused by the kernel",
    "PAT clash",
    "ext4 without data=ordered",
    "device-mapper",
    "5008 with P2PDMA",
    "EIO on a fabric",
    "IOMMU fault on the host",
    "NVMe errors",
    "filesystem made read-only",
    "code 43",
    "no return from FLR",
    "locked memory",
    "gdsio hangs or prints nonsense",
    "too little RAM for BAR1's pages",
    "log cannot be written",
    "hook of another version",
];

/// Every Rust file below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Check -> the tests in whose text its id stands. A table before a file's first test belongs to that test.
fn naming() -> BTreeMap<&'static str, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src/checks"), &mut files);
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let text = fs_err::read_to_string(&file).unwrap();
        let mut before = "";
        let tests = text.split_once("#[cfg(test)]\nmod tests").map_or(text.as_str(), |(_, tests)| tests);
        for part in tests.split("#[test]\n").skip(usize::from(!tests.starts_with("#[test]\n"))) {
            let name = part.trim_start().strip_prefix("fn ").and_then(|rest| rest.split('(').next());
            let Some(name) = name else {
                before = part;
                continue;
            };
            for check in all() {
                let quoted = format!("\"{}\"", check.id);
                // `a|b` means that one of the two comes first.
                let is_one_of = [format!("\"{}|", check.id), format!("|{}\"", check.id)];
                if [part, before].iter().any(|text| {
                    text.contains(&quoted) || is_one_of.iter().any(|one| text.contains(one.as_str()))
                }) {
                    found.entry(check.id).or_default().insert(name.to_owned());
                }
            }
            before = "";
        }
    }
    found
}

/// Where the tests write down what the checks answered in them.
const RECORD: &str = "GDSBOOT_RECORD_ANSWERS";

/// Writes down what a check answered in the test that runs; once, and only where [`outcomes`] asks for it.
pub(super) fn record(id: &str, answer: &Answer) {
    thread_local!(static KNOWN: RefCell<HashSet<String>> = RefCell::default());
    let Some(path) = std::env::var_os(RECORD) else { return };
    let answer = match answer {
        Answer::Pass => "pass",
        Answer::Fail => "fail",
        Answer::Note | Answer::Unknown | Answer::NotApplicable => return,
    };
    let thread = std::thread::current();
    // libtest calls a test's thread after the test.
    let test = thread.name().and_then(|name| name.rsplit("::").next()).unwrap_or_default();
    let line = format!("{id} {answer} {test}\n");
    if KNOWN.with_borrow_mut(|known| known.insert(line.clone())) {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Check and answer -> the tests in which it was given: all tests of the checks are run again.
fn outcomes() -> BTreeMap<(String, String), BTreeSet<String>> {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("answers");
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["checks::", "--skip", "checks::coverage", "--test-threads", "2", "--quiet"])
        .env(RECORD, &record)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    let mut found: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for line in fs_err::read_to_string(&record).unwrap().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [id, answer, test] = words[..] else { panic!("{line}") };
        found.entry((id.to_owned(), answer.to_owned())).or_default().insert(test.to_owned());
    }
    found
}

/// How many tests are named for each answer.
const SHOWN: usize = 3;

/// The tests that prove that a check can answer so: first those that name it.
fn proofs(
    id: &str,
    answer: &str,
    outcomes: &BTreeMap<(String, String), BTreeSet<String>>,
    naming: &BTreeMap<&str, BTreeSet<String>>,
) -> Vec<String> {
    let Some(tests) = outcomes.get(&(id.to_owned(), answer.to_owned())) else { return Vec::new() };
    let named = |test: &&String| naming.get(id).is_some_and(|names| names.contains(*test));
    let (first, rest): (Vec<&String>, Vec<&String>) = tests.iter().partition(named);
    first.into_iter().chain(rest).take(SHOWN).cloned().collect()
}

fn document() -> String {
    let mut out = "# What is covered\n\nMade by the test `coverage_is_written_down`; `GDSBOOT_BLESS=1 cargo test --lib coverage` \
                   renews it.\n"
        .to_owned();
    let mut items: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for check in all() {
        for item in check.covers {
            items.entry(item).or_default().push(check.id);
        }
    }
    out.push_str("\n## The guide's steps and causes\n\n| where | what | checks |\n|---|---|---|\n");
    for (place, steps) in GUIDE {
        for step in steps {
            let checks = items.get(format!("guide: {step}").as_str()).map(|checks| checks.join(", "));
            let _ = writeln!(out, "| {place} | {step} | {} |", checks.unwrap_or_default());
        }
    }
    out.push_str("\n## gds-diag's checks\n\n| what | checks |\n|---|---|\n");
    for (item, checks) in &items {
        if let Some(item) = item.strip_prefix("gds-diag: ") {
            let _ = writeln!(out, "| {item} | {} |", checks.join(", "));
        }
    }
    out.push_str("\n## Failure signatures\n\n| number | what | checks |\n|---|---|---|\n");
    for (n, what) in (1..).zip(SIGNATURES) {
        let checks = items.get(format!("signature {n}").as_str()).map(|checks| checks.join(", "));
        let _ = writeln!(out, "| {n} | {what} | {} |", checks.unwrap_or_default());
    }
    out.push_str("\n## Tests by check\n\nEach check, and up to three tests in which it passes and in which it fails.\n\n");
    out.push_str("| check | passes in | fails in |\n|---|---|---|\n");
    let (outcomes, naming) = (outcomes(), naming());
    for check in all() {
        let of = |answer: &str| proofs(check.id, answer, &outcomes, &naming);
        let (pass, fail) = (of("pass"), of("fail"));
        let words = |tests: &[String], without: &[(&str, &'static str)]| match tests {
            [] => without.iter().find(|(id, _)| *id == check.id).map_or("MISSING", |(_, why)| why).to_owned(),
            tests => tests.join(", "),
        };
        let _ =
            writeln!(out, "| {} | {} | {} |", check.id, words(&pass, &NEVER_PASS), words(&fail, &NEVER_FAIL));
    }
    out
}

/// Checks that have no good answer of their own, and why.
const NEVER_PASS: [(&str, &str); 6] = [
    ("vm.topology", "never: what a guest's tree means for it is a note"),
    ("vm.hugepages", "never: only the host can see it"),
    ("vm.host-messages", "never: only the host can see them"),
    ("driver.code-43", "never: a word of Windows, noted where it stands"),
    ("p2pdma.fabrics", "never: without a network drive it does not apply"),
    ("gds.gdsio", "never: gdsio's results are a speed and no proof"),
];
/// Checks that tell something and condemn nothing, and why.
const NEVER_FAIL: [(&str, &str); 17] = [
    ("gpu.audio", "never: transfers do not need it"),
    ("host.reset-method", "never: it matters at the second start alone"),
    ("vm.topology", "never: what a guest's tree means for it is a note"),
    ("vm.hugepages", "never: only the host can see it"),
    ("vm.host-messages", "never: only the host can see them"),
    ("topology.peer-distance", "never: it is about what is known, not about the machine"),
    ("topology.clique", "never: it is about GPUs among themselves"),
    ("kernel.secure-boot", "never: no obstacle by itself"),
    ("driver.code-43", "never: a word of Windows, noted where it stands"),
    ("storage.transport", "never: network drives beside local ones do no harm"),
    ("cufile.environment", "never: what a variable excludes fails in cufile.compat and p2pdma.cufile-keys"),
    ("gds.gdsio", "never: what made it fail is another check's"),
    ("transfer.counters", "never: without counters there are other proofs"),
    ("bench.blank", "never: it qualifies figures"),
    (
        "bench.complete",
        "never: what kept something from being measured is another check's, or nobody's fault",
    ),
    ("bench.clock", "never: figures do not depend on it"),
    ("bench.gdsio", "never: another program's figures condemn nothing"),
];

#[test]
fn coverage_is_written_down() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/coverage.md");
    let document = document();
    if std::env::var_os("GDSBOOT_BLESS").is_some() {
        fs_err::write(&path, &document).unwrap();
    }
    let written = fs_err::read_to_string(&path).unwrap_or_default();
    assert!(!document.contains("MISSING"), "a check that no test lets pass, or none lets fail:\n{document}");
    assert!(written == document, "docs/coverage.md is old: GDSBOOT_BLESS=1 cargo test --lib coverage");
}

#[test]
fn every_step_of_the_guide_and_every_signature_has_a_check() {
    let steps = GUIDE.iter().flat_map(|(_, steps)| steps.iter().map(|step| format!("guide: {step}")));
    let wanted: BTreeSet<String> = steps.chain((1..=38).map(|n| format!("signature {n}"))).collect();
    let covered: BTreeSet<String> =
        all().flat_map(|check| check.covers).map(|item| (*item).to_owned()).collect();
    let missing: Vec<_> = wanted.difference(&covered).collect();
    assert!(missing.is_empty(), "no check covers {missing:?}");
    let unknown: Vec<_> =
        covered.difference(&wanted).filter(|item| !item.starts_with("gds-diag: ")).collect();
    assert!(unknown.is_empty(), "not a step of the guide: {unknown:?}");
}
