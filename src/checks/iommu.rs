//! IOMMU and Access Control Services. The rules invert by side: a hypervisor needs both, a machine that does GPUDirect
//! Storage itself wants neither in the way, and a guest cannot see them.

use super::check::{Answer, Check, Outcome, Remedy, Severity, Side, Who};
use super::context::Context;
use super::devices::if_failed;
use super::each::{Each, absent, each, unseen};
use super::said::{find, with_lines};
use super::topology::{is_coherent, storage};
use crate::facts::Fact;
use crate::facts::pci::{Class, PciDevice};
use crate::topology::Topology;
use crate::topology::p2pdma::P2pdma;
use crate::topology::place::Places;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "iommu.firmware",
        title: "the firmware offers an IOMMU",
        sides: &[Side::Host],
        requires: &[],
        severity: Severity::Blocker,
        rationale: "Without VT-d or AMD-Vi no device can be given to a guest.",
        references: &["Documentation/arch/x86/iommu.rst", "Proxmox VE: PCI(e) Passthrough"],
        covers: &["guide: VT-d / AMD-Vi in the BIOS"],
        run: firmware,
    },
    Check {
        id: "iommu.active",
        title: "the IOMMU is in use",
        sides: &[Side::Host],
        requires: &["iommu.firmware"],
        severity: Severity::Blocker,
        rationale: "vfio-pci gives a device away only behind an IOMMU. The effect counts and not the command line: newer \
                    kernels switch it on by themselves.",
        references: &[
            "Documentation/ABI/testing/sysfs-class-iommu",
            "pve-common: SysFSTools::check_iommu_support",
        ],
        covers: &["guide: VT-d / AMD-Vi active", "guide: IOMMU parameters"],
        run: host_active,
    },
    Check {
        id: "iommu.acs-override",
        title: "the isolation of devices is real",
        sides: &[Side::Host],
        requires: &[],
        severity: Severity::Major,
        rationale: "pcie_acs_override splits IOMMU groups on paper only: devices can still reach each other, and a guest's \
                    transfer may end in another device.",
        references: &["Proxmox VE: PCI(e) Passthrough, IOMMU groups"],
        covers: &["guide: ACS override"],
        run: acs_override,
    },
    Check {
        id: "iommu.groups",
        title: "GPUs and NVMe controllers share their IOMMU groups with nothing that the host uses",
        sides: &[Side::Host],
        requires: &["iommu.active"],
        severity: Severity::Major,
        rationale: "A group is given away as a whole: QEMU refuses one with a device that a host's driver holds.",
        references: &["Documentation/driver-api/vfio.rst: groups"],
        covers: &["guide: IOMMU groups", "signature 7"],
        run: groups,
    },
    Check {
        id: "acs.kept",
        title: "Access Control Services stay on",
        sides: &[Side::Host],
        requires: &[],
        severity: Severity::Major,
        rationale: "A guest's devices use the guest's addresses, which only the IOMMU can translate: requests between them \
                    must be redirected up to it. What is right on bare metal is wrong here.",
        references: &["Documentation/admin-guide/kernel-parameters.txt: pci=disable_acs_redir"],
        covers: &["guide: ACS"],
        run: acs_kept,
    },
    Check {
        id: "iommu.translation",
        title: "the IOMMU does not translate for GPUs and NVMe controllers",
        sides: &[Side::BareMetal],
        requires: &[],
        severity: Severity::Major,
        rationale: "NVIDIA supports GPUDirect Storage with the IOMMU off, on some platforms with iommu=pt. Where it \
                    translates, requests between devices go up to it, or fail.",
        references: &[
            "GPUDirect Storage installation: disable IOMMU",
            "NVIDIA/gds-nvidia-fs issue 57",
            "Documentation/ABI/testing/sysfs-kernel-iommu_groups",
        ],
        covers: &["guide: IOMMU parameters", "gds-diag: IOMMU"],
        run: translation,
    },
    Check {
        id: "acs.redirect",
        title: "no port redirects requests between GPU and NVMe controller",
        sides: &[Side::BareMetal],
        requires: &["gpu.present", "nvme.present"],
        severity: Severity::Major,
        rationale: "With ACS redirect on, data between two devices on one switch goes up to the CPU and down again, and \
                    p2pdma may refuse the pair.",
        references: &[
            "drivers/pci/p2pdma.c: pci_bridge_has_acs_redir",
            "GPUDirect Storage troubleshooting: ACS",
        ],
        covers: &["guide: ACS", "signature 23", "gds-diag: ACS"],
        run: acs_redirect,
    },
    Check {
        id: "iommu.guest",
        title: OF_GUEST.title,
        sides: &[Side::Guest],
        requires: &[],
        severity: Severity::Major,
        rationale: OF_GUEST.rationale,
        references: OF_GUEST.references,
        covers: &["guide: vIOMMU"],
        run: guest,
    },
];

