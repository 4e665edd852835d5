use super::*;
use crate::checks::check::{Severity, Status};
use crate::checks::testing::controller;
use crate::checks::virtual_machine::bookkeeping;
use crate::error::{hint_of, one_line};
use crate::facts::block::{BlockDevice, Partition};
use crate::facts::mounts::Mount;
use crate::facts::nvme::{NvmeController, NvmeNamespace};
use crate::facts::pci::{Bar, PciDevice};
use crate::facts::{Fact, Facts};
use crate::hypervisor::context::{Context, Hints};
use crate::hypervisor::judge::judge;
use crate::hypervisor::proxmox::Mappings;
use crate::hypervisor::source;
use crate::report::model::Verdict;
use crate::topology::testing::{GPU, NVME, PORT, device, machine};
use proptest::prelude::*;

const UUID: &str = "11111111-2222-3333-4444-555555555555";

/// Where a device hangs on a made-up host: below a port of a switch, or at a root port; of the first root or of another, which
/// is below a host bridge of its own.
#[derive(Clone, Copy, Debug)]
struct Spot {
    switch: Option<u8>,
    node: i32,
    root: u8,
}

/// A host with GPUs and controllers at these spots; each GPU has an audio function.
fn host(vendor: &str, gpus: &[Spot], nvmes: &[Spot]) -> (Facts, Vec<String>, Vec<String>) {
    let mut devices: Vec<PciDevice> = Vec::new();
    // The second root has a host bridge that is on no list of the kernel's.
    for (root, bridge) in [(0, "8086:09a2"), (1, "8086:29c0")] {
        devices.push(device((0x06_0000, bridge), &format!("{root:04x}:00:00.0")));
        for switch in 0..4 {
            let port = format!("{root:04x}:00:{:02x}.0", 0x10 + switch);
            devices.push(device(PORT, &port));
            devices.push(device(PORT, &format!("{port}/{root:04x}:{:02x}:00.0", 0x20 + switch)));
        }
    }
    let (mut gpu_at, mut nvme_at) = (Vec::new(), Vec::new());
    for (number, spot) in gpus.iter().chain(nvmes).enumerate() {
        let is_gpu = number < gpus.len();
        let bus = 0x80 + number;
        let root = format!("{:04x}", spot.root);
        let above = match spot.switch {
            Some(switch) => format!(
                "{root}:00:{:02x}.0/{root}:{:02x}:00.0/{root}:{:02x}:{number:02x}.0",
                0x10 + switch,
                0x20 + switch,
                0x30 + switch
            ),
            None => format!("{root}:00:01.{}/{root}:{:02x}:00.0", number % 8, 0x60 + number),
        };
        devices.push(device(PORT, &above));
        let address = format!("{root}:{bus:02x}:00.0");
        let mut found =
            device(if is_gpu { GPU } else { NVME }, &format!("{above}/{address}")).on_node(spot.node);
        let bar = |index, size| Bar { index, start: 1 << 40, size, flags: 0x14_220c };
        if is_gpu {
            found.bars = Fact::known("resource", vec![bar(0, 128 << 30), bar(2, 32 << 20)]);
            devices.push(device((0x04_0300, "10de:22ba"), &format!("{above}/{root}:{bus:02x}:00.1")));
            gpu_at.push(address);
        } else {
            // A drive's registers are not prefetchable; some drives have memory beside them.
            let registers = Bar { flags: 0x14_0204, ..bar(0, 16 << 10) };
            let memory = bar(4, 256 << 20);
            found.bars = Fact::known(
                "resource",
                if number % 2 == 0 { vec![registers] } else { vec![registers, memory] },
            );
            nvme_at.push(address);
        }
        devices.push(found);
    }
    let mut facts = machine(vendor, 0x19, devices);
    facts.numa_nodes = Fact::known("node", (0..12).collect());
    (facts, gpu_at, nvme_at)
}

fn request<'a>(facts: Option<&'a Facts>, gpus: &[String], nvmes: &[String]) -> Request<'a> {
    Request {
        gpus: gpus.to_vec(),
        nvmes: nvmes.to_vec(),
        host: facts,
        bar: None,
        tree: Tree::Auto,
        vmid: 100,
        name: "gdsboot".into(),
        uuid: UUID.into(),
        memory: 64 << 30,
        cpus: 16,
        image: "/var/lib/gdsboot/gdsboot.img".into(),
        storage: "local-lvm".into(),
    }
}

