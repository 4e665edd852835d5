//! Two machines on which everything is there, one for each direct route, and what happens when one file of them changes.

#[path = "../../tests/synthetic/mod.rs"]
mod synthetic;

use super::check::{Finding, Status};
use super::context::side_of;
use super::judge::{Judgement, judge};
use crate::bench::results::Results;
use crate::bench::route::Outcome;
use crate::bench::route::Route;
use crate::bench::testing::healthy;
use crate::bench::worker::Verified;
use crate::facts::{Facts, Root};
use crate::report::model::Verdict;
use std::path::Path;
use synthetic::file;

/// What a machine has beside its devices: cuFile, gdscheck, libraries, filesystems.
fn complete(root: &Path) {
    synthetic::guest(root, 2, 2);
    let cufile = r#"{ // settings
        "properties": {"use_pci_p2pdma": true, "allow_compat_mode": false, "force_compat_mode": false,},
        "block": {"nvme": {"use_pci_p2pdma": true}} }"#;
    file(root, "etc/cufile.json", cufile);
    file(root, "proc/self/mountinfo", "30 1 259:1 / /data rw - xfs /dev/nvme0n1 rw,attr2\n");
    file(root, GDSCHECK, GOOD);
    file(root, "sys/class/dmi/id/sys_vendor", "QEMU\n");
    file(root, "sys/class/dmi/id/product_name", "Standard PC (Q35 + ICH9, 2009)\n");
    for library in ["libcuda.so.580.95.05", "libnvidia-ml.so.580.95.05", "libcufile.so.1.16.1"] {
        file(root, &format!("usr/lib/x86_64-linux-gnu/{library}"), "");
    }
    file(root, SECURE_BOOT, [6, 0, 0, 0, 0]);
}

/// The same with nvidia-fs and a patched nvme instead of P2PDMA.
fn with_nvidia_fs(root: &Path) {
    complete(root);
    file(root, "etc/cufile.json", r#"{"properties": {"allow_compat_mode": false}}"#);
    file(root, "proc/driver/nvidia/params", "RegistryDwords: \"\"\n");
    file(root, "sys/module/nvme_core/parameters/multipath", "Y\n");
    file(root, "proc/modules", MODULES.replace("nvidia_uvm 1", "nvidia_fs 1 0 - Live 0x0\nnvidia_uvm 1"));
    file(root, "proc/driver/nvidia-fs/version", "version: 2.27\n");
    file(root, "proc/kallsyms", "0000000000000000 T nvme_v1_register_nvfs_dma_ops\t[nvme]\n");
    file(
        root,
        GDSCHECK,
        GOOD.replace("p2pdma, compat", "nvfs, compat")
            .replace("use_pci_p2pdma : true", "use_pci_p2pdma : false"),
    );
}

/// A patched nvme, and nvidia-fs not loaded.
fn without_nvidia_fs(root: &Path) {
    with_nvidia_fs(root);
    fs_err::remove_dir_all(root.join("proc/driver/nvidia-fs")).unwrap();
    file(root, "proc/modules", MODULES);
    file(root, GDSCHECK, "");
}

/// No module of NVIDIA's is loaded.
fn without_driver(root: &Path) {
    complete(root);
    fs_err::remove_dir_all(root.join("proc/driver/nvidia")).unwrap();
    file(root, "proc/modules", "nvme 1 0 - Live 0x0\nnvme_core 1 1 nvme, Live 0x0\n");
    file(root, GDSCHECK, "");
}

const GDSCHECK: &str = "run/gdsboot/commands/gdscheck-1/stdout";
const SECURE_BOOT: &str = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
const MODULES: &str = "nvidia_uvm 1 0 - Live 0x0\nnvidia 1 1 nvidia_uvm, Live 0x0\nnvme 1 0 - Live 0x0\nnvme_core 1 1 nvme, Live 0x0\n";
const GOOD: &str = " GDS release version: 1.16.1.26\n nvidia_fs minimum version: 2.12\n Platform: x86_64\n \
    NVMe               : p2pdma, compat\n properties.use_pci_p2pdma : true\n properties.use_compat_mode : false\n \
    properties.force_compat_mode : false\n GPU index 0 NVIDIA H100 PCIe bar:1 bar size (MiB):131072 supports GDS, IOMMU State: Disabled\n \
    IOMMU: disabled\n Nvidia Driver Info Status: Supported(Nvidia Open Driver Installed)\n Cuda Driver Version Installed:  13010\n \
    Platform verification succeeded\n";

fn judged(build: fn(&Path), change: &[(&str, &str)]) -> Judgement {
    judged_with(build, change, None)
}

fn judged_with(build: fn(&Path), change: &[(&str, &str)], bench: Option<&Results>) -> Judgement {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    for (path, text) in change {
        file(dir.path(), path, text);
    }
    let facts = Facts::read(&Root::at(dir.path()));
    judge(&facts, side_of(&facts), bench, &[], "2026-11-24")
}

fn finding<'a>(judgement: &'a Judgement, id: &str) -> &'a Finding {
    judgement.findings.iter().find(|finding| finding.id == id).unwrap_or_else(|| panic!("{id}"))
}