/// What is said of a rule that two registers have.
pub(crate) struct Said {
    /// What it is about.
    pub title: &'static str,
    /// Why it exists.
    pub rationale: &'static str,
    /// Where it comes from.
    pub references: &'static [&'static str],
}

/// `iommu.guest`, which a virtual machine's configuration shows as well.
pub(crate) const OF_GUEST: Said = Said {
    title: "the guest has no IOMMU of its own",
    rationale: "A virtual IOMMU translates once more, and p2pdma and nvidia-fs behave as on a machine whose IOMMU is on.",
    references: &["QEMU: docs/system/devices/virtio-iommu", "GPUDirect Storage installation: disable IOMMU"],
};

/// Is an IOMMU in use? Where the list of IOMMUs cannot be seen, the devices' groups tell; a capture that carries no device's
/// other links has lost those as well.
pub(super) fn active(context: &Context<'_>) -> Option<bool> {
    let iommu = &context.facts.iommu;
    let is_known = [iommu.units.value().map(Vec::len), iommu.groups.value().map(Vec::len)];
    if is_known.into_iter().flatten().any(|count| count > 0) {
        return Some(true);
    }
    if context.pci().iter().any(|device| device.iommu_group.value().is_some()) {
        return Some(true);
    }
    if iommu.units.value().is_some() {
        return Some(false);
    }
    let links = context.pci().iter().any(|d| d.driver.value().is_some() || d.path.value().is_some());
    let none = context.pci().iter().all(|d| matches!(d.iommu_group, Fact::Missing { .. }));
    (links && none).then_some(false)
}

/// Which table describes an IOMMU, and which setting of the firmware brings it.
fn tables(context: &Context<'_>) -> (&'static str, &'static str, &'static str) {
    match context.facts.cpu.value().map(|cpu| cpu.vendor.as_str()) {
        Some("AuthenticAMD" | "HygonGenuine") => {
            ("IVRS", "AMD-Vi (\"IOMMU\", often under NBIO or AMD CBS)", "amd_iommu=on")
        }
        _ => ("DMAR", "Intel VT-d (\"VT for Directed I/O\")", "intel_iommu=on"),
    }
}

fn firmware(context: &Context<'_>) -> Outcome {
    if active(context) == Some(true) {
        return Outcome::pass("an IOMMU is in use");
    }
    let acpi = match &context.facts.acpi {
        Fact::Known { value, .. } => value,
        other => return Outcome::unknown(format!("the firmware's tables cannot be seen: {}", absent(other))),
    };
    let has = ["DMAR", "IVRS", "IORT"].map(|table| acpi.has(table));
    if has.contains(&Some(true)) {
        return Outcome::pass("the firmware has a table of IOMMUs");
    }
    if has.contains(&None) {
        return Outcome::unknown("too few of the firmware's tables can be seen");
    }
    let (table, setting, _) = tables(context);
    Outcome::fail(format!(
        "the firmware hands over no {table} table: the IOMMU is off, or the board has none"
    ))
    .expected(format!("/sys/firmware/acpi/tables/{table}"))
    .evidence("/sys/firmware/acpi/tables", acpi.0.join(" "))
    .remedy(Remedy::new(Who::Bios, format!("switch on {setting}")))
}