const fn at(switch: u8, node: i32) -> Spot {
    Spot { switch: Some(switch), node, root: 0 }
}

/// Two GPUs, one of them below a switch with a controller.
fn sample() -> Plan {
    let (facts, gpus, nvmes) =
        host("GenuineIntel", &[at(0, 1), Spot { switch: None, node: 1, root: 1 }], &[at(0, 1)]);
    plan(&request(Some(&facts), &gpus, &nvmes)).unwrap()
}

fn text(plan: &Plan, kind: Kind) -> String {
    plan.write(kind).iter().map(|file| format!("== {}\n{}", file.name, file.text)).collect()
}

#[test]
fn for_proxmox() {
    insta::assert_snapshot!(text(&sample(), Kind::Proxmox));
}

#[test]
fn for_libvirt() {
    insta::assert_snapshot!(text(&sample(), Kind::Libvirt));
}

#[test]
fn for_qemu() {
    insta::assert_snapshot!(text(&sample(), Kind::Qemu));
}

#[test]
fn the_tree_is_decided_with_a_reason() {
    let reason = |vendor: &str, gpu: Spot, nvme: Spot| {
        let (facts, gpus, nvmes) = host(vendor, &[gpu], &[nvme]);
        let plan = plan(&request(Some(&facts), &gpus, &nvmes)).unwrap();
        (plan.groups.iter().filter(|group| group.switch).count(), plan.reasons.last().unwrap().clone())
    };
    let (switches, why) = reason("GenuineIntel", at(0, 0), at(0, 0));
    assert!(switches == 1 && why.contains("below one switch"), "{why}");
    // The host bridge is on the kernel's list.
    let (switches, why) = reason("GenuineIntel", at(0, 0), at(1, 0));
    assert!(switches == 1 && why.contains("over the root complex"), "{why}");
    let (switches, why) = reason("AuthenticAMD", at(0, 0), at(1, 0));
    assert!(switches == 0 && why.contains("AMD Zen"), "{why}");
    let told = |tree| {
        let gpus = ["0000:01:00.0".to_owned()];
        let nvmes = ["0000:02:00".to_owned()];
        let request = Request { tree, bar: Some(64 << 30), ..request(None, &gpus, &nvmes) };
        plan(&request).unwrap()
    };
    assert!(told(Tree::Auto).reasons.last().unwrap().contains("not known"));
    assert_eq!(told(Tree::Switch).groups.len(), 1);
    assert_eq!(told(Tree::Ports).groups.len(), 2);
    // BAR1 and the registers beside it take two times its size, by which a window is aligned.
    assert_eq!(told(Tree::Ports).window_mib, 128 << 10);
}

#[test]
fn each_node_of_the_host_has_its_part() {
    let two = |cpus, second| {
        let (facts, gpus, nvmes) = host("GenuineIntel", &[at(0, 1)], &[at(0, second)]);
        let plan =
            plan(&Request { cpus, memory: (64 << 30) + (2 << 20), ..request(Some(&facts), &gpus, &nvmes) });
        text(&plan.unwrap(), Kind::Proxmox)
    };
    let both = two(15, 9);
    assert!(both.contains("numa0: cpus=0-6,hostnodes=1,memory=32768,policy=bind\n"), "{both}");
    assert!(both.contains("numa1: cpus=7-14,hostnodes=9,memory=32770,policy=bind\n"), "{both}");
    assert!(both.contains("hugepagesz=2M hugepages=1:16384,9:16385"), "{both}");
    // No form of Proxmox has these.
    for (cpus, second) in [(1, 9), (15, 10)] {
        let unbound = two(cpus, second);
        assert!(!unbound.contains("numa0") && unbound.contains("binds it to no node"), "{unbound}");
        assert!(unbound.contains("hugepages=0:32769"), "{unbound}");
    }
    assert!(two(2, 1).contains("numa0: cpus=0-1,hostnodes=1,memory=65538,policy=bind\n"));
}

