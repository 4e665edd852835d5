//! A machine as a folder: a server or a guest with many GPUs and NVMe drives, each behind a port of its own.

#![allow(dead_code, reason = "each program that includes this module takes what it needs")]

use std::os::unix::fs::symlink;
use std::path::Path;

/// Writes a file of the machine.
pub fn file(root: &Path, path: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, bytes).unwrap();
}

/// A PCI function to be written.
struct Function<'a> {
    /// The bridges above it, from the host bridge down.
    above: &'a [&'a str],
    address: &'a str,
    ids: [u16; 2],
    class: u32,
    driver: Option<&'a str>,
    resource: &'a str,
    express: bool,
}

impl Function<'_> {
    fn write(&self, root: &Path) {
        let folder = [&["sys/devices/pci0000:00"], self.above, &[self.address]].concat().join("/");
        let [vendor, device] = self.ids;
        let put = |name: &str, text: String| file(root, &format!("{folder}/{name}"), text + "\n");
        put("vendor", format!("{vendor:#06x}"));
        put("device", format!("{device:#06x}"));
        put("subsystem_vendor", format!("{vendor:#06x}"));
        put("subsystem_device", "0x1626".into());
        put("class", format!("{:#08x}", self.class));
        put("revision", "0xa1".into());
        put("numa_node", "0".into());
        put("resource", self.resource.into());
        if self.express {
            put("current_link_speed", "32.0 GT/s PCIe".into());
            put("max_link_speed", "32.0 GT/s PCIe".into());
            put("current_link_width", "16".into());
            put("max_link_width", "16".into());
        }
        for (name, total) in [("correctable", "COR"), ("nonfatal", "NONFATAL"), ("fatal", "FATAL")] {
            put(&format!("aer_dev_{name}"), format!("RxErr 0\nTOTAL_ERR_{total} 0"));
        }
        file(root, &format!("{folder}/config"), self.config());
        let devices = root.join("sys/bus/pci/devices");
        fs_err::create_dir_all(&devices).unwrap();
        symlink(format!("../../../{}", &folder[4..]), devices.join(self.address)).unwrap();
        if let Some(driver) = self.driver {
            symlink(format!("/sys/bus/pci/drivers/{driver}"), root.join(&folder).join("driver")).unwrap();
        }
    }

    /// A type 0 or 1 header, and a PCI Express capability at 0x78.
    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; if self.express { 4096 } else { 256 }];
        config[0..2].copy_from_slice(&self.ids[0].to_le_bytes());
        config[2..4].copy_from_slice(&self.ids[1].to_le_bytes());
        config[8..12].copy_from_slice(&(self.class << 8 | 0xa1).to_le_bytes());
        let is_bridge = self.class >> 8 == 0x0604;
        config[0x0e] = u8::from(is_bridge);
        if self.express {
            config[0x06] = 0x10;
            config[0x34] = 0x78;
            config[0x78] = 0x10;
            // Version 2; a root port, or an endpoint.
            config[0x7a] = if is_bridge { 0x42 } else { 0x02 };
            config[0x84..0x88].copy_from_slice(&0x0000_0105_u32.to_le_bytes());
            config[0x8a..0x8c].copy_from_slice(&0x0105_u16.to_le_bytes());
        }
        config
    }
}

