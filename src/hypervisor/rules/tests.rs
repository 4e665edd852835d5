//! Each rule on configurations that break it, in all three forms, and on a good one.

use super::*;
use crate::checks::check::Side;
use crate::checks::check::{Finding, Status};
use crate::checks::testing::{GPU_AT, NVME_AT, add, edit, good};
use crate::facts::pci::{Bar, Id};
use crate::facts::{Fact, Facts};
use crate::hypervisor::context::Hints;
use crate::hypervisor::judge::{findings, judge};
use crate::hypervisor::machine::Machine;
use crate::hypervisor::proxmox::Mappings;
use crate::hypervisor::source;
use crate::report::model::Verdict;
use std::collections::HashSet;

mod remedies;

fn read(text: &str) -> Machine {
    source::read("100.conf", text.as_bytes(), None, &Mappings::default()).unwrap()
}

/// A host that has both devices below one switch, each with the BARs of a large one.
fn host() -> Facts {
    let mut facts = good(Side::Host);
    edit(&mut facts, GPU_AT, |gpu| {
        let bar = |index, size| Bar { index, start: 1 << 40, size, flags: 0x14_220c };
        gpu.bars = Fact::known("resource", vec![bar(0, 128 << 30), bar(2, 32 << 20)]);
    });
    facts
}

fn found(text: &str, host: Option<&Facts>) -> Vec<Finding> {
    findings(&Context::new(&read(text), host, &Hints::default()))
}

fn one(text: &str, host: Option<&Facts>, id: &str) -> Finding {
    found(text, host).into_iter().find(|finding| finding.id == id).expect(id)
}

fn args() -> String {
    format!(
        "args: -fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=524288 -device pcie-root-port,id=rp,bus=pcie.0,addr=0x10 \
         -device x3130-upstream,id=up,bus=rp -device xio3130-downstream,id=d0,bus=up -device xio3130-downstream,id=d1,bus=up \
         -device vfio-pci,host={GPU_AT},bus=d0 -device vfio-pci,host={NVME_AT},bus=d1\n"
    )
}

/// Good in all that rules ask.
fn fine() -> String {
    format!(
        "{}balloon: 0\nbios: ovmf\ncpu: host\nefidisk0: a:b,pre-enrolled-keys=0\nhugepages: 1024\nmachine: q35\nmemory: 65536\n\
         numa: 1\nscsi0: a:c\nsmbios1: uuid=11111111-2222-3333-4444-555555555555\n",
        args()
    )
}

#[test]
fn nothing_fails_on_a_good_configuration() {
    let host = host();
    let judgement = judge(&Context::new(&read(&fine()), Some(&host), &Hints::default()));
    let bad: Vec<_> = judgement
        .findings
        .iter()
        .filter(|f| !matches!(f.status, Status::Pass | Status::NotApplicable))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!(judgement.verdict, Verdict::Incomplete);
}

#[test]
fn every_rule_has_an_id_a_source_and_its_causes_before_it() {
    let mut seen = HashSet::new();
    for rule in all() {
        assert!(rule.requires.iter().all(|id| seen.contains(id)), "{}", rule.id);
        assert!(seen.insert(rule.id), "{} is there twice", rule.id);
        assert!(!rule.references.is_empty() && !rule.rationale.is_empty() && !rule.title.is_empty());
    }
}