/// How QEMU, Proxmox and libvirt say that there is none.
const NO_IOMMU: &[&str] = &[
    "no iommu_group found",
    "Cannot open iommu_group",
    "cannot prepare PCI pass-through, IOMMU not present",
    "host doesn't support passthrough of host PCI devices",
];

fn host_active(context: &Context<'_>) -> Outcome {
    match active(context) {
        Some(true) => Outcome::pass("an IOMMU is in use"),
        None if !find(context, NO_IOMMU).is_empty() => with_lines(
            not_active(context, "the hypervisor's programs find no IOMMU"),
            &find(context, NO_IOMMU),
        ),
        None => Outcome::unknown(format!("IOMMUs cannot be seen: {}", absent(&context.facts.iommu.units))),
        Some(false) => not_active(context, "no IOMMU is in use, and no device has an IOMMU group"),
    }
}

fn not_active(context: &Context<'_>, why: &str) -> Outcome {
    let (_, _, parameter) = tables(context);
    let mut outcome = Outcome::fail(why).expected("an entry in /sys/class/iommu").actual("none");
    if let Some(line) = context.facts.kernel.command_line.value() {
        outcome = outcome.evidence("/proc/cmdline", line.clone());
    }
    outcome.remedy(
        Remedy::new(
            Who::Hypervisor,
            format!("add \"{parameter} iommu=pt\" to the kernel's command line, remove any iommu=off, and reboot"),
        )
        .command(format!(
            "sed -i 's/^GRUB_CMDLINE_LINUX_DEFAULT=\"/&{parameter} iommu=pt /' /etc/default/grub && update-grub"
        ))
        .command(format!(
            "sed -i '1s/$/ {parameter} iommu=pt/' /etc/kernel/cmdline && proxmox-boot-tool refresh"
        )),
    )
}

/// The words of the kernel's command line, or why they cannot be seen.
fn command_line<'a>(context: &Context<'a>) -> Result<&'a str, String> {
    match &context.facts.kernel.command_line {
        Fact::Known { value, .. } => Ok(value),
        other => Err(format!("the kernel's command line cannot be seen: {}", absent(other))),
    }
}

fn acs_override(context: &Context<'_>) -> Outcome {
    let line = match command_line(context) {
        Ok(line) => line,
        Err(why) => return Outcome::unknown(why),
    };
    match context.kernel_parameter("pcie_acs_override") {
        None => Outcome::pass("pcie_acs_override is not on the command line"),
        Some(value) => Outcome::fail(format!(
            "pcie_acs_override={value} splits IOMMU groups that the hardware does not isolate"
        ))
        .expected("no pcie_acs_override")
        .actual(format!("pcie_acs_override={value}"))
        .evidence("/proc/cmdline", line)
        .remedy(
            Remedy::new(Who::Hypervisor, "remove it from the kernel's command line, and reboot")
                .command("sed -i 's/ *pcie_acs_override=[^ \"]*//' /etc/default/grub && update-grub"),
        )
        .remedy(Remedy::new(Who::Hardware, "use a slot whose root port isolates by itself"))
        .remedy(Remedy::new(Who::Bios, "switch on ACS, where the firmware has such a setting")),
    }
}

/// GPUs and NVMe controllers that a hypervisor gives away; all GPUs where none is bound to vfio-pci yet.
fn given_away<'a>(context: &Context<'a>) -> Vec<&'a PciDevice> {
    let all: Vec<&PciDevice> = context.gpus().into_iter().chain(context.nvmes()).collect();
    let is_given = |device: &&&PciDevice| device.driver.value().is_some_and(|driver| driver.contains("vfio"));
    let given: Vec<&PciDevice> = all.iter().filter(is_given).copied().collect();
    if given.is_empty() { context.gpus() } else { given }
}

