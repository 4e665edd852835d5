use super::*;
use crate::checks::check::{Finding, Status};
use crate::checks::testing::{GPU_AT, NVME_AT, add, edit, flat_guest, good};
use crate::error::{Status as Exit, one_line, status_of};
use crate::facts::Fact;
use crate::facts::hosted::HostedVm;
use crate::facts::pci::Id;
use crate::report::model::Verdict;
use crate::report::utc::Utc;

const UUID: &str = "11111111-2222-3333-4444-555555555555";

fn conf() -> String {
    format!(
        "machine: q35\nbios: ovmf\ncpu: host\nballoon: 0\nmemory: 65536\nnuma: 1\nhugepages: 1024\nscsi0: a:b\nhostpci0: {GPU_AT},pcie=1\n\
         hostpci1: {NVME_AT},pcie=1\nsmbios1: uuid={UUID}\n"
    )
}

fn known(from: &str, facts: Facts, at: u64) -> Known {
    Known { from: from.into(), facts, bench: None, waive: Vec::new(), at: Some(Utc(at)) }
}

/// A flat guest whose host has both devices below one switch.
fn guest() -> Known {
    let mut facts = flat_guest();
    facts.platform.uuid = Fact::known("product_uuid", UUID.to_uppercase());
    known("guest.json", facts, 1_790_000_000)
}

fn host_with(conf: &str) -> Known {
    let mut facts = good(Side::Host);
    let vm = HostedVm { vmid: 100, conf: conf.into(), ..HostedVm::default() };
    facts.hosted = Fact::known("/etc/pve/qemu-server/100.conf", vm);
    known("host.json", facts, 1_790_000_300)
}

fn joined(guest: &Known, host: &Known) -> Result<Joined> {
    join(guest, host, &machine_of(host)?, "2026-11-28")
}

fn one<'a>(joined: &'a Joined, id: &str) -> &'a Finding {
    joined.judgement.findings.iter().find(|finding| finding.id == id).expect(id)
}

#[test]
fn a_flat_guest_and_its_host_are_one_verdict() {
    let joined = joined(&guest(), &host_with(&conf())).unwrap();
    assert_eq!(joined.joined.uuid.as_deref(), Some(UUID));
    let by: Vec<_> =
        joined.joined.devices.iter().map(|m| (m.guest.as_str(), m.host.as_str(), m.by)).collect();
    assert_eq!(by, [(GPU_AT, GPU_AT, "slot"), (NVME_AT, NVME_AT, "slot")]);
    let topology = one(&joined, "vm.topology");
    assert_eq!(topology.status, Status::Fail);
    assert!(
        topology.why.contains("the guest sees PHB")
            && topology.why.contains("the host has them below one switch (PIX)")
    );
    assert!(topology.remedy[0].commands[0].contains("vm plan"));
    assert_eq!(one(&joined, "topology.p2pdma").because.as_deref(), Some("vm.topology"));
    // What the guest left open.
    assert_eq!(one(&joined, "vm.hugepages").status, Status::Pass);
    // What only the host can see.
    assert!(one(&joined, "iommu.active").why.starts_with("on the host: "));
    assert_eq!(joined.judgement.verdict, Verdict::Fail);
    assert!(joined.joined.warnings.is_empty(), "{:?}", joined.joined.warnings);
    let ids: Vec<&str> = joined.judgement.findings.iter().map(|f| f.id.as_str()).collect();
    let mut once = ids.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), ids.len(), "each finding is there once");
    let mut out = Vec::new();
    text(&joined, &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    insta::assert_snapshot!(out.lines().take(24).collect::<Vec<_>>().join("\n"));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let why = |guest: &Known, host: &Known| {
        let error = joined(guest, host).unwrap_err();
        assert_eq!(status_of(&error), Exit::Usage);
        one_line(&error)
    };
    let host = host_with(&conf());
    let other = host_with(&conf().replace(UUID, "99999999-2222-3333-4444-555555555555"));
    assert!(why(&guest(), &other).contains("the guest's UUID is 11111111"));
    // The wrong way round.
    let swapped = why(
        &known("host.json", good(Side::Host), 0),
        &Known { facts: Facts { hosted: host.facts.hosted.clone(), ..guest().facts }, ..guest() },
    );
    assert!(swapped.contains("of no virtual machine") && swapped.contains("of no hypervisor"), "{swapped}");
    let mut changed = guest();
    edit(&mut changed.facts, GPU_AT, |gpu| gpu.device = Fact::known("device", Id(0x20b0)));
    assert!(why(&changed, &host).contains("hostpci0 of the configuration"), "{}", why(&changed, &host));
    let mut more = guest();
    add(&mut more.facts, 0x03_0200, "10de:20b0", "0000:00:1c.2/0000:09:00.0");
    assert!(why(&more, &host).contains("0000:09:00.0 (10de:20b0) is none of"));
    assert!(why(&guest(), &known("host.json", good(Side::Host), 0)).contains("carries no virtual machine"));
    let nothing = Known { facts: Facts { pci: Fact::known("pci", vec![]), ..guest().facts }, ..guest() };
    assert!(why(&nothing, &host).contains("no GPU and no NVMe"));
}