/// Every rule fails, or says what it should, on a line that breaks it.
#[test]
fn each_rule_finds_what_it_is_for() {
    let host = host();
    let with = |line: &str| {
        // A line takes the place of the good one with its key.
        let key = line.split(':').next().unwrap();
        let mut text: String =
            fine().lines().filter(|l| l.split(':').next() != Some(key)).map(|l| format!("{l}\n")).collect();
        text.push_str(line);
        text.push('\n');
        text
    };
    let cases = [
        ("machine: pc-i440fx-9.0", "vm.machine-type", Status::Fail),
        ("kvm: 0", "vm.emulator", Status::Fail),
        ("cpu: x86-64-v2-AES", "vm.cpu-type", Status::Fail),
        ("cpu: host,phys-bits=40", "vm.cpu-type", Status::Fail),
        ("bios: seabios", "vm.firmware", Status::Fail),
        ("cpu: host,hidden=1", "vm.hidden", Status::Fail),
        ("machine: q35,viommu=virtio", "iommu.guest", Status::Fail),
        ("amd-sev: std", "vm.confidential", Status::Fail),
        ("efidisk0: a:b,pre-enrolled-keys=1", "vm.secure-boot", Status::Fail),
        ("balloon: 2048", "vm.balloon", Status::Fail),
        ("hugepages: ", "vm.hugepages", Status::Fail),
        ("memory: 2048", "vm.memory", Status::Fail),
        ("scsi0: a:c,media=cdrom", "vm.report-disk", Status::Fail),
        ("[PENDING]\nballoon: 1", "vm.pending", Status::Info),
        ("colour: red", "vm.understood", Status::Info),
        ("hostpci0: 0000:99:00.0,pcie=1", "vm.devices", Status::Fail),
        ("numa0: cpus=0-7,hostnodes=0;1,memory=65536,policy=bind", "vm.accepted", Status::Fail),
        ("cpu: custom-mine", "vm.cpu-type", Status::Unknown),
        ("intel-tdx: tdx", "vm.confidential", Status::Fail),
        ("hostpci0: 0000:99:00.0,mdev=nvidia-1,pcie=1", "vm.mediated", Status::Fail),
        ("args: -fw_cfg name=a,string=b", "vm.gpu", Status::Fail),
    ];
    for (line, id, status) in cases {
        let finding = one(&with(line), Some(&host), id);
        assert_eq!(finding.status, status, "{line}: {finding:?}");
        let has_remedy = !finding.remedy.is_empty() || id == "vm.understood";
        assert!(has_remedy, "{line}: {finding:?}");
    }
}

#[test]
fn a_mapping_fails_only_where_the_mappings_were_read() {
    let host = host();
    let text = format!("{}hostpci0: mapping=gpu,pcie=1\n", fine());
    let status = |mappings: &Mappings| {
        let machine = source::read("100.conf", text.as_bytes(), None, mappings).unwrap();
        let found = findings(&Context::new(&machine, Some(&host), &Hints::default()));
        found.into_iter().find(|f| f.id == "vm.devices").unwrap()
    };
    assert_eq!(status(&Mappings::default()).status, Status::Unknown);
    let elsewhere = format!("gpu\n\tmap node=other,path={GPU_AT}\n");
    let none = status(&Mappings::parse(&elsewhere, Some("pve")));
    assert!(none.status == Status::Fail && none.why.contains("no device on this node"), "{none:?}");
    assert_eq!(status(&Mappings::parse(&elsewhere, Some("other"))).status, Status::Pass);
}

#[test]
fn libvirt_refuses_reserved_names() {
    let xml = "<domain type='kvm'><sysinfo type='fwcfg'><entry name='opt/ovmf/X-PciMmio64Mb'>524288</entry></sysinfo></domain>";
    let finding = one(xml, None, "vm.accepted");
    assert_eq!((finding.status, finding.severity), (Status::Fail, Severity::Blocker));
    assert!(finding.remedy[0].text.contains("qemu:commandline"), "{finding:?}");
    assert_eq!(one(&fine(), None, "vm.accepted").status, Status::Pass);
}

#[test]
fn what_a_shell_puts_in_is_open() {
    let host = host();
    let line = format!("qemu-system-x86_64 -accel kvm -device vfio-pci,host={GPU_AT} \"${{ARGS[@]}}\"");
    let found = found(&line, Some(&host));
    assert!(found.iter().all(|finding| finding.status != Status::Fail), "{found:#?}");
    for id in crate::hypervisor::judge::BY_ABSENCE {
        let finding = found.iter().find(|finding| finding.id == id).unwrap_or_else(|| panic!("{id}"));
        assert_ne!(finding.status, Status::Pass, "{finding:?}");
    }
    let machine = found.iter().find(|finding| finding.id == "vm.machine-type").unwrap();
    assert!(machine.status == Status::Unknown && machine.why.contains("${ARGS[@]}"), "{machine:?}");
}