#[test]
fn nothing_fails_where_everything_is_there_and_yet_nothing_is_proven() {
    for build in [complete as fn(&Path), with_nvidia_fs] {
        let judgement = judged(build, &[]);
        let failed: Vec<_> = judgement.findings.iter().filter(|f| f.status == Status::Fail).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        assert_eq!(judgement.verdict, Verdict::Incomplete);
        assert_eq!(judgement.route, Route::None);
        assert_eq!(finding(&judgement, "route.possible").status, Status::Pass);
    }
}

/// A benchmark of the machine's first GPU and drive.
fn bench() -> Results {
    healthy("0000:02:00.0", "0000:41:00.0")
}

/// The same with another outcome for every pair.
fn with_outcome(outcome: Outcome) -> Results {
    let mut bench = bench();
    for attempt in bench.pairs.iter_mut().flat_map(|pair| &mut pair.attempts) {
        attempt.proof.outcome = outcome;
    }
    bench
}

#[test]
fn a_complete_machine_passes_with_a_proof_and_only_with_one() {
    for build in [complete as fn(&Path), with_nvidia_fs] {
        let judgement = judged_with(build, &[], Some(&bench()));
        assert_eq!(
            (judgement.verdict, judgement.route),
            (Verdict::Pass, Route::Nvfs),
            "{:#?}",
            judgement.findings[0]
        );
    }
    let bounced = judged_with(complete, &[], Some(&with_outcome(Outcome::Compat)));
    assert_eq!((bounced.verdict, bounced.route), (Verdict::Fail, Route::Compat));
    assert_eq!(bounced.findings[0].id, "transfer.route");
    let unproven = judged_with(complete, &[], Some(&with_outcome(Outcome::Unproven)));
    assert_eq!((unproven.verdict, unproven.route), (Verdict::Incomplete, Route::None));
    // Wrong data, however direct.
    let mut wrong = bench();
    wrong.measurements[2].verified = Some(Verified { blocks: 1, wrong: 1, ..Verified::default() });
    let wrong = judged_with(complete, &[], Some(&wrong));
    assert_eq!((wrong.verdict, wrong.findings[0].id.as_str()), (Verdict::Fail, "transfer.data"));
    // Imitations say nothing, for or against.
    for outcome in [Outcome::Direct, Outcome::Compat] {
        let simulated = Results { simulated: true, ..with_outcome(outcome) };
        let judgement = judged_with(complete, &[], Some(&simulated));
        assert_eq!((judgement.verdict, judgement.route), (Verdict::Incomplete, Route::None));
        assert!(judgement.simulated);
    }
    assert!(!wrong.simulated);
}