#[test]
fn what_makes_it_less_sure_is_said() {
    let mut late = guest();
    late.at = Some(Utc(1_790_000_000 + 10 * 24 * 3600));
    late.facts.platform.uuid = Fact::Denied { from: "product_uuid".into() };
    let joined = joined(&late, &host_with(&conf())).unwrap();
    assert_eq!(joined.joined.warnings.len(), 2, "{:?}", joined.joined.warnings);
    assert!(joined.joined.warnings[1].contains("9 days apart"));
}

#[test]
fn ports_without_a_place_are_told_by_what_hangs_on_them() {
    let host = known("host.json", good(Side::Host), 0);
    let line = |more: &str| {
        format!(
            "qemu-system-x86_64 -M q35 -accel kvm -cpu host -uuid {UUID} -device pcie-root-port,id=a -device pcie-root-port,id=b \
             -device vfio-pci,host={GPU_AT},bus=a -device vfio-pci,host={NVME_AT},bus=b{more}"
        )
    };
    let machine = source::read("x", line("").as_bytes(), None, &Mappings::default()).unwrap();
    let joined = join(&guest(), &host, &machine, "2026-11-28").unwrap();
    assert!(joined.joined.devices.iter().all(|matched| matched.by == "only one"));
    // A second GPU of the same kind, which the guest has not: nobody knows which of them it is.
    let mut two = host.clone();
    add(&mut two.facts, 0x03_0200, "10de:2331", "0000:00:02.0/0000:0a:00.0");
    let more = " -device pcie-root-port,id=c -device vfio-pci,host=0000:0a:00.0,bus=c";
    let machine = source::read("x", line(more).as_bytes(), None, &Mappings::default()).unwrap();
    let joined = join(&guest(), &two, &machine, "2026-11-28").unwrap();
    assert!(
        joined.joined.warnings.iter().any(|warning| warning.starts_with("which of ")),
        "{:?}",
        joined.joined
    );
}

#[test]
fn a_switch_in_the_guest_as_on_the_host() {
    let mut guest = known("guest.json", good(Side::Guest), 0);
    guest.facts.platform.uuid = Fact::known("product_uuid", UUID.into());
    let args = format!(
        "args: -device pcie-root-port,id=r,bus=pcie.0 -device x3130-upstream,id=u,bus=r -device xio3130-downstream,id=d,bus=u,addr=0 \
         -device xio3130-downstream,id=e,bus=u,addr=1 -device vfio-pci,host={GPU_AT},bus=d -device vfio-pci,host={NVME_AT},bus=e\n"
    );
    let conf = conf()
        .lines()
        .filter(|line| !line.starts_with("hostpci"))
        .map(|line| format!("{line}\n"))
        .collect::<String>();
    let joined = joined(&guest, &host_with(&format!("{args}{conf}"))).unwrap();
    assert_eq!(one(&joined, "vm.topology").status, Status::Pass);
    assert_eq!(joined.joined.pairs[0].guest, joined.joined.pairs[0].host);
    assert_ne!(joined.judgement.verdict, Verdict::Fail, "{:?}", joined.judgement.findings.first());
}