#[test]
fn models_of_a_zen_are_as_good_as_the_host_on_one() {
    let mut host = host();
    let on = |host: &Facts, cpu: &str| {
        let text = fine().replace("cpu: host\n", &format!("cpu: {cpu}\n"));
        one(&text, Some(host), "vm.cpu-type").status
    };
    assert_eq!(on(&host, "EPYC-Genoa,phys-bits=host"), Status::Fail);
    let unknown = Facts { cpu: Fact::not_read("a test"), ..host.clone() };
    assert_eq!(on(&unknown, "EPYC-Genoa,phys-bits=host"), Status::Unknown);
    let Fact::Known { value: cpu, .. } = &mut host.cpu else { panic!("a CPU") };
    (cpu.vendor, cpu.family) = ("AuthenticAMD".into(), Some(0x19));
    assert_eq!(on(&host, "EPYC-Genoa,phys-bits=host"), Status::Pass);
    assert_eq!(on(&host, "EPYC,phys-bits=48"), Status::Pass);
    assert_eq!(on(&host, "EPYC,phys-bits=40"), Status::Fail);
    assert_eq!(on(&host, "EPYC-Genoa"), Status::Fail);
    assert_eq!(on(&host, "x86-64-v4,phys-bits=host"), Status::Fail);
    let xml = "<domain type='kvm'><cpu mode='host-model'><maxphysaddr mode='passthrough'/></cpu></domain>";
    assert_eq!(one(xml, Some(&host), "vm.cpu-type").status, Status::Pass);
    // p2pdma sees the family too.
    let zen = |cpu: &str| {
        let text = flat(&format!("{GPU_AT},pcie=1"), &format!("{NVME_AT},pcie=1"));
        one(&text.replace("cpu: host\n", &format!("cpu: {cpu}\n")), Some(&host), "topology.p2pdma").status
    };
    assert_eq!(zen("EPYC-Genoa,phys-bits=host"), Status::Pass);
    assert_eq!(zen("custom-mine"), Status::Unknown);
}

#[test]
fn a_pair_that_the_hardware_passes_on_counts_wherever_it_stands() {
    // Another GPU that is near nothing: below a root port of its own.
    let mut host = host();
    add(&mut host, 0x03_0200, "10de:2331", "0000:00:02.0/0000:0a:00.0");
    let text = format!("{}hostpci3: 0a:00.0,pcie=1\n", fine());
    // A host bridge that is on no list passes nothing on.
    assert_eq!(one(&text, Some(&host), "topology.p2pdma").status, Status::Info);
    edit(&mut host, "0000:00:00.0", |bridge| bridge.device = Fact::known("device", Id(0x09a2)));
    let finding = one(&text, Some(&host), "topology.p2pdma");
    assert_eq!(finding.status, Status::Fail, "{finding:?}");
    assert!(finding.why.contains("hostpci3") && !finding.why.contains(GPU_AT), "{}", finding.why);
}

#[test]
fn a_device_that_a_shell_puts_in_is_unknown() {
    let host = host();
    let line = |more: &str| {
        format!(
            "qemu-system-x86_64 -accel kvm -M q35 -device vfio-pci,host=$GPU -device vfio-pci,host={NVME_AT}{more}"
        )
    };
    for id in ["vm.devices", "vm.gpu"] {
        assert_eq!(one(&line(""), Some(&host), id).status, Status::Unknown, "{id}");
    }
    // What it does not put in fails all the same.
    let gone = one(&line(" -device vfio-pci,host=x"), Some(&host), "vm.devices");
    assert!(gone.status == Status::Fail && gone.why.contains("vfio-pci x names no device"), "{gone:?}");
    assert_eq!(gone.remedy[0].commands, ["lspci -D"]);
    assert_eq!(one(&line(""), Some(&host), "vm.cpu-type").status, Status::Fail);
}

#[test]
fn pairs_on_a_bus_that_is_not_there_are_unknown() {
    let host = host();
    let line = |bus: &str| {
        format!(
            "qemu-system-x86_64 -accel kvm -cpu host -M q35 -readconfig x.cfg -device pcie-root-port,id=a \
             -device pcie-root-port,id=b -device vfio-pci,host={GPU_AT},bus=a -device vfio-pci,host={NVME_AT},bus={bus}"
        )
    };
    assert_eq!(one(&line("b"), Some(&host), "topology.p2pdma").because.as_deref(), Some("vm.topology"));
    assert_eq!(one(&line("gone"), Some(&host), "topology.p2pdma").status, Status::Unknown);
}