fn groups(context: &Context<'_>) -> Outcome {
    let devices = given_away(context);
    let outcome = each(context, "device", &devices, "groups that can be given away", |device| {
        let group = match &device.iommu_group {
            Fact::Known { value, .. } => *value,
            // A capture may have lost all links: then they say nothing.
            Fact::Missing { .. }
                if context.pci().iter().all(|d| d.driver.value().is_none() && d.path.value().is_none()) =>
            {
                return Each::Unseen("its IOMMU group: no device's links were captured".into());
            }
            Fact::Missing { .. } => return Each::Bad("it has no IOMMU group".into()),
            other => return Each::Unseen(format!("its IOMMU group: {}", absent(other))),
        };
        let others = context.pci().iter().filter(|other| other.iommu_group.value() == Some(&group));
        for other in others.filter(|other| other.address != device.address) {
            // Bridges stay with the host: vfio does not mind their driver.
            let is_bridge =
                other.class.value().copied().is_some_and(|c| Class::is_bridge(c) || c.0 >> 16 == 0x06);
            match &other.driver {
                Fact::Known { value, .. } if !is_bridge && !value.contains("vfio") && value != "pci-stub" => {
                    return Each::Bad(format!(
                        "group {group} also holds {}, which {value} uses",
                        other.address
                    ));
                }
                _ => {}
            }
        }
        Each::Good
    });
    if_failed(outcome, |outcome| {
        outcome
            .expected("only functions of the card, bridges and other devices that are given away")
            .remedy(
                Remedy::new(Who::Hypervisor, "give every function of the group to vfio-pci")
                    .command("for d in /sys/kernel/iommu_groups/*/devices/*; do echo \"$d $(basename $(readlink $d/driver))\"; done"),
            )
            .remedy(Remedy::new(Who::Hardware, "move one of the devices to a slot of another root port"))
    })
}

fn acs_kept(context: &Context<'_>) -> Outcome {
    let line = match command_line(context) {
        Ok(line) => line,
        Err(why) => return Outcome::unknown(why),
    };
    let options = line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("pci="));
    let off = options.flat_map(|options| options.split(',')).find(|option| {
        ["disable_acs_redir", "noacs", "config_acs"].iter().any(|name| option.starts_with(name))
    });
    match off {
        None => Outcome::pass("nothing on the command line switches ACS off"),
        Some(option) => {
            Outcome::fail(format!("pci={option} switches ACS off, which isolates the guests' devices"))
                .expected("no such option")
                .actual(format!("pci={option}"))
                .evidence("/proc/cmdline", line)
                .remedy(Remedy::new(
                    Who::Hypervisor,
                    format!("remove {option} from the kernel's command line, and reboot"),
                ))
        }
    }
}