#[test]
fn what_the_hosts_log_says_counts_for_the_guest() {
    use crate::facts::kernel_log::KernelLog;
    use crate::facts::log_lines::LogLines;
    let mut host = host_with(&conf());
    let line = "qemu-system-x86_64: 0000:06:00.0: PCI peer-to-peer transactions on BARs are not supported.";
    let log = LogLines { from: "/var/log/syslog".into(), lines: vec![line.into()], ..LogLines::default() };
    host.facts.logs = Fact::known("/var/log", vec![log]);
    host.facts.kernel_log = Fact::known("/dev/kmsg", KernelLog::default());
    let joined = joined(&guest(), &host).unwrap();
    let mapping = one(&joined, "host.bar-mapping");
    assert_eq!(mapping.status, Status::Fail, "{mapping:?}");
    assert!(mapping.why.starts_with("on the host: "), "{}", mapping.why);
    assert_eq!(one(&joined, "vm.host-messages").because.as_deref(), Some("host.bar-mapping"));
}

#[test]
fn what_was_proven_needs_no_prerequisites() {
    use crate::checks::check::{Outcome, Severity};
    let fails = || Outcome::fail("no").into_finding("vm.topology", "a title", Severity::Major);
    let severity = |is_proven| {
        let merged = merge::merge(vec![], vec![], vec![fails()], &Together::default(), is_proven);
        merged[0].severity
    };
    assert_eq!((severity(false), severity(true)), (Severity::Major, Severity::Minor));
}

/// A host with another guest's GPU: in trouble, and in the log.
fn host_with_another_guest() -> Known {
    use crate::facts::kernel_log::KernelLog;
    use crate::facts::log_lines::LogLines;
    let mut host = host_with(&conf());
    add(&mut host.facts, 0x03_0200, "10de:2331", "0000:00:02.0/0000:0a:00.0");
    edit(&mut host.facts, "0000:0a:00.0", |gpu| gpu.driver = Fact::known("driver", "nouveau".into()));
    let line = "qemu-system-x86_64: 0000:0a:00.0: PCI peer-to-peer transactions on BARs are not supported.";
    let log = LogLines { from: "/var/log/syslog".into(), lines: vec![line.into()], ..LogLines::default() };
    host.facts.logs = Fact::known("/var/log", vec![log]);
    host.facts.kernel_log = Fact::known("/dev/kmsg", KernelLog::default());
    host
}

#[test]
fn another_guests_devices_are_no_matter_of_this_one() {
    let alone = joined(&guest(), &host_with(&conf())).unwrap();
    let beside = joined(&guest(), &host_with_another_guest()).unwrap();
    let failed = |joined: &Joined| -> Vec<String> {
        let failed = joined.judgement.findings.iter().filter(|f| f.status == Status::Fail);
        failed.map(|finding| format!("{}: {}", finding.id, finding.why)).collect()
    };
    assert_eq!(failed(&beside), failed(&alone));
    assert_ne!(one(&beside, "host.bar-mapping").status, Status::Fail);
    // The same in one group with this guest's GPU keeps it from starting.
    let mut shared = host_with_another_guest();
    let group = |facts: &Facts| {
        facts.pci.value().unwrap().iter().find(|d| d.address == GPU_AT).unwrap().iommu_group.clone()
    };
    let own = group(&shared.facts);
    edit(&mut shared.facts, "0000:0a:00.0", |gpu| gpu.iommu_group = own);
    let machine = machine_of(&shared).unwrap();
    let kept = of_guest::reduced(&shared.facts, &machine, &beside.joined);
    assert!(kept.pci.value().unwrap().iter().any(|device| device.address == "0000:0a:00.0"));
    let other = of_guest::reduced(&host_with_another_guest().facts, &machine, &beside.joined);
    assert!(!other.pci.value().unwrap().iter().any(|device| device.address == "0000:0a:00.0"));
    assert!(other.logs.value().unwrap()[0].lines.is_empty());
}