/// Writes a guest of a Q35 machine: every GPU and every drive behind a root port.
pub fn guest(root: &Path, gpus: usize, drives: usize) {
    let host = Function {
        above: &[],
        address: "0000:00:00.0",
        ids: [0x8086, 0x29c0],
        class: 0x06_0000,
        driver: None,
        resource: "",
        express: false,
    };
    host.write(root);
    for n in 0..gpus + drives {
        let port = format!("0000:00:{:02x}.{}", 0x10 + n / 8, n % 8);
        let address = format!("0000:{:02x}:00.0", n + 1);
        let port_function = Function {
            above: &[],
            address: &port,
            ids: [0x1b36, 0x000c],
            class: 0x06_0400,
            driver: Some("pcieport"),
            resource: "",
            express: true,
        };
        port_function.write(root);
        let base = 0x20_0000_0000_u64 * (n as u64 + 1);
        let is_gpu = n < gpus;
        let resource = if is_gpu {
            format!(
                "0x81000000 0x81ffffff 0x40200\n{base:#x} {:#x} 0x14220c\n0x0 0x0 0x0",
                base + (128 << 30) - 1
            )
        } else {
            "0x82000000 0x82003fff 0x140204".to_owned()
        };
        let function = Function {
            above: &[&port],
            address: &address,
            ids: if is_gpu { [0x10de, 0x2331] } else { [0x144d, 0xa80a] },
            class: if is_gpu { 0x03_0200 } else { 0x01_0802 },
            driver: Some(if is_gpu { "nvidia" } else { "nvme" }),
            resource: &resource,
            express: true,
        };
        function.write(root);
        if is_gpu {
            let information =
                format!("Model: \t\t NVIDIA H100 PCIe\nGPU UUID: \t GPU-{n}\nDevice Minor: \t {n}\n");
            file(root, &format!("proc/driver/nvidia/gpus/{address}/information"), information);
        } else {
            drive(root, n - gpus, &address);
        }
    }
    software(root);
}

fn drive(root: &Path, n: usize, address: &str) {
    let folder = format!("sys/class/nvme/nvme{n}");
    for (name, text) in [
        ("model", "SAMSUNG MZWLR3T8"),
        ("serial", &format!("S4EWNX0R{n:06}")),
        ("firmware_rev", "MPK90B5Q"),
        ("transport", "pcie"),
        ("address", address),
        ("state", "live"),
        ("numa_node", "0"),
    ] {
        file(root, &format!("{folder}/{name}"), format!("{text}\n"));
    }
    let name = format!("nvme{n}n1");
    fs_err::create_dir_all(root.join(&folder).join(&name)).unwrap();
    file(root, &format!("sys/block/{name}/size"), "7501476528\n");
    file(root, &format!("sys/block/{name}/queue/logical_block_size"), "512\n");
}

fn software(root: &Path) {
    file(root, "proc/sys/kernel/osrelease", "6.8.0-1032-nvidia\n");
    file(root, "proc/cmdline", "console=ttyS0 nvme_core.multipath=N\n");
    let cpu = "vendor_id : AuthenticAMD\ncpu family : 25\nmodel : 1\nmodel name : AMD EPYC 7543\nphysical id : 0\n\
               flags : fpu hypervisor\n";
    let cpus: String = (0..128).map(|n| format!("processor : {n}\n{cpu}\n")).collect();
    file(root, "proc/cpuinfo", cpus);
    file(root, "proc/meminfo", "MemTotal: 2113929216 kB\nHugePages_Total: 0\n");
    let symbols: String = (0..150_000).map(|n| format!("0000000000000000 t symbol_number_{n}\n")).collect();
    file(root, "proc/kallsyms", symbols + "0000000000000000 T pci_p2pdma_add_resource\n");
    file(
        root,
        "proc/modules",
        "nvidia_uvm 1 0 - Live 0x0\nnvidia 1 1 nvidia_uvm, Live 0x0\nnvme 1 0 - Live 0x0\nnvme_core 1 1 nvme, Live 0x0\n",
    );
    let version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n";
    file(root, "proc/driver/nvidia/version", version);
    file(
        root,
        "proc/driver/nvidia/params",
        "RegistryDwords: \"RMForceStaticBar1=1;RmForceDisableIomapWC=1;\"\n",
    );
    file(root, "sys/module/nvme_core/parameters/multipath", "N\n");
    let log: String = (0..5000).map(|n| format!("6,{n},{n}000,-;usb 1-1: message {n}\n")).collect();
    file(root, "dev/kmsg", log);
}