fn translation(context: &Context<'_>) -> Outcome {
    match active(context) {
        Some(false) => return Outcome::pass("no IOMMU is in use"),
        None if unseen(context).is_none() => {
            return Outcome::unknown(format!(
                "IOMMUs cannot be seen: {}",
                absent(&context.facts.iommu.units)
            ));
        }
        _ => {}
    }
    let devices: Vec<&PciDevice> = context.gpus().into_iter().chain(context.nvmes()).collect();
    let outcome = each(context, "device", &devices, "addresses pass as they are (iommu=pt)", |device| {
        let group = match &device.iommu_group {
            Fact::Known { value, .. } => *value,
            Fact::Missing { .. } => return Each::Good,
            other => return Each::Unseen(format!("its IOMMU group: {}", absent(other))),
        };
        match context.facts.iommu.group(group).map(|group| &group.kind) {
            Some(Fact::Known { value, .. }) if value == "identity" => Each::Good,
            Some(Fact::Known { value, .. }) => {
                Each::Bad(format!("the IOMMU translates its addresses (group {group} is of type {value})"))
            }
            Some(other) => Each::Unseen(format!("the type of its IOMMU group {group}: {}", absent(other))),
            None => Each::Unseen(format!("its IOMMU group {group}")),
        }
    });
    if_failed(outcome, |outcome| {
        if is_coherent(context) {
            // The SMMU translates for Grace's coherent memory as for any other.
            return Outcome { answer: Answer::Note, ..outcome };
        }
        let mut outcome = outcome.expected("no IOMMU, or groups of type identity");
        if let Some(line) = context.facts.kernel.command_line.value() {
            outcome = outcome.evidence("/proc/cmdline", line.clone());
        }
        outcome
            .remedy(
                Remedy::new(
                    Who::Guest,
                    "switch the IOMMU off on the kernel's command line, which NVIDIA recommends, and reboot",
                )
                .command("intel_iommu=off")
                .command("amd_iommu=off"),
            )
            .remedy(
                Remedy::new(Who::Guest, "or let addresses pass as they are, where the IOMMU is needed")
                    .command("iommu=pt"),
            )
            .remedy(Remedy::new(Who::Bios, "or switch VT-d or AMD-Vi off"))
    })
}

fn acs_redirect(context: &Context<'_>) -> Outcome {
    if let Some(unseen) = unseen(context) {
        return unseen;
    }
    let topology = Topology::of(context.facts);
    let pairs = storage(context, &topology);
    if pairs.is_empty() {
        return Outcome::not_applicable("there is no pair of a GPU and an NVMe controller");
    }
    let places = Places::new(context.facts);
    let mut ports: Vec<&String> = Vec::new();
    let mut unknown = None;
    for pair in pairs {
        match &pair.p2pdma {
            P2pdma::ThroughHostBridge { redirects, .. } | P2pdma::Refused { redirects, .. } => {
                ports.extend(redirects);
            }
            P2pdma::Unknown { why } => unknown = Some(why),
            P2pdma::Direct => {}
        }
    }
    ports.sort();
    ports.dedup();
    if !ports.is_empty() {
        let names: Vec<&str> = ports.iter().map(|port| port.as_str()).collect();
        let mut remedy = Remedy::new(
            Who::Guest,
            "switch ACS off on these ports; this lasts until the next start, and gdscheck believes it",
        );
        let mut outcome = Outcome::fail(format!(
            "ACS redirect is set on {} between a GPU and an NVMe controller",
            names.join(", ")
        ))
        .expected("request redirect, completion redirect and egress control off");
        for port in &names {
            remedy = remedy.command(format!("setpci -s {port} ECAP_ACS+6.w=0"));
            if let Some(Some(acs)) = places.acs(port) {
                let words = format!("ACS control {:#06x} at offset {:#x}", acs.control, acs.offset + 6);
                outcome = outcome.evidence(format!("/sys/bus/pci/devices/{port}/config"), words);
            }
        }
        return outcome
            .remedy(Remedy::new(Who::Bios, "switch ACS off, where the firmware has such a setting"))
            .remedy(remedy)
            .remedy(
                Remedy::new(Who::Guest, "or for good, on the kernel's command line")
                    .command(format!("pci=disable_acs_redir={}", names.join(";"))),
            );
    }
    match unknown {
        Some(why) => Outcome::unknown(format!("whether a port redirects cannot be seen: {why}")),
        None => Outcome::pass("no port between GPUs and NVMe controllers of one switch redirects"),
    }
}