#[test]
fn a_host_answers_no_question_on_a_device() {
    use crate::checks::check::{Outcome, Severity};
    let open = |id: &str| Outcome::unknown("?").into_finding(id, "a title", Severity::Minor);
    let seen = |id: &str| Outcome::fail("no").into_finding(id, "a title", Severity::Minor);
    let ids = ["gpu.link", "nvme.driver", "storage.health", "host.memory-lock", "aer.counters"];
    let merged = merge::merge(
        ids.iter().map(|id| open(id)).collect(),
        ids.iter().map(|id| seen(id)).collect(),
        vec![],
        &Together::default(),
        false,
    );
    let failed: Vec<&str> =
        merged.iter().filter(|f| f.status == Status::Fail).map(|f| f.id.as_str()).collect();
    assert_eq!(failed, ["host.memory-lock", "aer.counters"]);
}

#[test]
fn waivers_of_both_reports_count() {
    use crate::checks::waiver::Waiver;
    let waiver = |id: &str, until: &str| Waiver {
        id: id.into(),
        until: until.into(),
        by: "A".into(),
        why: "B".into(),
    };
    let mut guest = guest();
    guest.waive = vec![waiver("vm.topology", "2026-11-28")];
    let joined = joined(&guest, &host_with(&conf())).unwrap();
    assert_eq!(one(&joined, "vm.topology").status, Status::Waived);
    guest.waive = vec![waiver("vm.topology", "2026-11-27")];
    let joined = super::tests::joined(&guest, &host_with(&conf())).unwrap();
    assert_eq!(one(&joined, "vm.topology").status, Status::Fail);
    // A report carries them among its settings.
    let facts = serde_json::to_value(&guest.facts).unwrap();
    let waive = serde_json::to_value(&guest.waive).unwrap();
    let report = serde_json::json!({ "schema": 1, "facts": facts, "settings": { "waive": waive } });
    let read = super::super::known::parse("x", report.to_string().as_bytes()).unwrap();
    assert_eq!(read.waive, guest.waive);
}

#[test]
fn expanders_are_roots_and_no_part_of_the_way() {
    let host = known("host.json", good(Side::Host), 0);
    let line = format!(
        "qemu-system-x86_64 -M q35 -accel kvm -uuid {UUID} -device pxb-pcie,id=x,bus=pcie.0,addr=0x5,bus_nr=128 \
         -device pcie-root-port,id=a,bus=x,addr=0x0 -device pcie-root-port,id=b,bus=pcie.0,addr=0x1c.1 \
         -device vfio-pci,host={GPU_AT},bus=a -device vfio-pci,host={NVME_AT},bus=b"
    );
    let mut guest = guest();
    edit(&mut guest.facts, GPU_AT, |gpu| {
        let path =
            crate::facts::pci::PciPath { root: "pci0000:80".into(), bridges: vec!["0000:80:00.0".into()] };
        gpu.path = Fact::known("path", path);
    });
    add(&mut guest.facts, 0x06_0400, "1b36:000c", "0000:80:00.0");
    let machine = source::read("x", line.as_bytes(), None, &Mappings::default()).unwrap();
    let joined = join(&guest, &host, &machine, "2026-11-28").unwrap();
    let by: Vec<_> = joined.joined.devices.iter().map(|m| (m.guest.as_str(), m.by)).collect();
    assert_eq!(by, [(GPU_AT, "slot"), (NVME_AT, "slot")]);
}

