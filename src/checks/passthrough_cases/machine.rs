//! Builds folders as owners capture their machines: sysfs with its links, procfs, logs in the forms that owners send, and
//! what programs printed.

use crate::checks::check::{Side, Status};
use crate::checks::context::side_of;
use crate::checks::judge::{Judgement, judge};
use crate::facts::{Facts, Root};
use crate::report::model::Verdict;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A PCI function, to be placed somewhere.
#[derive(Clone)]
pub struct Dev {
    pub class: u32,
    pub ids: [u16; 2],
    driver: Option<&'static str>,
    /// Start, end and flags of every window.
    bars: Vec<(u64, u64, u64)>,
    /// Speed and width now, and the most.
    link: Option<(&'static str, u32, &'static str, u32)>,
    node: i32,
    group: Option<u32>,
    /// PCI Express port type; none for conventional PCI.
    kind: Option<u16>,
    /// ACS control of a port.
    acs: Option<u16>,
    config: Config,
    files: Vec<(&'static str, String)>,
}

/// How much of the configuration space the owner could copy.
#[derive(Clone, Copy, PartialEq)]
pub enum Config {
    Full,
    /// What a plain user may read.
    Header,
    /// Not copied.
    None,
    /// The device answers with ones.
    Ones,
}

const MEM64: u64 = 0x14_220c;
const MEM32: u64 = 0x4_0200;
pub const G4: &str = "16.0 GT/s PCIe";
pub const G5: &str = "32.0 GT/s PCIe";
pub const G1: &str = "2.5 GT/s PCIe";
pub const GIB: u64 = 1 << 30;

pub fn dev(class: u32, vendor: u16, device: u16) -> Dev {
    Dev {
        class,
        ids: [vendor, device],
        driver: None,
        bars: vec![],
        link: None,
        node: -1,
        group: None,
        kind: Some(0),
        acs: None,
        config: Config::Full,
        files: vec![],
    }
}

/// The upstream port of [`Machine::switch`].
const UP: &str = "0000:00:01.0/0000:10:00.0";

/// A GPU whose BAR1 has this size and a place of its own.
pub fn gpu(device: u16, bar1: u64) -> Dev {
    let start = 0x20_0000_0000 + u64::from(device) * (256 << 30);
    let mut gpu = dev(0x03_0200, 0x10de, device).link(G5, 16, G5, 16).on("nvidia");
    gpu.bars = vec![
        (0x8100_0000, 0x81ff_ffff, MEM32),
        (start, start + bar1 - 1, MEM64),
        (0, 0, 0),
        (start + bar1, start + bar1 + (32 << 20) - 1, MEM64),
    ];
    gpu
}

/// A small card with video outputs.
pub fn screen(device: u16) -> Dev {
    let mut card = gpu(device, GIB / 4);
    card.class = 0x03_0000;
    card
}

/// An H100 PCIe.
pub fn h100() -> Dev {
    gpu(0x2331, 128 * GIB)
}

/// A Samsung PM9A3.
pub fn drive() -> Dev {
    let mut drive = dev(0x01_0802, 0x144d, 0xa80a).link(G4, 4, G4, 4).on("nvme");
    drive.bars = vec![(0x8200_0000, 0x8200_3fff, 0x14_0204)];
    drive
}

/// A root port.
pub fn port(vendor: u16, device: u16) -> Dev {
    let mut port = dev(0x06_0400, vendor, device).on("pcieport").link(G5, 16, G5, 16);
    port.kind = Some(4);
    port
}

/// A port of a switch: 5 is upstream, 6 downstream.
pub fn switch_port(kind: u16) -> Dev {
    let mut port = port(0x1000, 0xc030);
    port.kind = Some(kind);
    port
}

/// QEMU's root port.
pub fn qemu_port() -> Dev {
    port(0x1b36, 0x000c)
}

/// A conventional device or bridge.
pub fn conventional(class: u32, vendor: u16, device: u16) -> Dev {
    Dev { kind: None, ..dev(class, vendor, device) }
}

impl Dev {
    pub fn on(mut self, driver: &'static str) -> Self {
        self.driver = Some(driver);
        self
    }
    pub fn unbound(mut self) -> Self {
        self.driver = None;
        self
    }
    pub fn node(mut self, node: i32) -> Self {
        self.node = node;
        self
    }
    pub fn group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }
    pub fn link(mut self, speed: &'static str, width: u32, speed_max: &'static str, width_max: u32) -> Self {
        self.link = Some((speed, width, speed_max, width_max));
        self
    }
    pub fn acs(mut self, control: u16) -> Self {
        self.acs = Some(control);
        self
    }
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }
    /// Sets one line of `resource`.
    pub fn bar(mut self, index: usize, start: u64, end: u64) -> Self {
        self.bars.resize(self.bars.len().max(index + 1), (0, 0, 0));
        let flags = self.bars[index].2;
        self.bars[index] = (start, end, if flags == 0 { MEM64 } else { flags });
        self
    }
    /// On conventional PCI, as the guest sees it.
    pub fn flat(mut self) -> Self {
        self.link = None;
        self.kind = None;
        self
    }
    pub fn file(mut self, name: &'static str, text: &str) -> Self {
        self.files.push((name, text.to_owned()));
        self
    }

    fn config_space(&self) -> Option<Vec<u8>> {
        let is_bridge = self.class >> 8 == 0x0604;
        let mut space = vec![0u8; if self.kind.is_some() { 4096 } else { 256 }];
        space[0..2].copy_from_slice(&self.ids[0].to_le_bytes());
        space[2..4].copy_from_slice(&self.ids[1].to_le_bytes());
        space[4] = 0x06;
        space[8..12].copy_from_slice(&(self.class << 8 | 0xa1).to_le_bytes());
        space[0x0e] = u8::from(is_bridge);
        if let Some(kind) = self.kind {
            space[6] = 0x10;
            space[0x34] = 0x60;
            space[0x60] = 0x10;
            space[0x62..0x64].copy_from_slice(&(0x0002 | kind << 4).to_le_bytes());
            let code = |speed: &str| match speed.split('.').next() {
                Some("2") => 1u16,
                Some("5") => 2,
                Some("8") => 3,
                Some("16") => 4,
                _ => 5,
            };
            if let Some((speed, width, speed_max, width_max)) = self.link {
                let capable = u32::from(code(speed_max)) | width_max << 4;
                space[0x6c..0x70].copy_from_slice(&capable.to_le_bytes());
                let status = code(speed) | (width as u16) << 4;
                space[0x72..0x74].copy_from_slice(&status.to_le_bytes());
            }
            if let Some(control) = self.acs {
                space[0x100..0x104].copy_from_slice(&0x0001_000d_u32.to_le_bytes());
                space[0x104..0x106].copy_from_slice(&0x005f_u16.to_le_bytes());
                space[0x106..0x108].copy_from_slice(&control.to_le_bytes());
            }
        }
        match self.config {
            Config::Full => Some(space),
            Config::Header => Some(space[..64].to_vec()),
            Config::Ones => Some(vec![0xff; space.len()]),
            Config::None => None,
        }
    }
}