fn guest(context: &Context<'_>) -> Outcome {
    match active(context) {
        Some(false) => Outcome::pass("the guest has no IOMMU"),
        None => Outcome::unknown(format!("IOMMUs cannot be seen: {}", absent(&context.facts.iommu.units))),
        Some(true) => {
            let kinds: Vec<&str> = (context.gpus().into_iter().chain(context.nvmes()))
                .filter_map(|device| context.facts.iommu.group(*device.iommu_group.value()?))
                .filter_map(|group| group.kind.value().map(String::as_str))
                .collect();
            let units = context.facts.iommu.units.value().map(|units| units.join(" ")).unwrap_or_default();
            let outcome = match kinds.iter().find(|kind| **kind != "identity") {
                Some(kind) => {
                    Outcome::fail(format!("a virtual IOMMU translates for the devices (group type {kind})"))
                }
                None if kinds.is_empty() => {
                    Outcome::note("the guest has a virtual IOMMU; the devices' groups cannot be seen")
                }
                None => Outcome::note("the guest has a virtual IOMMU that lets addresses pass as they are"),
            };
            let outcome = outcome.expected("no virtual IOMMU").evidence("/sys/class/iommu", units).remedy(
                Remedy::new(Who::VmConfiguration, "take the virtual IOMMU out of the machine")
                    .command("qm set VMID -machine q35"),
            );
            let passes = Remedy::new(Who::Guest, "or let addresses pass, on the guest's kernel command line");
            if outcome.answer == Answer::Fail { outcome.remedy(passes.command("iommu=pt")) } else { outcome }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Answer::{Fail, Note, Pass, Unknown};
    use super::super::testing::*;
    use super::*;
    use crate::facts::Facts;

    fn with_line(side: Side, line: &str) -> Facts {
        let mut facts = good(side);
        facts.kernel.command_line = Fact::known("/proc/cmdline", line.into());
        facts
    }

    #[test]
    fn a_host_needs_the_firmware_and_the_kernel() {
        let mut facts = good(Side::Host);
        facts.iommu.units = Fact::known("/sys/class/iommu", vec![]);
        facts.iommu.groups = Fact::known("/sys/kernel/iommu_groups", vec![]);
        for address in [GPU_AT, NVME_AT] {
            edit(&mut facts, address, |d| d.iommu_group = Fact::Missing { from: "iommu_group".into() });
        }
        assert_eq!(answer("iommu.firmware", &facts, Side::Host), Pass);
        let outcome = ask("iommu.active", &facts, Side::Host);
        assert_eq!(outcome.answer, Fail);
        assert!(outcome.remedies[0].commands[0].contains("intel_iommu=on iommu=pt"));
        facts.acpi = Fact::known("tables", acpi(&["FACP"]));
        let outcome = ask("iommu.firmware", &facts, Side::Host);
        assert_eq!((outcome.answer, outcome.remedies[0].who), (Fail, Who::Bios));
        facts.acpi = Fact::known("tables", acpi(&["SSDT1"]));
        assert_eq!(answer("iommu.firmware", &facts, Side::Host), Unknown);
        // The list of IOMMUs is not in the capture, the devices' links are: none has a group.
        facts.iommu = Default::default();
        assert_eq!(answer("iommu.active", &facts, Side::Host), Fail);
        for address in [GPU_AT, NVME_AT] {
            edit(&mut facts, address, |d| d.iommu_group = Fact::default());
        }
        assert_eq!(answer("iommu.active", &facts, Side::Host), Unknown);
    }

    #[test]
    fn an_override_is_no_isolation() {
        let answer = |line: &str| answer("iommu.acs-override", &with_line(Side::Host, line), Side::Host);
        assert_eq!(answer("quiet intel_iommu=on"), Pass);
        assert_eq!(answer("pcie_acs_override=downstream,multifunction quiet"), Fail);
    }

    #[test]
    fn acs_stays_on_where_devices_are_given_away() {
        let answer = |line: &str| answer("acs.kept", &with_line(Side::Host, line), Side::Host);
        assert_eq!(answer("pci=realloc quiet"), Pass);
        assert_eq!(answer("pci=realloc,disable_acs_redir=0000:05:00.0"), Fail);
        assert_eq!(answer("pci=noacs"), Fail);
    }

    #[test]
    fn a_group_is_given_away_as_a_whole() {
        let with = |class: u32, ids: &str, driver: Option<&str>| {
            let mut facts = good(Side::Host);
            add(&mut facts, class, ids, "0000:00:1c.3/0000:09:00.0");
            edit(&mut facts, "0000:09:00.0", |other| {
                other.iommu_group = Fact::known("iommu_group", 20);
                if let Some(driver) = driver {
                    other.driver = Fact::known("driver", driver.into());
                }
            });
            answer("iommu.groups", &facts, Side::Host)
        };
        assert_eq!(with(0x02_0000, "8086:1521", Some("igb")), Fail);
        assert_eq!(with(0x04_0300, "10de:22ba", Some("snd_hda_intel")), Fail);
        assert_eq!(with(0x04_0300, "10de:22ba", Some("vfio-pci")), Pass);
        assert_eq!(with(0x02_0000, "8086:1521", None), Pass);
        // A port above the card.
        assert_eq!(with(0x06_0400, "8086:352a", Some("pcieport")), Pass);
    }

    #[test]
    fn bare_metal_wants_no_translation() {
        let with = |kind: &str| {
            let mut facts = good(Side::BareMetal);
            facts.iommu.units = Fact::known("/sys/class/iommu", vec!["dmar0".into()]);
            put_in_group(&mut facts, GPU_AT, 3, kind);
            put_in_group(&mut facts, NVME_AT, 4, kind);
            facts
        };
        assert_eq!(answer("iommu.translation", &good(Side::BareMetal), Side::BareMetal), Pass);
        assert_eq!(answer("iommu.translation", &with("identity"), Side::BareMetal), Pass);
        assert_eq!(answer("iommu.translation", &with("DMA-FQ"), Side::BareMetal), Fail);
        assert_eq!(answer("iommu.translation", &with("DMA"), Side::BareMetal), Fail);
        let mut facts = with("DMA");
        facts.iommu.groups = Fact::Denied { from: "groups".into() };
        assert_eq!(answer("iommu.translation", &facts, Side::BareMetal), Unknown);
    }

    #[test]
    fn ports_that_redirect_are_named_with_the_commands() {
        let mut facts = good(Side::BareMetal);
        assert_eq!(answer("acs.redirect", &facts, Side::BareMetal), Pass);
        for port in ["0000:05:00.0", "0000:05:01.0"] {
            edit(&mut facts, port, |device| *device = device.clone().with_acs(0x1d));
        }
        let outcome = ask("acs.redirect", &facts, Side::BareMetal);
        assert_eq!(outcome.answer, Fail);
        let commands: Vec<&String> = outcome.remedies.iter().flat_map(|remedy| &remedy.commands).collect();
        assert!(commands.contains(&&"setpci -s 0000:05:00.0 ECAP_ACS+6.w=0".to_owned()));
        assert!(commands.contains(&&"pci=disable_acs_redir=0000:05:00.0;0000:05:01.0".to_owned()));
        // The same on a hypervisor is as it should be.
        assert!(!super::super::find("acs.redirect").unwrap().sides.contains(&Side::Host));
        for port in ["0000:05:00.0", "0000:05:01.0"] {
            edit(&mut facts, port, |device| *device = device.clone().seen_by_a_user());
        }
        assert_eq!(answer("acs.redirect", &facts, Side::BareMetal), Unknown);
    }

    #[test]
    fn a_guest_with_an_iommu_of_its_own() {
        let with = |kind: &str| {
            let mut facts = good(Side::Guest);
            facts.iommu.units = Fact::known("/sys/class/iommu", vec!["dmar0".into()]);
            put_in_group(&mut facts, GPU_AT, 3, kind);
            answer("iommu.guest", &facts, Side::Guest)
        };
        assert_eq!(answer("iommu.guest", &good(Side::Guest), Side::Guest), Pass);
        assert_eq!(with("DMA-FQ"), Fail);
        assert_eq!(with("identity"), Note);
    }
}