#[test]
fn more_devices_than_are_passed_and_fewer() {
    let mut host = known("host.json", good(Side::Host), 0);
    let mut line = format!(
        "qemu-system-x86_64 -M q35 -accel kvm -uuid {UUID} -device pcie-root-port,id=n -device vfio-pci,host={NVME_AT},bus=n"
    );
    let mut guest = guest();
    for (number, at) in [(1, "0000:0a:00.0"), (2, "0000:0b:00.0"), (3, "0000:0c:00.0")] {
        add(&mut guest.facts, 0x03_0200, "10de:20b0", &format!("0000:00:1d.{number}/{at}"));
        if number < 3 {
            add(&mut host.facts, 0x03_0200, "10de:20b0", &format!("0000:00:1d.{number}/{at}"));
            line.push_str(&format!(
                " -device pcie-root-port,id=g{number} -device vfio-pci,host={at},bus=g{number}"
            ));
        }
    }
    line.push_str(&format!(" -device pcie-root-port,id=g -device vfio-pci,host={GPU_AT},bus=g"));
    let machine = source::read("x", line.as_bytes(), None, &Mappings::default()).unwrap();
    let why = one_line(&join(&guest, &host, &machine, "2026-11-28").unwrap_err());
    assert!(why.contains("has 3 devices 10de:20b0, and the configuration passes 2 through"), "{why}");
    // The other way round it is said.
    let Fact::Known { value: devices, .. } = &mut guest.facts.pci else { panic!("devices") };
    devices.retain(|device| !["0000:0b:00.0", "0000:0c:00.0"].contains(&device.address.as_str()));
    let warnings = join(&guest, &host, &machine, "2026-11-28").unwrap().joined.warnings;
    assert!(
        warnings.iter().any(|warning| warning.contains("the guest does not have 1 of them")),
        "{warnings:?}"
    );
    devices_without(&mut guest.facts, "0000:0a:00.0");
    devices_without(&mut guest.facts, GPU_AT);
    let warnings = join(&guest, &host, &machine, "2026-11-28").unwrap().joined.warnings;
    assert!(
        warnings.iter().any(|warning| warning.contains(GPU_AT) && warning.contains("does not have it")),
        "{warnings:?}"
    );
}

fn devices_without(facts: &mut Facts, address: &str) {
    let Fact::Known { value: devices, .. } = &mut facts.pci else { panic!("devices") };
    devices.retain(|device| device.address != address);
}

#[test]
fn a_configuration_that_was_changed_since_the_start() {
    let with = |words: &[&str]| {
        let mut host = host_with(&conf());
        let Fact::Known { value: vm, .. } = &mut host.facts.hosted else { panic!("a machine") };
        vm.command_line = Fact::known("cmdline", words.iter().map(|word| (*word).to_owned()).collect());
        joined(&guest(), &host).unwrap().joined.warnings
    };
    let (gpu, nvme) = (format!("vfio-pci,host={GPU_AT}"), format!("vfio-pci,host={NVME_AT}"));
    assert_eq!(with(&["/usr/bin/kvm", "-device", &gpu, "-device", &nvme]), Vec::<String>::new());
    // One of a mapping's devices is enough, and a share of a device has another name.
    let mut host = host_with(
        &conf()
            .replace(&format!("{NVME_AT},pcie"), "mapping=drive,pcie")
            .replace("hostpci1", "hostpci2: 0000:0b:00.0,mdev=nvidia-1\nhostpci1"),
    );
    let Fact::Known { value: vm, .. } = &mut host.facts.hosted else { panic!("a machine") };
    vm.mappings = Fact::known(
        "pci.cfg",
        format!("drive\n\tmap node=a,path=0000:99:00.0\n\tmap node=a,path={NVME_AT}\n"),
    );
    let share = "vfio-pci,sysfsdev=/sys/bus/mdev/devices/00000002-0000-0000-0000-000000000100";
    let words = ["/usr/bin/kvm", "-device", &gpu, "-device", &nvme, "-device", share];
    vm.command_line = Fact::known("cmdline", words.iter().map(|word| (*word).to_owned()).collect());
    let mut together = Together::default();
    changed(&host.facts, &machine_of(&host).unwrap(), &mut together);
    assert_eq!(together.warnings, Vec::<String>::new());
    let other = with(&["/usr/bin/kvm", "-device", &gpu]);
    assert!(other.len() == 1 && other[0].contains(NVME_AT), "{other:?}");
}
