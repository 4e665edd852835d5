//! The report for people: plain text in 80 columns, the verdict and its reasons first.

use super::benchmark;
use super::findings;
use super::layout::{WIDTH, binary_size, cut, wrap};
use super::model::{Report, SIMULATED_WORDS};
use crate::bench::results::Results;
use crate::facts::dma::{DmaProbe, Library};
use crate::facts::modules::ModuleLoad;
use crate::facts::nvme::NvmeController;
use crate::facts::pci::{Class, Id, PciDevice};
use crate::facts::{Fact, Facts};
use std::fmt::Display;
use std::io::{self, Write};

/// Writes the whole report.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    head(report, out)?;
    why(report, out)?;
    problems(report, out)?;
    if !report.findings.is_empty() {
        findings::write_findings(&report.findings, out)?;
    }
    if let Some(bench) = &report.benchmark {
        write_benchmark(bench, out)?;
    }
    write_facts(&report.facts, out)?;
    stages(report, out)?;
    simulated(report, out)
}

/// Imitations are named at both ends.
fn simulated(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.is_simulated() { paragraph(out, "  ", SIMULATED_WORDS) } else { Ok(()) }
}

/// Writes the section about the benchmark.
pub fn write_benchmark(bench: &Results, out: &mut dyn Write) -> io::Result<()> {
    section(out, if bench.simulated { "Benchmark (SIMULATED)" } else { "Benchmark" })?;
    benchmark::lines(bench).iter().try_for_each(|line| writeln!(out, "{line}"))
}

/// Writes the sections about the machine.
pub fn write_facts(facts: &Facts, out: &mut dyn Write) -> io::Result<()> {
    image(facts, out)?;
    machine(facts, out)?;
    modules(facts, out)?;
    libraries(&facts.dma, out)?;
    gpus(facts, out)?;
    nvme(&facts.nvme, out)?;
    topology(facts, out)?;
    pci(&facts.pci, out)
}

/// What each party calls every pair, and the tree.
fn topology(facts: &Facts, out: &mut dyn Write) -> io::Result<()> {
    let lines = super::topology::lines(facts);
    let tree = crate::topology::draw::draw(facts);
    if lines.is_empty() && tree.is_empty() {
        return Ok(());
    }
    section(out, "Topology")?;
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    if !lines.is_empty() {
        writeln!(out)?;
    }
    tree.lines().try_for_each(|line| writeln!(out, "{}", cut(line, WIDTH)))
}

/// A line of the text, wrapped under its label.
fn field(out: &mut dyn Write, label: &str, value: impl Display) -> io::Result<()> {
    let value = value.to_string();
    paragraph(out, &format!("  {label:<15} "), if value.is_empty() { "(empty)" } else { &value })
}

fn paragraph(out: &mut dyn Write, first: &str, text: &str) -> io::Result<()> {
    wrap(first, text).iter().try_for_each(|line| writeln!(out, "{line}"))
}

fn section(out: &mut dyn Write, title: &str) -> io::Result<()> {
    writeln!(out, "\n{title}\n{}", "-".repeat(title.len()))
}

fn head(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    const TITLE: &str = "gdsboot report";
    let verdict = report.verdict_words();
    writeln!(out, "{TITLE}{verdict:>width$}", width = WIDTH - TITLE.len())?;
    writeln!(out, "{}", "=".repeat(WIDTH))?;
    simulated(report, out)?;
    let seconds = report.finished.0.saturating_sub(report.started.0);
    field(out, "Run", &report.run_id)?;
    field(out, "Started", report.started)?;
    field(out, "Finished", format!("{} (after {seconds} s)", report.finished))?;
    field(out, "Route", report.route)?;
    field(out, "gdsboot", &report.gdsboot)?;
    let settings = &report.settings;
    field(out, "Afterwards", format!("{} ({})", settings.after.word(), settings.after_from))?;
    if let Some(delivery) = &report.delivery {
        field(out, "Report", delivery.words())?;
    }
    settings.complaints.iter().try_for_each(|complaint| field(out, "Not understood", complaint))
}

fn why(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.why.is_empty() {
        return Ok(());
    }
    section(out, "Why")?;
    for (number, reason) in (1..).zip(&report.why) {
        paragraph(out, &format!(" {number:>2}. "), reason)?;
    }
    Ok(())
}