#[test]
fn what_cannot_be_planned_is_refused() {
    let (mut facts, gpus, nvmes) = host("GenuineIntel", &[at(0, 0)], &[at(0, 0)]);
    let why = |facts: Option<&Facts>, gpus: &[String], nvmes: &[String]| {
        let error = plan(&request(facts, gpus, nvmes)).unwrap_err();
        format!("{}; {}", one_line(&error), hint_of(&error).unwrap())
    };
    assert!(why(Some(&facts), &nvmes, &gpus).contains("is no NVIDIA GPU; the host has 0000:80:00.0"));
    assert!(why(Some(&facts), &["0000:99:00.0".into()], &nvmes).contains("no device 0000:99:00.0"));
    assert!(why(Some(&facts), &[gpus[0].clone(), gpus[0].clone()], &nvmes).contains("twice"));
    assert!(why(None, &gpus, &nvmes).contains("--bar-size"));
    // What nobody looks at on a host is looked at all the same.
    let same = ["0000:41:00.0".to_owned()];
    let twice = Request { bar: Some(64 << 30), ..request(None, &same, &["0000:41:00".into()]) };
    assert!(one_line(&plan(&twice).unwrap_err()).contains("as --gpu and as --nvme"));
    let namespace = NvmeNamespace {
        name: "nvme3n1".into(),
        bytes: Fact::not_read("a test"),
        block_size: Fact::not_read("a test"),
        wwid: Fact::not_read("a test"),
    };
    let controller = NvmeController { namespaces: vec![namespace], ..controller(&nvmes[0], "a model") };
    facts.nvme = Fact::known("nvme", vec![controller]);
    let part = |holders: &[&str]| Partition {
        name: "nvme3n1p3".into(),
        holders: holders.iter().map(|holder| (*holder).to_owned()).collect(),
        ..Partition::default()
    };
    let disk = |holders: &[&str]| BlockDevice {
        name: "nvme3n1".into(),
        partitions: vec![part(holders)],
        ..BlockDevice::default()
    };
    facts.block = Fact::known("block", vec![disk(&[])]);
    let careful = plan(&request(Some(&facts), &gpus, &nvmes)).unwrap();
    assert!(careful.reasons[0].contains("zpool status"), "{:?}", careful.reasons);
    facts.block = Fact::known("block", vec![disk(&["dm-0"])]);
    assert!(why(Some(&facts), &gpus, &nvmes).contains("dm-0 is made of nvme3n1p3"));
    facts.block = Fact::known("block", vec![disk(&[])]);
    facts.swaps = Fact::known("swaps", vec!["/swapfile".into(), "/dev/nvme3n1p1".into()]);
    assert!(why(Some(&facts), &gpus, &nvmes).contains("/dev/nvme3n1p1 is swap space"));
    facts.swaps = Fact::known("swaps", vec!["/dev/nvme3n10".into()]);
    assert!(plan(&request(Some(&facts), &gpus, &nvmes)).is_ok());
    // The second disk of a Btrfs is in no table of mounts.
    facts.btrfs = Fact::known("btrfs", vec!["nvme3n1".into()]);
    assert!(why(Some(&facts), &gpus, &nvmes).contains("nvme3n1 is part of a Btrfs"));
    facts.btrfs = Fact::known("btrfs", vec![]);
    // A card with two controllers, of which the second one is in use.
    let Fact::Known { value: controllers, .. } = &mut facts.nvme else { panic!("controllers") };
    controllers[0].address = Fact::known("address", nvmes[0].replace(".0", ".1"));
    let Fact::Known { value: devices, .. } = &mut facts.pci else { panic!("devices") };
    let second = devices.iter().find(|device| device.address == nvmes[0]).unwrap().clone();
    devices.push(PciDevice {
        address: nvmes[0].replace(".0", ".1"),
        physical_function: Fact::not_read("a test"),
        ..second
    });
    let mount = Mount { at: "/".into(), source: "/dev/nvme3n1p2".into(), ..Mount::default() };
    facts.mounts = Fact::known("mounts", vec![mount]);
    assert!(why(Some(&facts), &gpus, &nvmes).contains("/dev/nvme3n1p2 is mounted at /"));
}

