//! Two faults at once, and folders that are no honest captures.

use super::machine::{Form, GIB, Machine, conventional, dev, drive, gpu, h100, judge_root, port, qemu_port};
use crate::checks::check::Side;
use crate::report::model::Verdict;
use std::os::unix::fs::symlink;

/// A guest with a GPU in nouveau's hands and QEMU's own drive.
#[test]
fn nouveau_and_an_emulated_drive() {
    let mut emulated = drive();
    emulated.ids = [0x1b36, 0x0010];
    let mut machine = Machine::new();
    machine.q35();
    machine
        .kernel("6.8.0-1032-nvidia", "root=PARTUUID=1 ro")
        .add("0000:00:1c.0", &qemu_port())
        .add("0000:00:1c.1", &qemu_port())
        .add("0000:00:1c.0/0000:01:00.0", &h100().on("nouveau"))
        .add("0000:00:1c.1/0000:02:00.0", &emulated)
        .log(
            Form::Kmsg,
            &[
                "nouveau 0000:01:00.0: unknown chipset (180000a1)",
                "NVRM: The NVIDIA probe routine was not called for 1 device(s).",
                "NVRM: This can occur when another driver was loaded and",
            ],
        )
        .expect(Side::Guest, &["gpu.driver|driver.nouveau", "nvme.real"], &["gpu.driver|driver.nouveau"]);
}

/// A host that keeps the GPU and fakes its isolation.
#[test]
fn faked_isolation_and_a_driver_of_the_hosts() {
    let mut machine = Machine::new();
    machine.epyc();
    machine
        .kernel(
            "6.8.12-4-pve",
            "root=/dev/mapper/pve-root ro quiet amd_iommu=on pcie_acs_override=downstream",
        )
        .file("sys/class/iommu/ivhd0/x", "")
        .add("0000:00:01.1", &port(0x1022, 0x14ab).group(1).acs(0x1d))
        .add("0000:00:01.2", &port(0x1022, 0x14ab).group(2).acs(0x1d))
        .add("0000:00:01.1/0000:01:00.0", &h100().on("nouveau").group(15))
        .add("0000:00:01.2/0000:02:00.0", &drive().on("vfio-pci").group(16))
        .module("kvm_amd 208896 16 - Live 0x0")
        .expect(Side::Host, &["gpu.driver", "iommu.acs-override"], &[]);
}

/// A server whose IOMMU translates and whose switch redirects.
#[test]
fn a_translating_iommu_and_a_redirecting_switch() {
    let mut machine = Machine::new();
    machine.epyc();
    machine
        .kernel("6.8.0-1032-nvidia", "root=UUID=7 ro")
        .file("sys/class/iommu/ivhd0/x", "")
        .add("0000:00:01.0", &port(0x1022, 0x14ab).group(1).acs(0x1d))
        .switch(0x1d)
        .below(0, "0000:12:00.0", &h100().group(5))
        .below(1, "0000:13:00.0", &drive().group(6))
        .group_type("DMA-FQ")
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .nvidia_fs()
        .expect(Side::BareMetal, &["iommu.translation", "acs.redirect"], &[]);
}

/// A guest on i440fx whose GPU has no window.
#[test]
fn an_old_machine_type_and_no_window() {
    let mut machine = Machine::new();
    machine
        .cpu("GenuineIntel", "Intel(R) Xeon(R) Platinum 8480+", 6, true)
        .dmi("QEMU", "Standard PC (i440FX + PIIX, 1996)")
        .acpi(&["WAET"])
        .memory(64)
        .kernel("5.15.0-119-generic", "root=UUID=2 ro")
        .add("0000:00:00.0", &conventional(0x06_0000, 0x8086, 0x1237))
        .add("0000:00:10.0", &h100().flat().unbound().bar(1, 0, 0).bar(3, 0, 0))
        .add("0000:00:11.0", &drive().flat())
        .log(
            Form::Dmesg,
            &[
                "pci 0000:00:10.0: BAR 1: no space for [mem size 0x2000000000 64bit pref]",
                "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:",
                "NVRM: BAR1 is 0M @ 0x0 (PCI:0000:00:10.0)",
            ],
        )
        .expect(
            Side::Guest,
            &["gpu.bars|driver.bar", "vm.machine-type|gpu.pcie"],
            &["gpu.bars|driver.bar", "vm.machine-type|gpu.pcie"],
        );
}