fn problems(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.problems.is_empty() {
        return Ok(());
    }
    section(out, "What went wrong in this run")?;
    for problem in &report.problems {
        let kind = if problem.panic { "panic in" } else { "in" };
        paragraph(out, "  - ", &format!("{kind} {}: {}", problem.stage, problem.what))?;
    }
    Ok(())
}

fn image(facts: &Facts, out: &mut dyn Write) -> io::Result<()> {
    section(out, "Image")?;
    let Fact::Known { value: image, .. } = &facts.image else {
        return field(out, "Image", facts.image.as_ref().map(|_| ""));
    };
    field(out, "Profile", &image.profile)?;
    if !image.overlays.is_empty() {
        field(out, "Overlays", image.overlays.join(", "))?;
    }
    field(out, "Image id", &image.image_id)?;
    field(out, "Lock", &image.lock)?;
    field(out, "Built by", format!("gdsboot {}", image.gdsboot))?;
    field(out, "Kernel", &image.kernel)?;
    field(out, "Driver", image.driver.as_deref().unwrap_or("none"))?;
    for (name, made) in &image.modules {
        field(out, "Module", format!("{name}: {made}"))?;
    }
    field(out, "Packages", image.packages.len())
}

fn machine(facts: &Facts, out: &mut dyn Write) -> io::Result<()> {
    section(out, "Machine")?;
    let platform = &facts.platform;
    field(out, "Vendor", &platform.vendor)?;
    field(out, "Product", &platform.product)?;
    field(out, "Version", &platform.version)?;
    field(out, "Serial", &platform.serial)?;
    field(
        out,
        "Firmware",
        format!("{} {} {}", platform.firmware_vendor, platform.firmware_version, platform.firmware_date),
    )?;
    let hypervisor = match &platform.hypervisor {
        Fact::Known { value, .. } => format!("{value}{}", hypervisor_name(value)),
        Fact::Missing { .. } => "none that the CPU reports".into(),
        other => other.to_string(),
    };
    field(out, "Hypervisor", hypervisor)?;
    let cpu = facts
        .cpu
        .as_ref()
        .map(|cpu| format!("{}, {} online, sockets: {}", cpu.model_name, cpu.online, cpu.sockets));
    field(out, "CPU", cpu)?;
    field(out, "Memory", facts.memory.as_ref().map(|memory| binary_size(memory.total)))?;
    let kernel = &facts.kernel;
    field(out, "Kernel", &kernel.release)?;
    field(out, "Command line", &kernel.command_line)?;
    let taint = kernel.taint.as_ref().map(|taint| format!("{} {}", taint.bits, taint.letters));
    field(out, "Taint", taint)?;
    let started = kernel.uefi.as_ref().map(|uefi| if *uefi { "by UEFI" } else { "not by UEFI" });
    field(out, "Started", started)?;
    field(out, "Secure Boot", kernel.secure_boot.as_ref().map(|on| if *on { "on" } else { "off" }))?;
    field(out, "Lockdown", &kernel.lockdown)?;
    let has = |there: bool| if there { "yes" } else { "no" };
    let p2pdma = kernel.symbols.as_ref().map(|symbols| has(symbols.pci_p2pdma));
    field(out, "PCI P2PDMA", p2pdma)?;
    let hooks = kernel.symbols.as_ref().map(|symbols| match symbols.nvfs_hooks.as_slice() {
        [] => "none in the kernel".to_owned(),
        hooks => hooks.join(", "),
    });
    field(out, "nvidia-fs hooks", hooks)?;
    field(out, "NVIDIA driver", &facts.nvidia.driver)?;
    field(out, "nvidia-fs", &facts.nvidia.nvidia_fs)
}

/// Who signs with `signature` in CPUID leaf 0x4000_0000.
fn hypervisor_name(signature: &str) -> &'static str {
    match signature {
        "KVMKVMKVM" => " (KVM)",
        "TCGTCGTCGTCG" => " (QEMU's own emulation)",
        "VMwareVMware" => " (VMware)",
        "Microsoft Hv" => " (Hyper-V)",
        "XenVMMXenVMM" => " (Xen)",
        "bhyve bhyve" => " (bhyve)",
        _ => "",
    }
}

