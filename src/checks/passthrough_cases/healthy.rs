//! Machines on which nothing is wrong: nothing may fail there, and without a proof nothing passes.

use super::machine::{
    Config, Form, G1, G4, G5, GIB, Machine, conventional, dev, drive, gpu, h100, port, screen, switch_port,
};
use crate::checks::check::Side;

/// github.com/NVIDIA/open-gpu-kernel-modules/issues/1010: a GPU that idles lets its link fall to the first speed.
#[test]
fn an_idle_gpu_slows_its_link() {
    let mut machine = Machine::new();
    machine.epyc();
    machine
        .kernel("6.8.0-1032-nvidia", "root=UUID=7 ro")
        .file("proc/self/mountinfo", "30 1 259:1 / /data rw - ext4 /dev/nvme0n1 rw,data=ordered\n")
        .add("0000:00:01.0", &port(0x1022, 0x14ab).link(G1, 16, G5, 16))
        .switch(0)
        .below(0, "0000:12:00.0", &gpu(0x26b9, 64 * GIB).link(G1, 16, G4, 16).file("power_state", "D0"))
        .below(1, "0000:13:00.0", &drive())
        .nvidia("570.133.20", true, "NVIDIA L40S")
        .p2pdma()
        .expect_healthy(Side::BareMetal);
}

/// A server like NVIDIA's own: switches, network cards, a boot drive with LVM beside the clean ones, a BMC's display.
#[test]
fn a_server_with_switches_and_a_boot_drive() {
    let mut machine = Machine::new();
    machine.xeon();
    machine
        .kernel("5.15.0-1053-nvidia", "root=/dev/mapper/ubuntu--vg-root ro iommu=off")
        .file("etc/os-release", "PRETTY_NAME=\"Ubuntu 22.04.5 LTS\"\nID=ubuntu\n")
        .add("0000:00:1c.0", &port(0x8086, 0xa1a0))
        .add("0000:00:1c.0/0000:02:00.0", &conventional(0x06_0400, 0x1a03, 0x1150))
        .add("0000:00:1c.0/0000:02:00.0/0000:03:00.0", &conventional(0x03_0000, 0x1a03, 0x2000).on("ast"));
    for (n, root) in [(0u16, "0000:10:01.0"), (1, "0000:40:01.0")] {
        let bus = if n == 0 { "11" } else { "41" };
        machine
            .add(&format!("{}:00.0", &root[..7]), &conventional(0x06_0000, 0x8086, 0x09a2))
            .add(root, &port(0x8086, 0x352a).node(i32::from(n)))
            .add(&format!("{root}/0000:{bus}:00.0"), &switch_port(5).node(i32::from(n)));
        let next = if n == 0 { "12" } else { "42" };
        for slot in 0..3 {
            let way = format!("{root}/0000:{bus}:00.0/0000:{next}:0{slot}.0");
            machine.add(&way, &switch_port(6).acs(0).node(i32::from(n)));
            let at = format!(
                "{way}/0000:{}:00.0",
                ["13", "14", "15", "43", "44", "45"][usize::from(3 * n) + slot]
            );
            let device = match slot {
                0 => gpu(0x20b0 + n, 64 * GIB).link(G4, 16, G4, 16),
                1 => drive(),
                _ => dev(0x02_0700, 0x15b3, 0x101b).on("mlx5_core").link(G4, 16, G4, 16),
            };
            machine.add(&at, &device.node(i32::from(n)));
        }
    }
    machine
        .nvidia("535.183.06", true, "NVIDIA A100-SXM4-40GB")
        .nvidia_fs()
        .file("sys/block/dm-0/size", "200000000\n")
        .file("sys/block/dm-0/dm/uuid", "LVM-abc\n")
        .file("sys/block/dm-0/slaves/nvme0n1/x", "")
        .file("proc/self/mountinfo", "29 1 253:0 / / rw - ext4 /dev/mapper/ubuntu--vg-root rw\n30 1 259:1 / /data rw - ext4 /dev/nvme1n1 rw,data=ordered\n")
        .log(Form::Syslog, &["mlx5_core 0000:13:02.0: firmware version: 20.39.3004", "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  535.183.06"])
        .expect_healthy(Side::BareMetal);
}