#[test]
fn copies_by_the_cpu_follow_from_the_missing_piece_and_a_proof_refutes_it() {
    let multipath = &[("sys/module/nvme_core/parameters/multipath", "Y\n")];
    let bounced = judged_with(complete, multipath, Some(&with_outcome(Outcome::Compat)));
    assert_eq!((bounced.verdict, bounced.findings[0].id.as_str()), (Verdict::Fail, "p2pdma.multipath"));
    let route = finding(&bounced, "transfer.route");
    assert_eq!((route.status, route.because.as_deref()), (Status::Skip, Some("p2pdma.multipath")));
    // It still says what was seen.
    assert!(route.why.contains("copied by the CPU") && !route.evidence.is_empty(), "{}", route.why);

    let direct = judged_with(complete, multipath, Some(&bench()));
    assert_eq!(direct.verdict, Verdict::Pass);
    let refuted = finding(&direct, "p2pdma.multipath");
    assert_eq!((refuted.status, refuted.remedy.len()), (Status::Info, 0));
    assert!(refuted.why.ends_with("; yet transfers were made by DMA (nvfs)"), "{}", refuted.why);
    // What the machine's own programs would meet is not refuted by ours.
    let forced = ("etc/cufile.json", r#"{"properties": {"force_compat_mode": true}}"#);
    let forced = judged_with(complete, &[forced, (GDSCHECK, "")], Some(&bench()));
    assert_eq!(finding(&forced, "cufile.compat").status, Status::Fail);
}

#[test]
fn what_is_there_passes() {
    let judgement = judged(complete, &[]);
    for id in [
        "kernel.secure-boot",
        "driver.loaded",
        "driver.open",
        "driver.uvm",
        "driver.userland",
        "cufile.config-readable",
        "cufile.compat",
        "p2pdma.kernel",
        "p2pdma.registry-keys",
        "p2pdma.multipath",
        "p2pdma.cufile-keys",
        "storage.state",
        "storage.transport",
        "storage.filesystem",
        "storage.network-filesystem",
        "storage.o-direct",
        "storage.alignment",
        "route.possible",
        "gds.platform",
        "topology.p2pdma",
    ] {
        let finding = finding(&judgement, id);
        assert_eq!(finding.status, Status::Pass, "{id}: {}", finding.why);
    }
    let judgement = judged(with_nvidia_fs, &[]);
    for id in ["nvidia-fs.loaded", "nvidia-fs.version", "nvme.patched", "route.possible"] {
        let finding = finding(&judgement, id);
        assert_eq!(finding.status, Status::Pass, "{id}: {}", finding.why);
    }
}

/// How a machine is built, what is changed in it, and the check that must fail.
type Case<'a> = (fn(&Path), &'a [(&'a str, &'a str)], &'a str);

#[test]
fn one_change_fails_one_check_and_it_comes_among_the_first() {
    let multipath = "sys/module/nvme_core/parameters/multipath";
    let cases: &[Case<'_>] = &[
        (
            complete,
            &[(
                "proc/driver/nvidia/version",
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Release Build\n",
            )],
            "driver.open",
        ),
        (complete, &[("proc/modules", &MODULES[MODULES.find("nvidia 1").unwrap_or(0)..])], "driver.uvm"),
        (complete, &[("etc/cufile.json", "{\"properties\": {")], "cufile.config-readable"),
        (
            complete,
            &[
                ("etc/cufile.json", r#"{"properties": {"force_compat_mode": true, "use_pci_p2pdma": true}}"#),
                (GDSCHECK, ""),
            ],
            "cufile.compat",
        ),
        (
            complete,
            &[("proc/driver/nvidia/params", "RegistryDwords: \"RMForceStaticBar1=1\"\n"), (GDSCHECK, "")],
            "p2pdma.registry-keys",
        ),
        (complete, &[(multipath, "Y\n"), (GDSCHECK, "")], "p2pdma.multipath"),
        (complete, &[("sys/class/nvme/nvme0/state", "dead\n")], "storage.state"),
        (
            complete,
            &[("sys/block/md0/md/level", "raid5\n"), ("sys/block/md0/slaves/nvme0n1/x", "")],
            "storage.raid",
        ),
        (
            complete,
            &[("proc/self/mountinfo", "30 1 259:1 / /data rw - ext4 /dev/nvme0n1 rw\n")],
            "storage.filesystem",
        ),
        (
            complete,
            &[("proc/self/mountinfo", "30 1 259:1 / /data rw - btrfs /dev/nvme0n1 rw\n")],
            "storage.filesystem",
        ),
        (
            complete,
            &[("proc/self/mountinfo", "30 1 0:55 / /data rw - nfs4 server:/export rw,vers=4.2\n")],
            "storage.network-filesystem",
        ),
        (complete, &[("var/log/cufile.log", " ERROR cufio:1 fd direct IO not set\n")], "storage.o-direct"),
        (
            complete,
            &[
                ("sys/block/nvme1n1/nvme1n1p1/partition", "1\n"),
                ("sys/block/nvme1n1/nvme1n1p1/start", "63\n"),
            ],
            "storage.alignment",
        ),
        (
            without_driver,
            &[
                ("var/lib/dkms/nvidia/580.95.05/6.8.0-1030-nvidia/x86_64/log/make.log", ""),
                ("lib/modules/6.8.0-1032-nvidia/kernel/x", ""),
            ],
            "kernel.headers",
        ),
        (without_nvidia_fs, &[], "nvidia-fs.loaded"),
        (
            with_nvidia_fs,
            &[
                ("proc/kallsyms", "0 T pci_p2pdma_add_resource\n0 T nvme_core_init [nvme_core]\n"),
                (GDSCHECK, ""),
            ],
            "nvme.patched",
        ),
        (
            complete,
            &[
                (
                    GDSCHECK,
                    " GDS release version: 1.16.1.26\n nvidia_fs version:  2.27 nvidia_fs minimum version: 2.12\n NVMe : compat\n",
                ),
                ("proc/driver/nvidia/params", "RegistryDwords: \"\"\n"),
                (multipath, "Y\n"),
                ("proc/modules", ""),
            ],
            "driver.loaded",
        ),
        (complete, &[(GDSCHECK, GOOD_PLATFORM)], "gds.platform"),
    ];
    let mut wrong = Vec::new();
    for (build, change, id) in cases {
        let judgement = judged(*build, change);
        let failed: Vec<_> =
            judgement.findings.iter().filter(|f| f.status == Status::Fail).map(|f| f.id.as_str()).collect();
        if !failed.iter().take(3).any(|found| found == id) {
            let finding = finding(&judgement, id);
            wrong.push(format!("{id} is {:?} ({}), failed: {failed:?}", finding.status, finding.why));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const GOOD_PLATFORM: &str = " GDS release version: 1.16.1.26\n NVMe : p2pdma, compat\n GPU index 0 NVIDIA GeForce RTX 3090 bar:1 bar size (MiB):256 Model Not Supported, IOMMU State: Disabled\n Platform verification failed\n";

/// Debian's kernel on perfect hardware.
#[test]
fn a_kernel_without_any_route_is_one_finding() {
    let stock = [("proc/kallsyms", "0 T nvme_core_init [nvme_core]\n"), (GDSCHECK, "")];
    let judgement = judged(complete, &stock);
    let failed: Vec<_> =
        judgement.findings.iter().filter(|f| f.status == Status::Fail).map(|f| f.id.as_str()).collect();
    assert_eq!(failed, ["route.possible"]);
    assert_eq!(judgement.verdict, Verdict::Fail);
    assert_eq!(finding(&judged(complete, &[]), "route.possible").status, Status::Pass);
}

/// Only gdscheck's answer is there: a stock nvme next to nvidia-fs.
#[test]
fn a_gdscheck_alone_is_enough_to_know_that_everything_is_copied() {
    let text = " GDS release version: 1.16.1.26\n nvidia_fs version:  2.27 nvidia_fs minimum version: 2.12\n NVMe               : compat\n \
                properties.use_compat_mode : true\n Platform verification succeeded\n";
    let judgement = judged(|_| {}, &[(GDSCHECK, text)]);
    let failed: Vec<_> =
        judgement.findings.iter().filter(|f| f.status == Status::Fail).map(|f| f.id.as_str()).collect();
    assert_eq!(failed, ["gds.platform"]);
}

#[test]
fn gdschecks_word_on_acs() {
    let acs =
        GOOD.replace(" IOMMU: disabled", " Found ACS enabled for switch 0000:40:01.1\n IOMMU: disabled");
    let found = judged(complete, &[(GDSCHECK, &acs)]);
    assert_ne!(finding(&found, "gds.acs").status, Status::Pass);
    let gdscheck = judged(complete, &[]);
    assert_ne!(finding(&gdscheck, "gds.acs").status, Status::Fail);
    // The same words on bare metal.
    let metal = [
        (GDSCHECK, acs.as_str()),
        ("sys/class/dmi/id/sys_vendor", "Supermicro\n"),
        ("sys/class/dmi/id/product_name", "SYS-420GP\n"),
        ("proc/cpuinfo", "processor : 0\nvendor_id : AuthenticAMD\ncpu family : 25\nflags : fpu\n"),
    ];
    assert_eq!(finding(&judged(complete, &metal), "gds.acs").status, Status::Fail);
}

/// nvidia-fs takes RAID 0, which P2PDMA does not; of RAID 1 nobody is sure.
#[test]
fn arrays_by_route() {
    let level = |level| [("sys/block/md0/md/level", level), ("sys/block/md0/slaves/nvme0n1/x", "")];
    for (build, raid, status) in [
        (with_nvidia_fs as fn(&Path), "raid0\n", Status::Pass),
        (with_nvidia_fs, "raid1\n", Status::Info),
        (with_nvidia_fs, "raid5\n", Status::Fail),
        (complete, "raid0\n", Status::Fail),
    ] {
        let judgement = judged(build, &level(raid));
        assert_eq!(finding(&judgement, "storage.raid").status, status, "{raid}");
    }
}

#[test]
fn a_fabric_is_ready_or_not() {
    for (state, status) in [("Completed", Status::Pass), ("N/A", Status::Pass), ("In Progress", Status::Fail)]
    {
        let text = format!(
            "==============NVSMI LOG==============\nDriver Version : 580.95.05\n\nGPU 00000000:01:00.0\n    Fabric\n        State                             : {state}\n        Status                            : Success\n"
        );
        let judgement = judged(
            complete,
            &[
                ("run/gdsboot/commands/nvidia-smi-1/stdout", &text),
                ("run/gdsboot/commands/nvidia-smi-1/argv", "nvidia-smi\n-q\n"),
            ],
        );
        let finding = finding(&judgement, "driver.fabric-manager");
        assert_eq!(finding.status, status, "{state}: {}", finding.why);
    }
}

/// Modules that were built here for the kernel that runs pass; those for another that are loaded are worth a note.
#[test]
fn modules_that_are_built_here() {
    let built = |kernel: &str| format!("var/lib/dkms/nvidia/580.95.05/{kernel}/x86_64/log/make.log");
    for (kernel, status) in [("6.8.0-1032-nvidia", Status::Pass), ("6.8.0-1030-nvidia", Status::Info)] {
        let judgement = judged(complete, &[(&built(kernel), "")]);
        assert_eq!(finding(&judgement, "kernel.headers").status, status, "{kernel}");
    }
    assert_eq!(finding(&judged(complete, &[]), "kernel.headers").status, Status::NotApplicable);
    let absent = judged(without_driver, &[(&built("6.8.0-1030-nvidia"), "")]);
    assert_eq!(finding(&absent, "driver.loaded").status, Status::Skip);
}

/// A drive over a network beside a local one: worth knowing by itself, a failure where P2PDMA is asked of it.
#[test]
fn drives_over_a_network() {
    let rdma = ("sys/class/nvme/nvme0/transport", "rdma\n");
    let beside = judged(complete, &[rdma]);
    assert_eq!(finding(&beside, "storage.transport").status, Status::Info);
    assert_eq!(finding(&beside, "p2pdma.fabrics").status, Status::Info);
    let failed = [rdma, ("var/log/app.log", "write failed : Input/output error\n")];
    assert_eq!(finding(&judged(complete, &failed), "p2pdma.fabrics").status, Status::Fail);
    assert_eq!(finding(&judged(complete, &[]), "p2pdma.fabrics").status, Status::NotApplicable);
}

/// Loaded modules that look for another version of the hook than nvme has.
#[test]
fn hooks_of_two_versions_do_not_meet() {
    let dir = tempfile::tempdir().unwrap();
    with_nvidia_fs(dir.path());
    let mut facts = Facts::read(&Root::at(dir.path()));
    let wants = |symbol: &str| crate::facts::Fact::known("nvidia-fs.ko", vec![symbol.to_owned()]);
    for (symbol, status) in
        [("nvme_v1_register_nvfs_dma_ops", Status::Pass), ("nvme_v2_register_nvfs_dma_ops", Status::Fail)]
    {
        facts.nvidia_fs_wants = wants(symbol);
        let judgement = judge(&facts, side_of(&facts), None, &[], "2026-11-24");
        assert_eq!(finding(&judgement, "nvme.hook-version").status, status);
    }
}

/// Old, but told to be loaded all the same: worth knowing. Not loaded, and too old for the kernel: to be mended.
#[test]
fn versions_against_the_kernel() {
    let old = [("proc/driver/nvidia-fs/version", "version: 2.17\n")];
    assert_eq!(finding(&judged(with_nvidia_fs, &old), "nvidia-fs.version").status, Status::Fail);
    let driver = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  470.95.05  Release Build\n";
    let branch = judged(complete, &[("proc/driver/nvidia/version", driver)]);
    assert_ne!(finding(&branch, "driver.branch").status, Status::Pass);
}

/// Logs of a hypervisor, and of a guest whose driver gave up.
#[test]
fn logs_that_name_the_cause() {
    for (path, text, id) in [
        (
            "var/log/libvirt/qemu/vm.log",
            "0000:01:00.0: PCI peer-to-peer transactions on BARs are not supported.\n",
            "host.bar-mapping",
        ),
        (
            "var/log/dmesg",
            "[    0.000000] Linux version 6.8.0\n[    9.000000] NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0x65:1792)\n",
            "driver.rm-init",
        ),
        (
            "var/log/windows.log",
            "Windows has stopped this device because it has reported problems. (Code 43) nvidia\n",
            "driver.code-43",
        ),
    ] {
        let judgement = judged(|_| {}, &[(path, text)]);
        let finding = finding(&judgement, id);
        assert!(
            matches!(finding.status, Status::Fail | Status::Info),
            "{id}: {:?} {}",
            finding.status,
            finding.why
        );
    }
}