fn modules(facts: &Facts, out: &mut dyn Write) -> io::Result<()> {
    section(out, "Modules that were loaded")?;
    let Fact::Known { value: loads, .. } = &facts.module_loads else {
        return field(out, "Modules", facts.module_loads.as_ref().map(|_| ""));
    };
    loads.iter().try_for_each(|load| module(load, out))
}

fn module(load: &ModuleLoad, out: &mut dyn Write) -> io::Result<()> {
    field(out, &load.name, format!("{} ({} ms)", load.outcome.words(), load.ms))?;
    // What other modules say when all is well is in the JSON.
    let matters = !load.outcome.is_in() || load.name.starts_with("nvidia");
    let mut lines = load.kernel_lines.iter().filter(|_| matters);
    lines.try_for_each(|line| paragraph(out, "    | ", line))
}

fn libraries(probe: &Fact<DmaProbe>, out: &mut dyn Write) -> io::Result<()> {
    section(out, "NVIDIA's libraries")?;
    let Fact::Known { value: probe, .. } = probe else {
        return field(out, "Libraries", probe.as_ref().map(|_| ""));
    };
    probe.libraries.iter().try_for_each(|library| self::library(library, out))
}

fn library(library: &Library, out: &mut dyn Write) -> io::Result<()> {
    match (&library.error, &library.path) {
        (Some(error), _) => field(out, &library.name, format!("not loaded: {error}"))?,
        (None, Some(path)) => field(out, &library.name, path)?,
        (None, None) => field(out, &library.name, "loaded")?,
    }
    for call in &library.calls {
        let answer = match (call.status, &call.value) {
            (None, _) => "no such function in this version".to_owned(),
            (Some(_), Some(value)) => value.clone(),
            (Some(status), None) => format!("returned {status}"),
        };
        paragraph(out, "    | ", &format!("{}: {answer}", call.function))?;
    }
    Ok(())
}

fn gpus(facts: &Facts, out: &mut dyn Write) -> io::Result<()> {
    section(out, "NVIDIA GPUs")?;
    let Fact::Known { value: devices, .. } = &facts.pci else {
        return field(out, "GPUs", facts.pci.as_ref().map(|_| ""));
    };
    let gpus: Vec<&PciDevice> = devices.iter().filter(|device| device.is_nvidia_gpu()).collect();
    if gpus.is_empty() {
        return field(out, "GPUs", "none");
    }
    for gpu in gpus {
        let claimed = facts.nvidia.gpus.value().into_iter().flatten();
        let model = claimed
            .into_iter()
            .find(|claimed| claimed.address == gpu.address)
            .and_then(|gpu| gpu.model.value());
        field(
            out,
            &gpu.address,
            model.map_or_else(|| format!("{}:{}", gpu.vendor, gpu.device), String::clone),
        )?;
        details(gpu, out)?;
    }
    Ok(())
}

fn nvme(controllers: &Fact<Vec<NvmeController>>, out: &mut dyn Write) -> io::Result<()> {
    section(out, "NVMe controllers")?;
    let controllers = match controllers {
        Fact::Known { value, .. } => value.as_slice(),
        Fact::Missing { .. } => &[],
        other => return field(out, "Controllers", other.as_ref().map(|_| "")),
    };
    if controllers.is_empty() {
        return field(out, "Controllers", "none");
    }
    for nvme in controllers {
        field(
            out,
            &nvme.name,
            format!("{}, serial {}, firmware {}", nvme.model, nvme.serial, nvme.firmware),
        )?;
        paragraph(
            out,
            "    | ",
            &format!("{} at {}, {}", nvme.transport, nvme.address, nvme.controller_state),
        )?;
        for namespace in &nvme.namespaces {
            let size = namespace.bytes.as_ref().map(|bytes| binary_size(*bytes));
            let text = format!("{}: {size} in blocks of {} bytes", namespace.name, namespace.block_size);
            paragraph(out, "    | ", &text)?;
        }
    }
    Ok(())
}