/// A Grace Hopper server: the GPU's memory is the processor's too, and the SMMU is always on.
#[test]
fn a_grace_hopper() {
    let mut machine = Machine::new();
    let cpus: String = (0..8)
        .map(|n| format!("processor\t: {n}\nBogoMIPS\t: 2000.00\nFeatures\t: fp asimd sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n\n"))
        .collect();
    machine
        .file("proc/cpuinfo", cpus)
        .dmi("Supermicro", "ARS-111GL-NHR")
        .acpi(&["IORT", "HMAT", "PPTT", "SRAT"])
        .memory(574)
        .kernel("6.8.0-1028-nvidia-64k", "root=UUID=9 ro init_on_alloc=0 iommu.passthrough=1")
        .file("sys/class/iommu/smmu3.0x0000000011000000/x", "")
        .file("sys/devices/system/node/node0/x", "")
        .file("sys/devices/system/node/node1/x", "")
        .add("0009:00:00.0", &port(0x10de, 0x22b9).node(0).group(10))
        .add("0009:00:00.0/0009:01:00.0", &gpu(0x2342, 128 * GIB).node(0).group(11).link(G5, 1, G5, 1))
        .add("0004:00:00.0", &port(0x10de, 0x22b2).node(0).group(12))
        .add("0004:00:00.0/0004:01:00.0", &drive().node(0).group(13))
        .group_type("identity")
        .file("proc/self/mountinfo", "30 1 259:1 / /data rw - ext4 /dev/nvme0n1 rw,data=ordered\n")
        .nvidia("570.133.20", true, "NVIDIA GH200 480GB")
        .file(
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  570.133.20  Release Build\n",
        )
        .nvidia_fs()
        .log(
            Form::Kmsg,
            &[
                "arm-smmu-v3 arm-smmu-v3.0.auto: option mask 0x0",
                "NVRM: loading NVIDIA UNIX Open Kernel Module for aarch64  570.133.20",
            ],
        )
        .expect_healthy(Side::BareMetal);
}

/// Compute GPUs with the driver, and an old card for the screen with nouveau.
#[test]
fn an_old_card_shows_the_screen() {
    let mut machine = Machine::new();
    machine.epyc();
    machine
        .kernel("6.8.0-1032-nvidia", "root=UUID=7 ro")
        .add("0000:00:01.0", &port(0x1022, 0x14ab))
        .switch(0)
        .below(0, "0000:12:00.0", &h100())
        .below(1, "0000:13:00.0", &drive())
        .add("0000:00:03.0", &port(0x1022, 0x14ab))
        .add("0000:00:03.0/0000:14:00.0", &screen(0x128b).on("nouveau").link(G1, 4, "8.0 GT/s PCIe", 16))
        .add("0000:00:03.0/0000:14:00.1", &dev(0x04_0300, 0x10de, 0x0e0f).on("snd_hda_intel"))
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .p2pdma()
        .log(
            Form::Dmesg,
            &[
                "nouveau 0000:14:00.0: NVIDIA GK208B (b06070b1)",
                "NVRM: The NVIDIA probe routine was not called for 1 device(s).",
                "NVRM: This can occur when another driver was loaded and ",
                "NVRM: obtained ownership of the NVIDIA device(s).",
                "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.95.05",
            ],
        )
        .expect_healthy(Side::BareMetal);
}

/// A guest whose owner could copy little: no kernel log, no symbols, no configuration space.
#[test]
fn a_guest_of_which_little_was_copied() {
    let mut machine = Machine::new();
    machine.q35();
    machine
        .kernel("6.14.0-37-generic", "root=UUID=7 ro")
        .add("0000:00:1c.0", &super::machine::qemu_port().config(Config::None))
        .add("0000:00:1c.1", &super::machine::qemu_port().config(Config::None))
        .add("0000:00:1c.0/0000:01:00.0", &h100().config(Config::None))
        .add("0000:00:1c.1/0000:02:00.0", &drive().config(Config::None))
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .p2pdma()
        .without_symbols()
        .expect_healthy(Side::Guest);
}

/// A hypervisor whose devices sleep until the guest starts.
#[test]
fn a_host_whose_given_devices_sleep() {
    let mut machine = Machine::new();
    machine.epyc();
    machine
        .kernel("6.8.12-4-pve", "root=/dev/mapper/pve-root ro quiet amd_iommu=on iommu=pt")
        .file("sys/class/iommu/ivhd0/x", "")
        .add("0000:00:01.1", &port(0x1022, 0x14ab).group(1).acs(0x1d))
        .add("0000:00:01.2", &port(0x1022, 0x14ab).group(2).acs(0x1d))
        .add("0000:00:01.3", &port(0x1022, 0x14ab).group(3).acs(0x1d))
        .add(
            "0000:00:01.1/0000:01:00.0",
            &h100().on("vfio-pci").group(15).link(G1, 16, G5, 16).file("power_state", "D3hot"),
        )
        .add("0000:00:01.2/0000:02:00.0", &drive().on("vfio-pci").group(16).file("power_state", "D3hot"))
        .add("0000:00:01.3/0000:03:00.0", &drive().group(17))
        .module("vfio_pci 16384 2 - Live 0x0")
        .module("kvm_amd 208896 16 - Live 0x0")
        .log(
            Form::Journal,
            &[
                "AMD-Vi: AMD IOMMUv2 functionality not available on this system - This is not a bug.",
                "vfio-pci 0000:01:00.0: vgaarb: deactivate vga console",
            ],
        )
        .expect_healthy(Side::Host);
}