fn flat(gpu: &str, nvme: &str) -> String {
    let rest: String = fine().lines().skip(1).map(|line| format!("{line}\n")).collect();
    format!(
        "args: -fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=524288\nhostpci0: {gpu}\nhostpci1: {nvme}\n{rest}",
    )
}

#[test]
fn a_flat_guest_of_a_host_with_a_switch() {
    let mut host = host();
    let text = flat(&format!("{GPU_AT},pcie=1"), &format!("{NVME_AT},pcie=1"));
    let finding = one(&text, Some(&host), "vm.topology");
    assert_eq!(finding.status, Status::Fail);
    assert!(
        finding
            .why
            .starts_with("the guest sees PHB for hostpci0 and hostpci1; the host has them below one switch"),
        "{}",
        finding.why
    );
    assert!(finding.remedy[0].commands[0].contains("vm plan --topology switch"), "{:?}", finding.remedy);
    assert_eq!(one(&text, Some(&host), "topology.p2pdma").status, Status::Skip);
    assert_eq!(one(&text, None, "vm.topology").status, Status::Unknown);
    // Zen asks for no switch.
    let Fact::Known { value: cpu, .. } = &mut host.cpu else { panic!("a CPU") };
    (cpu.vendor, cpu.family) = ("AuthenticAMD".into(), Some(0x19));
    let finding = one(&text, Some(&host), "vm.topology");
    assert_eq!((finding.status, finding.severity), (Status::Fail, Severity::Minor));
    assert_eq!(one(&text, Some(&host), "topology.p2pdma").status, Status::Pass);
}

#[test]
fn devices_without_a_port() {
    let mut host = host();
    let finding = one(&flat(GPU_AT, &format!("{NVME_AT},pcie=1")), Some(&host), "vm.pcie");
    assert_eq!(finding.status, Status::Fail);
    assert_eq!(finding.remedy[0].commands[0], format!("qm set 100 -hostpci0 {GPU_AT},pcie=1"));
    let line = format!(
        "qemu-system-x86_64 -M q35 -accel kvm -device vfio-pci,host={GPU_AT},x-vga=on,iommufd=i0 -device vfio-pci,host={NVME_AT},bus=gone"
    );
    assert_eq!(one(&line, Some(&host), "vm.pcie").status, Status::Unknown);
    assert_eq!(one(&line.replace(",bus=gone", ""), Some(&host), "vm.pcie").severity, Severity::Minor);
    assert_eq!(one(&line, Some(&host), "vm.display").status, Status::Fail);
    assert_eq!(one(&line, Some(&host), "vm.iommufd").status, Status::Unknown);
    assert_eq!(one(&line, None, "vm.iommufd").status, Status::Unknown);
    for (release, status) in [("6.8.12-4-pve", Status::Fail), ("6.19.0", Status::Info)] {
        host.kernel.release = Fact::known("osrelease", release.into());
        assert_eq!(one(&line, Some(&host), "vm.iommufd").status, status, "{release}");
    }
    assert_eq!(one(&line, Some(&host), "vm.memory-lock").status, Status::Unknown);
}

#[test]
fn virtual_disks_are_no_nvme_controllers() {
    let host = host();
    let flat = flat(&format!("{GPU_AT},pcie=1"), "0000:00:00.0,pcie=1");
    let finding = one(&flat, Some(&host), "vm.nvme");
    assert_eq!(finding.status, Status::Fail);
    assert!(finding.why.contains("virtual") && finding.actual.unwrap().contains("scsi0"), "{}", finding.why);
    let emulated =
        format!("qemu-system-x86_64 -M q35 -device vfio-pci,host={GPU_AT} -device nvme,serial=a,drive=b");
    assert!(one(&emulated, Some(&host), "vm.nvme").why.contains("emulates"));
    // Nobody knows what the devices are.
    assert_eq!(one(&fine(), None, "vm.nvme").status, Status::Unknown);
    assert_eq!(one(&fine(), None, "vm.gpu").status, Status::Unknown);
}