/// A GeForce on a socket without drives.
#[test]
fn a_geforce_far_from_its_drives() {
    let mut machine = Machine::new();
    machine.epyc();
    machine
        .kernel("6.8.0-1032-nvidia", "root=UUID=7 ro")
        .file("sys/devices/system/node/node0/x", "")
        .file("sys/devices/system/node/node1/x", "")
        .add("0000:00:01.0", &port(0x1022, 0x14ab).node(0))
        .add("0000:00:01.0/0000:12:00.0", &gpu(0x2b85, 32 * GIB).node(0))
        .add("0000:80:00.0", &conventional(0x06_0000, 0x1022, 0x14a4).node(1))
        .add("0000:80:01.0", &port(0x1022, 0x14ab).node(1))
        .add("0000:80:01.0/0000:81:00.0", &drive().node(1))
        .nvidia("580.95.05", true, "NVIDIA GeForce RTX 5090")
        .nvidia_fs()
        .expect(
            Side::BareMetal,
            &["gpu.product|driver.product", "topology.socket"],
            &["gpu.product|driver.product"],
        );
}

/// Loops, folders for files, files for folders, and bytes of no meaning, wherever the readers look.
#[test]
fn a_hostile_capture_is_read_to_its_end() {
    let mut machine = Machine::new();
    machine.q35();
    machine
        .kernel("6.8.0", "ro")
        .add("0000:00:1c.0", &qemu_port())
        .add("0000:00:1c.0/0000:01:00.0", &h100())
        .add("0000:00:1d.0", &dev(0x01_0802, 0x144d, 0xa80a));
    let root = machine.root().to_owned();
    let garbage: Vec<u8> = (0..70_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let device = "sys/devices/pci0000:00/0000:00:1c.0/0000:01:00.0";
    for path in [
        "proc/cpuinfo",
        "proc/modules",
        "proc/kallsyms",
        "proc/self/mountinfo",
        "proc/meminfo",
        "proc/driver/nvidia/version",
        "proc/driver/nvidia/params",
        "proc/driver/nvidia-fs/version",
        "proc/driver/nvidia-fs/stats",
        "etc/cufile.json",
        "dev/kmsg",
        "var/log/syslog",
        "var/log/nvidia-installer.log",
        "cufile.log",
        "run/gdsboot/commands/gdscheck-1/stdout",
        "run/gdsboot/commands/nvidia-smi-2/argv",
        "run/gdsboot/commands/lspci-3/stdout",
        "lib/modules/6.8.0/modules.dep",
        "lib/modules/6.8.0/updates/dkms/nvidia-fs.ko.zst",
        "lib/modules/6.8.0/kernel/drivers/nvme/host/nvme.ko.xz",
        "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
        &format!("{device}/resource"),
        &format!("{device}/config"),
        &format!("{device}/aer_dev_fatal"),
        &format!("{device}/current_link_width"),
        &format!("{device}/numa_node"),
    ] {
        machine.file(path, &garbage);
    }
    let relink = |target: &str, path: &str| {
        let path = root.join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs_err::remove_file(&path);
        symlink(target, path).unwrap();
    };
    relink("loop", "sys/bus/pci/devices/loop");
    relink("../devices", "sys/bus/pci/devices/0000:ff:1f.7");
    relink("/dev/zero", "proc/cmdline");
    relink("/dev/zero", "var/log/kern.log");
    relink(".", "sys/kernel/iommu_groups/7");
    relink("..", "sys/class/nvme/nvme0");
    relink("../../../../../../../../../../etc/passwd", "sys/class/dmi/id/board_vendor");
    relink("a", "home/b");
    relink("b", "home/a");
    for folder in ["var/log/dmesg", "etc/os-release", "proc/sys/kernel/ostype", "sys/block/nvme0n1/size"] {
        fs_err::create_dir_all(root.join(folder)).unwrap();
    }
    machine.file("run/gdsboot/commands/flat", "not a folder");
    machine.file("sys/kernel/iommu_groups/9", "not a folder");
    fs_err::create_dir_all(root.join("sys/bus/pci/devices/not-an-address")).unwrap();
    let judgement = judge_root(&root);
    assert_ne!(judgement.verdict, Verdict::Pass);
}