/// Driver, link, NUMA node, IOMMU group and windows of one device.
fn details(device: &PciDevice, out: &mut dyn Write) -> io::Result<()> {
    let or_none = |text: String, none: bool| if none { "none".to_owned() } else { text };
    let driver = or_none(device.driver.to_string(), matches!(device.driver, Fact::Missing { .. }));
    let group = or_none(device.iommu_group.to_string(), matches!(device.iommu_group, Fact::Missing { .. }));
    let node = format!("driver {driver}, NUMA node {}, IOMMU group {group}", device.numa_node);
    paragraph(out, "    | ", &node)?;
    if let (Fact::Known { value: speed, .. }, Fact::Known { value: width, .. }) =
        (&device.link_speed, &device.link_width)
    {
        let most = format!("{} x{}", device.link_speed_max, device.link_width_max);
        paragraph(out, "    | ", &format!("link {speed} x{width} of {most}"))?;
    }
    match &device.bars {
        Fact::Known { value: bars, .. } => {
            let bars = bars.iter().filter(|bar| bar.index < 6);
            let bars: Vec<String> =
                bars.map(|bar| format!("BAR{} {}", bar.index, binary_size(bar.size))).collect();
            if bars.is_empty() { Ok(()) } else { paragraph(out, "    | ", &bars.join(", ")) }
        }
        other => paragraph(out, "    | ", &format!("windows {}", other.as_ref().map(|_| ""))),
    }
}

fn pci(devices: &Fact<Vec<PciDevice>>, out: &mut dyn Write) -> io::Result<()> {
    section(out, "PCI devices")?;
    let Fact::Known { value: devices, .. } = devices else {
        return field(out, "Devices", devices.as_ref().map(|_| ""));
    };
    for device in devices {
        let driver = device.driver.value().map_or("-", String::as_str);
        let class = device.class.value().copied().map_or("", class_name);
        let number = |id: &Fact<Id>| id.value().map_or("????".to_owned(), Id::to_string);
        let id = format!("{}:{}", number(&device.vendor), number(&device.device));
        let line = format!("  {:<12}  {id:<9}  {class:<26} {driver}", device.address);
        writeln!(out, "{}", cut(line.trim_end(), WIDTH))?;
    }
    Ok(())
}

/// The base class in words, and the subclasses that matter here (PCI Code and ID Assignment Specification).
fn class_name(class: Class) -> &'static str {
    match (class.0 >> 16, class.0 >> 8 & 0xff) {
        (0x01, 0x08) => "NVMe or flash controller",
        (0x01, _) => "storage controller",
        (0x02, 0x07) => "InfiniBand controller",
        (0x02, _) => "network controller",
        (0x03, 0x02) => "3D controller",
        (0x03, _) => "display controller",
        (0x04, _) => "multimedia device",
        (0x05, _) => "memory controller",
        (0x06, 0x00) => "host bridge",
        (0x06, 0x01) => "ISA bridge",
        (0x06, 0x04) => "PCI bridge",
        (0x06, 0x80) => "bridge, other",
        (0x06, _) => "bridge",
        (0x07, _) => "communication controller",
        (0x08, _) => "system peripheral",
        (0x0c, 0x03) => "USB controller",
        (0x0c, _) => "serial bus controller",
        (0x12, _) => "accelerator",
        _ => "other",
    }
}

fn stages(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    section(out, "Steps of this run")?;
    for stage in &report.stages {
        let failed = if stage.ok { "" } else { "  not completed" };
        writeln!(out, "  {:<24} {:>8.2} s{failed}", cut(&stage.name, 24), stage.seconds)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::tests::sample;

    fn rendered(report: &Report) -> String {
        let mut out = Vec::new();
        write(report, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_whole_text() {
        insta::assert_snapshot!(rendered(&sample()));
    }

    #[test]
    fn nothing_read_is_80_columns_too() {
        let mut report = sample();
        let Fact::Known { value: devices, .. } = &mut report.facts.pci else { panic!("devices") };
        devices[0].vendor = Fact::Missing { from: "a/path/".repeat(9) };
        devices[0].driver = Fact::known("driver", "driver".repeat(20));
        report.stages[0].name = "stage".repeat(30);
        let text = rendered(&report);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        report.facts = Facts::default();
        report.problems[0].what = "a\x1b[2J\nvery long word: ".to_owned() + &"x".repeat(300);
        let text = rendered(&report);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(!text.contains('\x1b'));
    }
}