/// The form in which the owner sent the kernel log.
#[derive(Clone, Copy)]
pub enum Form {
    /// `/dev/kmsg`.
    Kmsg,
    /// `var/log/dmesg`.
    Dmesg,
    /// The command `dmesg -T`.
    DmesgHuman,
    /// The command `journalctl -k -b`.
    Journal,
    /// `var/log/syslog`.
    Syslog,
}

pub struct Machine {
    dir: tempfile::TempDir,
    commands: usize,
    drives: usize,
    modules: Vec<String>,
    symbols: String,
    gpus: Vec<String>,
}

impl Machine {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, commands: 0, drives: 0, modules: vec![], symbols: String::new(), gpus: vec![] }
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&mut self, path: &str, text: impl AsRef<[u8]>) -> &mut Self {
        let path = self.root().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
        self
    }

    fn link(&self, target: &str, path: &str) {
        let path = self.root().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs_err::remove_file(&path);
        symlink(target, path).unwrap();
    }

    /// Places a function; `way` names the ports above it, from the host bridge down.
    pub fn add(&mut self, way: &str, dev: &Dev) -> &mut Self {
        let first = way.split('/').next().unwrap();
        let bus = &first[..first.len() - 5];
        self.add_below(&format!("pci{bus}"), way, dev)
    }

    /// The same below a folder of `/sys/devices`.
    pub fn add_below(&mut self, below: &str, way: &str, dev: &Dev) -> &mut Self {
        let address = way.rsplit('/').next().unwrap().to_owned();
        let real = format!("sys/devices/{below}/{way}");
        let put = |machine: &mut Self, name: &str, text: &str| {
            machine.file(&format!("{real}/{name}"), format!("{text}\n"));
        };
        put(self, "vendor", &format!("{:#06x}", dev.ids[0]));
        put(self, "device", &format!("{:#06x}", dev.ids[1]));
        put(self, "class", &format!("{:#08x}", dev.class));
        put(self, "revision", "0xa1");
        put(self, "numa_node", &dev.node.to_string());
        put(self, "enable", "1");
        let mut resource = String::new();
        for n in 0..13 {
            let (start, end, flags) = dev.bars.get(n).copied().unwrap_or_default();
            resource += &format!("{start:#018x} {end:#018x} {flags:#018x}\n");
        }
        self.file(&format!("{real}/resource"), resource);
        if let Some((speed, width, speed_max, width_max)) = dev.link {
            put(self, "current_link_speed", speed);
            put(self, "current_link_width", &width.to_string());
            put(self, "max_link_speed", speed_max);
            put(self, "max_link_width", &width_max.to_string());
        }
        if let Some(space) = dev.config_space() {
            self.file(&format!("{real}/config"), space);
        }
        for (name, text) in &dev.files {
            put(self, name, text);
        }
        let up = "../".repeat(way.split('/').count() + below.split('/').count() + 1);
        if let Some(driver) = dev.driver {
            self.link(&format!("{up}bus/pci/drivers/{driver}"), &format!("{real}/driver"));
        }
        if let Some(group) = dev.group {
            self.link(&format!("{up}kernel/iommu_groups/{group}"), &format!("{real}/iommu_group"));
            let of_group = format!("sys/kernel/iommu_groups/{group}");
            self.link(
                &format!("../../../../devices/{below}/{way}"),
                &format!("{of_group}/devices/{address}"),
            );
            if !self.root().join(&of_group).join("type").exists() {
                self.file(&format!("{of_group}/type"), "DMA\n");
            }
        }
        self.link(&format!("../../../devices/{below}/{way}"), &format!("sys/bus/pci/devices/{address}"));
        if dev.driver == Some("nvidia") && dev.class >> 16 == 3 {
            self.gpus.push(address.clone());
        }
        if dev.driver == Some("nvme") {
            self.controller(&real, &address, "SAMSUNG MZQL23T8HCLS-00A07", dev.node);
        }
        self
    }

    /// A switch below the port 0000:00:01.0, with two downstream ports.
    pub fn switch(&mut self, acs: u16) -> &mut Self {
        self.add(UP, &switch_port(5).node(0))
            .add(&format!("{UP}/0000:11:00.0"), &switch_port(6).acs(acs).node(0))
            .add(&format!("{UP}/0000:11:01.0"), &switch_port(6).acs(acs).node(0))
    }

    /// Places a function below one of them.
    pub fn below(&mut self, port: u32, address: &str, dev: &Dev) -> &mut Self {
        self.add(&format!("{UP}/0000:11:0{port}.0/{address}"), dev)
    }

    /// The kind of every group.
    pub fn group_type(&mut self, kind: &str) -> &mut Self {
        let groups = self.root().join("sys/kernel/iommu_groups");
        for group in fs_err::read_dir(groups).unwrap().map(Result::unwrap) {
            fs_err::write(group.path().join("type"), format!("{kind}\n")).unwrap();
        }
        self
    }

    fn controller(&mut self, device: &str, address: &str, model: &str, node: i32) {
        let n = self.drives;
        self.drives += 1;
        let real = format!("{device}/nvme/nvme{n}");
        for (name, text) in [
            ("model", model),
            ("serial", &format!("S64GNE0R{n:06}")),
            ("firmware_rev", "GDC5902Q"),
            ("transport", "pcie"),
            ("address", address),
            ("state", "live"),
            ("numa_node", &node.to_string()),
        ] {
            self.file(&format!("{real}/{name}"), format!("{text}\n"));
        }
        let disk = format!("{real}/nvme{n}n1");
        self.file(&format!("{disk}/size"), "7501476528\n");
        self.file(&format!("{disk}/queue/logical_block_size"), "512\n");
        self.link(&format!("../../{}", &real[4..]), &format!("sys/class/nvme/nvme{n}"));
        self.link(&format!("../{}", &disk[4..]), &format!("sys/block/nvme{n}n1"));
    }

    pub fn cpu(&mut self, vendor: &str, model: &str, family: u32, hypervisor: bool) -> &mut Self {
        let flag = if hypervisor { " hypervisor" } else { "" };
        let cpus: String = (0..8)
            .map(|n| {
                format!(
                    "processor\t: {n}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: 17\n\
                     model name\t: {model}\nphysical id\t: 0\nflags\t\t: fpu vme de pse tsc msr{flag} svm\n\
                     address sizes\t: 48 bits physical, 48 bits virtual\n\n"
                )
            })
            .collect();
        self.file("proc/cpuinfo", cpus)
    }

    /// Names in `sys/class/dmi/id`.
    pub fn dmi(&mut self, vendor: &str, product: &str) -> &mut Self {
        self.file("sys/class/dmi/id/sys_vendor", format!("{vendor}\n"))
            .file("sys/class/dmi/id/product_name", format!("{product}\n"))
    }

    pub fn kernel(&mut self, release: &str, command_line: &str) -> &mut Self {
        self.file("proc/sys/kernel/osrelease", format!("{release}\n"))
            .file("proc/version", format!("Linux version {release} (buildd@host) (gcc 13) #1 SMP\n"))
            .file("proc/cmdline", format!("BOOT_IMAGE=/vmlinuz-{release} {command_line}\n"))
    }

    pub fn acpi(&mut self, tables: &[&str]) -> &mut Self {
        for table in ["FACP", "APIC", "MCFG", "SSDT1"].iter().chain(tables) {
            self.file(&format!("sys/firmware/acpi/tables/{table}"), "");
        }
        self
    }

    pub fn memory(&mut self, gib: u64) -> &mut Self {
        self.file("proc/meminfo", format!("MemTotal: {} kB\nHugePages_Total: 0\n", gib << 20))
    }

    /// A server of AMD's without a fault of its own.
    pub fn epyc(&mut self) -> &mut Self {
        self.cpu("AuthenticAMD", "AMD EPYC 9354 32-Core Processor", 25, false)
            .dmi("Supermicro", "AS -4125GS-TNRT")
            .acpi(&["IVRS"])
            .memory(512)
            .add("0000:00:00.0", &conventional(0x06_0000, 0x1022, 0x14a4))
    }

    /// A server of Intel's without a fault of its own.
    pub fn xeon(&mut self) -> &mut Self {
        self.cpu("GenuineIntel", "Intel(R) Xeon(R) Platinum 8480+", 6, false)
            .dmi("Dell Inc.", "PowerEdge XE9680")
            .acpi(&["DMAR"])
            .memory(1024)
            .add("0000:00:00.0", &conventional(0x06_0000, 0x8086, 0x09a2).on("icx_uncore"))
    }

    /// A Q35 guest of QEMU's on a host of AMD's, which shows its CPU.
    pub fn q35(&mut self) -> &mut Self {
        self.cpu("AuthenticAMD", "AMD EPYC 9354 32-Core Processor", 25, true)
            .dmi("QEMU", "Standard PC (Q35 + ICH9, 2009)")
            .acpi(&["WAET"])
            .memory(64)
            .file("sys/hypervisor/type", "")
            .add("0000:00:00.0", &conventional(0x06_0000, 0x8086, 0x29c0))
            .add("0000:00:1f.0", &conventional(0x06_0100, 0x8086, 0x2918).on("lpc_ich"))
            .add("0000:00:12.0", &conventional(0x02_0000, 0x1af4, 0x1000).on("virtio-pci"))
    }

    pub fn module(&mut self, line: &str) -> &mut Self {
        self.modules.push(line.to_owned());
        self
    }

    /// NVIDIA's driver, with what it says of the GPUs that it has.
    pub fn nvidia(&mut self, version: &str, open: bool, model: &str) -> &mut Self {
        let flavour = if open {
            "NVIDIA UNIX Open Kernel Module for x86_64"
        } else {
            "NVIDIA UNIX x86_64 Kernel Module"
        };
        self.file(
            "proc/driver/nvidia/version",
            format!(
                "NVRM version: {flavour}  {version}  Release Build  (dvs-builder@U22)\nGCC version:  gcc version 13.3.0\n"
            ),
        );
        self.file(
            "proc/driver/nvidia/params",
            "ResmanDebugLevel: 4294967295\nRegistryDwords: \"\"\nEnableGpuFirmware: 18\n",
        );
        for (n, address) in self.gpus.clone().iter().enumerate() {
            let text = format!(
                "Model: \t\t {model}\nIRQ:   \t\t 16\nGPU UUID: \t GPU-0000-{n}\nVideo BIOS: \t 96.00.89.00.01\n\
                 Bus Type: \t PCIe\nBus Location: \t {address}\nDevice Minor: \t {n}\nGPU Excluded:\t No\n"
            );
            self.file(&format!("proc/driver/nvidia/gpus/{address}/information"), text);
        }
        self.module("nvidia_uvm 1540096 0 - Live 0x0000000000000000");
        self.module("nvidia 11530240 2 nvidia_uvm, Live 0x0000000000000000")
    }

    /// nvidia-fs and an nvme that has its hook.
    pub fn nvidia_fs(&mut self) -> &mut Self {
        self.module("nvidia_fs 323584 0 - Live 0x0000000000000000 (OE)");
        self.symbols += "0000000000000000 T nvme_v1_register_nvfs_dma_ops\t[nvme]\n";
        self.file("proc/driver/nvidia-fs/version", "version: 2.27\n").file(
            "etc/cufile.json",
            "{\n  // NOTE : settings\n  \"properties\": { \"allow_compat_mode\": false, },\n}\n",
        )
    }

    /// P2PDMA with all that it asks for.
    pub fn p2pdma(&mut self) -> &mut Self {
        self.symbols += "0000000000000000 t p2pdma_pgmap_ops\n0000000000000000 T pci_p2pdma_add_resource\n";
        self.file(
            "proc/driver/nvidia/params",
            "RegistryDwords: \"RMForceStaticBar1=1;RmForceDisableIomapWC=1;\"\n",
        )
        .file("sys/module/nvme_core/parameters/multipath", "N\n")
        .file(
            "etc/cufile.json",
            "{ \"properties\": { \"use_pci_p2pdma\": true, \"allow_compat_mode\": false },\n  \
             \"block\": { \"nvme\": { \"use_pci_p2pdma\": true } } }\n",
        )
    }

    /// As a plain user sees them, who copies nothing then.
    pub fn without_symbols(&mut self) -> &mut Self {
        self.symbols.clear();
        self
    }

    pub fn command(&mut self, argv: &[&str], status: i32, stdout: &str, stderr: &str) -> &mut Self {
        self.commands += 1;
        let folder = format!("run/gdsboot/commands/{}-{}", argv[0], self.commands);
        self.file(&format!("{folder}/argv"), argv.join("\n") + "\n")
            .file(&format!("{folder}/stdout"), stdout)
            .file(&format!("{folder}/stderr"), stderr)
            .file(&format!("{folder}/status"), format!("{status}\n"))
    }

    /// The kernel log: what every machine says, then these lines, a second apart.
    pub fn log(&mut self, form: Form, lines: &[&str]) -> &mut Self {
        let release =
            fs_err::read_to_string(self.root().join("proc/sys/kernel/osrelease")).unwrap_or_default();
        let start = format!("Linux version {} (buildd@host) #1 SMP PREEMPT_DYNAMIC", release.trim());
        let has_driver = self.root().join("proc/driver/nvidia/version").exists();
        let harmless = HARMLESS.iter().copied().filter(|line| has_driver || !line.starts_with("nvidia"));
        let all: Vec<&str> =
            [start.as_str()].into_iter().chain(harmless).chain(lines.iter().copied()).collect();
        let each = |shown: &dyn Fn(usize, &str) -> String| {
            all.iter().enumerate().map(|(n, line)| shown(n, line) + "\n").collect::<String>()
        };
        match form {
            Form::Kmsg => self.file("dev/kmsg", each(&|n, line| format!("6,{n},{n}000000,-;{line}"))),
            Form::Dmesg => {
                self.file("var/log/dmesg", each(&|n, line| format!("[{n:5}.000000] kernel: {line}")))
            }
            Form::Syslog => self.file(
                "var/log/syslog",
                each(&|n, line| {
                    format!("2026-11-20T10:11:{:02}.123456+00:00 node7 kernel: [{n:5}.000000] {line}", n % 60)
                }),
            ),
            Form::DmesgHuman => {
                let text = each(&|n, line| format!("[Fri Nov 20 10:11:{:02} 2026] {line}", n % 60));
                self.command(&["dmesg", "-T"], 0, &text, "")
            }
            Form::Journal => {
                let text = each(&|n, line| format!("Nov 20 10:11:{:02} node7 kernel: {line}", n % 60));
                self.command(&["journalctl", "-k", "-b", "--no-pager"], 0, &text, "")
            }
        }
    }

    fn judged(&mut self) -> Judgement {
        if !self.root().join("sys/bus").exists() && self.modules.is_empty() {
            // Who sent a listing or a log alone sent no modules either.
            return judge_root(self.root());
        }
        let mut modules = self.modules.join("\n");
        modules +=
            "\nnvme 61440 2 - Live 0x0000000000000000\nnvme_core 212992 3 nvme, Live 0x0000000000000000\n";
        self.file("proc/modules", modules);
        if !self.symbols.is_empty() {
            let symbols = format!(
                "0000000000000000 T _stext\n0000000000000000 t nvme_queue_rq\t[nvme]\n{}",
                self.symbols
            );
            self.file("proc/kallsyms", symbols);
        }
        judge_root(self.root())
    }

    /// Each of the causes, written as `id` or as `id|id` where either tells it, must be among the first three findings, and
    /// nothing else fails but what is `allowed`: what is wrong besides, and a second view of the same cause.
    pub fn expect(&mut self, side: Side, causes: &[&str], allowed: &[&str]) -> Judgement {
        let judgement = self.judged();
        assert_eq!(judgement.side, side);
        let shown = shown(&judgement);
        assert_ne!(judgement.verdict, Verdict::Pass, "{shown}");
        let first = &judgement.findings[..3.min(judgement.findings.len())];
        for cause in causes {
            let found =
                first.iter().any(|f| f.status == Status::Fail && cause.split('|').any(|id| id == f.id));
            assert!(found, "{cause} is not among the first three:\n{shown}");
        }
        let fails = |id: &str| judgement.findings.iter().any(|f| f.status == Status::Fail && f.id == id);
        let stale: Vec<_> = allowed.iter().filter(|id| !id.split('|').any(fails)).collect();
        assert!(stale.is_empty(), "{stale:?} need not be allowed:\n{shown}");
        for finding in judgement.findings.iter().filter(|f| f.status == Status::Fail) {
            let known = causes.iter().chain(allowed).any(|id| id.split('|').any(|id| id == finding.id));
            assert!(known, "{} fails without a reason:\n{shown}", finding.id);
        }
        judgement
    }

    /// Nothing fails, and nothing is proven.
    pub fn expect_healthy(&mut self, side: Side) -> Judgement {
        let judgement = self.expect(side, &[], &[]);
        assert_eq!(judgement.verdict, Verdict::Incomplete, "{}", shown(&judgement));
        judgement
    }
}