#[test]
fn the_window_is_judged_by_what_is_known() {
    let facts = host();
    let window = |cpu: &str, told: &str| {
        let text = fine()
            .replace("cpu: host", cpu)
            .replace("-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=524288", told);
        one(&text, Some(&facts), "vm.mmio-window")
    };
    assert_eq!(window("cpu: host", "").status, Status::Info);
    assert!(window("cpu: host", "").why.contains("41 bits"), "{}", window("cpu: host", "").why);
    assert_eq!(window("cpu: host,phys-bits=46", "").status, Status::Pass);
    assert_eq!(window("cpu: host,phys-bits=40", "").status, Status::Fail);
    let fails = window("cpu: kvm64", "-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=65536");
    assert_eq!(fails.status, Status::Fail);
    assert!(fails.remedy[0].commands[0].contains("string=262144"), "{:?}", fails.remedy);
    assert!(window("cpu: host", "-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=much").why.contains("no number"));
    // More than OVMF takes of any width of addresses.
    let hints = Hints { gpus: vec![GPU_AT.into()], bar: Some(16 << 40), ..Hints::default() };
    let machine = read(&flat(GPU_AT, NVME_AT).replace("string=524288", "string=1024"));
    let all = findings(&Context::new(&machine, None, &hints));
    let finding = all.iter().find(|f| f.id == "vm.mmio-window").unwrap();
    assert!(finding.status == Status::Fail && finding.why.ends_with("and OVMF has 8192 GiB"), "{finding:?}");
    // The user's word where the host is not known.
    let hints = Hints { gpus: vec![GPU_AT.into()], bar: Some(128 << 30), ..Hints::default() };
    let told = findings(&Context::new(&read(&fine()), None, &hints));
    assert_eq!(told.iter().find(|f| f.id == "vm.mmio-window").unwrap().status, Status::Pass);
}

#[test]
fn memory_and_functions() {
    let mut host = host();
    host.numa_nodes = Fact::known("node", vec![0, 1]);
    for address in [GPU_AT, NVME_AT] {
        edit(&mut host, address, |device| device.numa_node = Fact::known("numa_node", 1));
    }
    let finding = one(&fine(), Some(&host), "vm.numa");
    assert_eq!((finding.status, finding.severity), (Status::Fail, Severity::Info));
    let bound = |node: u32| format!("{}numa0: cpus=0-1,hostnodes={node},memory=65536,policy=bind\n", fine());
    assert_eq!(one(&bound(0), Some(&host), "vm.numa").severity, Severity::Minor);
    assert_eq!(one(&bound(1), Some(&host), "vm.numa").status, Status::Pass);
    let slot = GPU_AT.rsplit_once('.').unwrap().0;
    add(&mut host, 0x04_0300, "10de:22ba", &format!("0000:00:01.0/{slot}.1"));
    let finding = one(&fine(), Some(&host), "vm.functions");
    assert!(finding.status == Status::Fail && finding.why.contains(".1"), "{finding:?}");
    let xml = "<domain type='kvm'><os><type machine='q35'/></os><memory unit='GiB'>64</memory><memtune><hard_limit unit='GiB'>64</hard_limit></memtune></domain>";
    assert_eq!(one(xml, Some(&host), "vm.memory-lock").status, Status::Fail);
}

#[test]
fn remedies_speak_the_language_of_the_configuration() {
    let command = |text: &str| one(text, None, "vm.machine-type").remedy[0].commands[0].clone();
    assert_eq!(command("memory: 1024\n"), "qm set 100 -machine q35");
    assert!(command("<domain><os><type machine='pc'/></os></domain>").starts_with("<os>"));
    assert_eq!(command("qemu-system-x86_64 -m 4G"), "-machine q35,accel=kvm");
}

#[test]
fn two_gpus_and_a_clique() {
    let mut host = host();
    add(&mut host, 0x03_0200, "10de:2331", "0000:00:02.0/0000:0a:00.0");
    let text = format!("{}hostpci3: 0a:00.0,pcie=1\n", fine());
    assert_eq!(one(&text, Some(&host), "topology.clique").status, Status::Info);
    assert_eq!(one(&fine(), Some(&host), "topology.clique").status, Status::NotApplicable);
}