#[test]
fn what_a_report_says_is_no_command() {
    let (mut facts, gpus, nvmes) = host("GenuineIntel", &[at(0, 0)], &[at(0, 0)]);
    let space = NvmeNamespace {
        name: "nvme0n1\nreboot #-->".into(),
        bytes: Fact::not_read("a test"),
        block_size: Fact::not_read("a test"),
        wwid: Fact::not_read("a test"),
    };
    let mut controller = controller(&nvmes[0], "nvme0");
    controller.namespaces = vec![space];
    facts.nvme = Fact::known("nvme", vec![controller]);
    let part = Partition { name: "p1".into(), ..Partition::default() };
    let name = "nvme0n1\nreboot #-->".to_owned();
    facts.block =
        Fact::known("block", vec![BlockDevice { name, partitions: vec![part], ..BlockDevice::default() }]);
    let Fact::Known { value: devices, .. } = &mut facts.pci else { panic!("devices") };
    let mut second = devices.iter().find(|device| device.address == nvmes[0]).unwrap().clone();
    second.address = nvmes[0].replace(".0", ".1;reboot");
    second.physical_function = Fact::not_read("a test");
    devices.push(second);
    let plan = plan(&request(Some(&facts), &gpus, &nvmes)).unwrap();
    assert!(plan.reasons[0].contains("nvme0n1\nreboot"), "{:?}", plan.reasons);
    for kind in [Kind::Proxmox, Kind::Libvirt, Kind::Qemu] {
        for line in text(&plan, kind).lines().filter(|line| line.contains("reboot")) {
            let is_comment = line.starts_with("# ") || (kind == Kind::Libvirt && !line.contains("-->"));
            assert!(is_comment, "{kind}: {line}");
        }
    }
}

fn spot() -> impl Strategy<Value = Spot> {
    (prop::option::of(0..4u8), 0..12i32, 0..2u8).prop_map(|(switch, node, root)| Spot { switch, node, root })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// What is planned passes the check of the same host, in every form.
    #[test]
    fn a_plan_passes_its_own_check(
        vendor in prop::sample::select(vec!["GenuineIntel", "AuthenticAMD"]),
        gpus in prop::collection::vec(spot(), 1..9),
        nvmes in prop::collection::vec(spot(), 1..9),
        memory in 1..65u64,
        odd in prop::bool::ANY,
        cpus in 1..20u32,
    ) {
        let (facts, gpus, nvmes) = host(vendor, &gpus, &nvmes);
        let memory = (memory << 30) + if odd { 2 << 20 } else { 0 };
        let planned = plan(&Request { memory, cpus, ..request(Some(&facts), &gpus, &nvmes) });
        let (_, more) = bookkeeping(memory, &vec![128 << 30; gpus.len()]);
        let plan = match (planned, more) {
            (Ok(plan), None) => plan,
            (Err(error), Some(_)) => {
                prop_assert!(one_line(&error).contains("bookkeeping"), "{error:#}");
                let hint = hint_of(&error).unwrap();
                let memory = hint.strip_prefix("--memory ").and_then(|size| crate::hypervisor::machine::bytes(size, 1));
                let enough = Request { memory: memory.unwrap(), ..request(Some(&facts), &gpus, &nvmes) };
                prop_assert!(plan(&enough).is_ok());
                return Ok(());
            }
            (planned, more) => panic!("{planned:?} and {more:?}"),
        };
        for kind in [Kind::Proxmox, Kind::Libvirt, Kind::Qemu] {
            let file = plan.write(kind).pop().unwrap();
            let machine = source::read(&file.name, file.text.as_bytes(), None, &Mappings::default()).unwrap();
            prop_assert_eq!(machine.kind, kind);
            prop_assert_eq!(machine.uuid.as_deref(), Some(UUID));
            let judgement = judge(&Context::new(&machine, Some(&facts), &Hints::default()));
            prop_assert_eq!(judgement.verdict, Verdict::Incomplete);
            let failed: Vec<_> = judgement
                .findings
                .iter()
                .filter(|f| f.status == Status::Fail && f.severity < Severity::Info)
                .collect();
            prop_assert!(failed.is_empty(), "{:#?}\n{}", failed, file.text);
            let strange = judgement.findings.iter().find(|f| f.id == "vm.understood").unwrap();
            prop_assert_eq!(strange.status, Status::Pass, "{:?}", strange);
            // What the host tells is in the configuration, and every device is told of once.
            let told = machine.oem_strings.iter().filter(|text| text.contains("=device;")).count();
            prop_assert_eq!(told, gpus.len() + nvmes.len());
        }
    }
}