pub fn judge_root(root: &Path) -> Judgement {
    let facts = Facts::read(&Root::at(root));
    judge(&facts, side_of(&facts), None, &[], "2026-11-24")
}

/// What is wrong, for a test's message.
pub fn shown(judgement: &Judgement) -> String {
    let mut text = format!("{:?} {:?}\n", judgement.side, judgement.verdict);
    for (n, finding) in judgement.findings.iter().enumerate() {
        if n < 3 || matches!(finding.status, Status::Fail) {
            text += &format!(
                "{n}: {} {:?} {:?}: {} ({:?})\n",
                finding.id, finding.status, finding.severity, finding.why, finding.because
            );
        }
    }
    text
}

/// Lines of healthy machines that look otherwise.
const HARMLESS: &[&str] = &[
    "ACPI BIOS Error (bug): Could not resolve symbol [\\_SB.PC00.RP01.PXSX], AE_NOT_FOUND (20230628/dswload2-162)",
    "ACPI Error: AE_NOT_FOUND, During name lookup/catalog (20230628/psobject-220)",
    "pnp 00:04: disabling [mem 0xfed1c000-0xfed1ffff] because it overlaps 0000:00:1f.0 BAR 0",
    "pci 0000:00:1c.0: bridge window [io  size 0x1000]: can't assign; no space",
    "pci 0000:00:1c.0: bridge window [io  size 0x1000]: failed to assign",
    "pcieport 0000:00:1c.4: AER: Corrected error message received from 0000:00:1c.4",
    "nvme nvme0: 8/0/0 default/read/poll queues",
    "nvme nvme0: missing or invalid SUBNQN field.",
    "xhci_hcd 0000:00:14.0: hcc params 0x20007fc1 hci version 0x100 quirks 0x0000000200009810",
    "nvidia: loading out-of-tree module taints kernel.",
    "nvidia: module verification failed: signature and/or required key missing - tainting kernel",
    "nvidia-nvlink: Nvlink Core is being initialized, major device number 510",
    "VFIO - User Level meta-driver version: 0.3",
    "systemd[1]: Mounting sys-kernel-debug.mount - Kernel Debug File System...",
    "EDAC MC: Ver: 3.0.0",
];
