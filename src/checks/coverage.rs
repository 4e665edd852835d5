//! `docs/coverage.md`: what the guide, gds-diag and the known failure signatures ask for, the checks that answer, and the
//! tests that name them. Made from the register and from the tests' own text, so that it cannot rot.

use super::all;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The guide's steps and causes, all of them.
const GUIDE: [(&str, &[&str]); 5] = [
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
fn tests() -> BTreeMap<&'static str, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src/checks"), &mut files);
    sources(&root.join("tests"), &mut files);
    files.sort();
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let text = fs_err::read_to_string(&file).unwrap();
        let is_test_file = ["tests.rs", "signatures.rs", "captured.rs", "complete.rs"]
            .iter()
            .any(|name| file.ends_with(name))
            || file.starts_with(root.join("tests"));
        let tests = match text.split_once("#[cfg(test)]\nmod tests") {
            Some((_, tests)) => tests,
            None if is_test_file => &text,
            None => continue,
        };
        let mut before = "";
        for part in tests.split("#[test]\n") {
            let name = part.trim_start().strip_prefix("fn ").and_then(|rest| rest.split('(').next());
            let Some(name) = name else {
                before = part;
                continue;
            };
            for check in all() {
                let quoted = format!("\"{}\"", check.id);
                if part.contains(&quoted) || before.contains(&quoted) {
                    found.entry(check.id).or_default().insert(name.to_owned());
                }
            }
            before = "";
        }
    }
    found
}

fn document() -> String {
    let tests = tests();
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
    out.push_str("\n## Tests by check\n\n| check | tests |\n|---|---|\n");
    for check in all() {
        let names: Vec<_> = tests.get(check.id).into_iter().flatten().map(String::as_str).collect();
        let _ = writeln!(out, "| {} | {} |", check.id, names.join(", "));
    }
    out
}

#[test]
fn coverage_is_written_down() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/coverage.md");
    let document = document();
    if std::env::var_os("GDSBOOT_BLESS").is_some() {
        fs_err::write(&path, &document).unwrap();
    }
    let written = fs_err::read_to_string(&path).unwrap_or_default();
    assert!(written == document, "docs/coverage.md is old: GDSBOOT_BLESS=1 cargo test --lib coverage");
}

#[test]
fn every_check_is_named_by_a_test() {
    let tests = tests();
    let missing: Vec<_> = all().map(|check| check.id).filter(|id| !tests.contains_key(id)).collect();
    assert!(missing.is_empty(), "no test names {missing:?}");
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
