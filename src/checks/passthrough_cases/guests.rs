//! Virtual machines with devices of their own, and clouds' instances.

use super::machine::{Config, Form, GIB, Machine, conventional, dev, drive, gpu, h100, qemu_port};
use crate::checks::check::Side;

const PORTS: [&str; 4] = ["0000:00:1c.0", "0000:00:1c.1", "0000:00:1c.2", "0000:00:1c.3"];

/// A Q35 guest with root ports, as Proxmox lays it out, and nothing behind them.
fn q35() -> Machine {
    let mut machine = Machine::new();
    machine.q35();
    machine
        .kernel("6.8.0-1032-nvidia", "root=PARTUUID=1 ro console=ttyS0")
        .file("etc/os-release", "PRETTY_NAME=\"Ubuntu 24.04.2 LTS\"\nID=ubuntu\n")
        .file(
            "proc/self/mountinfo",
            "30 1 252:1 / / rw - ext4 /dev/vda1 rw\n31 30 259:1 / /data rw - xfs /dev/nvme0n1 rw,attr2\n",
        );
    for at in PORTS {
        machine.add(at, &qemu_port());
    }
    machine
}

fn at(n: usize, address: &str) -> String {
    format!("{}/{address}", PORTS[n])
}

/// With a GPU and a drive in place.
fn with_devices() -> Machine {
    let mut machine = q35();
    machine.add(&at(0, "0000:01:00.0"), &h100()).add(&at(1, "0000:02:00.0"), &drive());
    machine
}

/// With software for both devices.
fn ready() -> Machine {
    let mut machine = with_devices();
    machine.nvidia("580.95.05", true, "NVIDIA H100 PCIe").p2pdma();
    machine
}

/// github.com/canonical/lxd/issues/14381: of four GPUs two got no window.
#[test]
fn the_window_is_too_small_for_all_gpus() {
    let mut machine = q35();
    machine.add(&at(0, "0000:06:00.0"), &h100()).add(&at(1, "0000:02:00.0"), &drive());
    for (n, address) in [(2, "0000:07:00.0"), (3, "0000:08:00.0")] {
        let bare = h100().unbound().bar(0, 0, 0).bar(1, 0, 0).bar(3, 0, 0);
        machine.add(&at(n, address), &bare);
    }
    machine
        .nvidia("570.133.07", true, "NVIDIA H100 PCIe")
        .p2pdma()
        .log(
            Form::Dmesg,
            &[
                "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:",
                "NVRM: BAR0 is 0M @ 0x0 (PCI:0000:07:00.0)",
                "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:",
                "NVRM: BAR0 is 0M @ 0x0 (PCI:0000:08:00.0)",
                "NVRM: The NVIDIA probe routine failed for 2 device(s).",
                "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.133.07  Release Build",
            ],
        )
        .expect(Side::Guest, &["gpu.bars|driver.bar"], &["gpu.bars|driver.bar"]);
}

/// github.com/kubevirt/kubevirt/issues/11093: only journald's text came with it.
#[test]
fn a_large_gpu_under_uefi_has_no_window() {
    let mut machine = Machine::new();
    machine
        .log(
            Form::Journal,
            &[
                "Hypervisor detected: KVM",
                "pci 0000:08:00.0: [10de:2331] type 00 class 0x030200",
                "pci 0000:08:00.0: BAR 1: no space for [mem size 0x2000000000 64bit pref]",
                "pci 0000:08:00.0: BAR 1: failed to assign [mem size 0x2000000000 64bit pref]",
                "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:",
                "NVRM: BAR1 is 0M @ 0x0 (PCI:0000:08:00.0)",
                "nvidia: probe of 0000:08:00.0 failed with error -1",
                "NVRM: The NVIDIA probe routine failed for 1 device(s).",
                "NVRM: None of the NVIDIA devices were initialized.",
            ],
        )
        .cpu("GenuineIntel", "Intel(R) Xeon(R) Platinum 8480+", 6, true)
        .dmi("KubeVirt", "None")
        .expect(Side::Guest, &["gpu.bars|driver.bar"], &["gpu.bars|driver.bar"]);
}

/// github.com/kata-containers/kata-containers/issues/1704: the new kernels' wording, in kmsg records.
#[test]
fn no_room_in_a_containers_machine() {
    let mut machine = q35();
    let bare = gpu(0x20b5, 128 * GIB).unbound().bar(1, 0, 0);
    machine
        .add(&at(0, "0000:01:00.0"), &bare.bar(0, 0x8100_0000, 0x81ff_ffff))
        .add(&at(1, "0000:02:00.0"), &drive())
        .log(
            Form::Kmsg,
            &[
                "pci 0000:01:00.0: BAR 1 [mem size 0x2000000000 64bit pref]: can't assign; no space",
                "pci 0000:01:00.0: BAR 1 [mem size 0x2000000000 64bit pref]: failed to assign",
                "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:",
                "NVRM: BAR1 is 0M @ 0x0 (PCI:0000:01:00.0)",
                "nvidia 0000:01:00.0: probe with driver nvidia failed with error -1",
            ],
        )
        .expect(Side::Guest, &["gpu.bars|driver.bar"], &["gpu.bars|driver.bar"]);
}

/// github.com/ROCm/legacy-rocm-build/issues/4017's machine with an NVIDIA card: ESXi without 64-bit windows.
#[test]
fn esxi_without_64_bit_windows() {
    let mut machine = Machine::new();
    machine
        .cpu("AuthenticAMD", "AMD EPYC 7543 32-Core Processor", 25, true)
        .dmi("VMware, Inc.", "VMware20,1")
        .acpi(&["WAET"])
        .memory(64)
        .kernel("5.15.0-119-generic", "root=UUID=2 ro")
        .add("0000:00:00.0", &conventional(0x06_0000, 0x8086, 0x7190))
        .add("0000:00:07.7", &conventional(0x08_8000, 0x15ad, 0x0740).on("vmw_vmci"))
        .add("0000:00:0f.0", &conventional(0x03_0000, 0x15ad, 0x0405).on("vmwgfx"))
        .add("0000:00:15.0", &super::machine::port(0x15ad, 0x07a0))
        .add("0000:00:16.0", &super::machine::port(0x15ad, 0x07a0))
        .add("0000:00:15.0/0000:03:00.0", &h100().unbound().bar(1, 0, 0).bar(3, 0, 0))
        .add("0000:00:16.0/0000:0b:00.0", &drive())
        .log(
            Form::Syslog,
            &[
                "pci 0000:03:00.0: BAR 1: no space for [mem size 0x2000000000 64bit pref]",
                "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:",
                "NVRM: BAR1 is 0M @ 0x0 (PCI:0000:03:00.0)",
            ],
        )
        .expect(Side::Guest, &["gpu.bars|driver.bar"], &["gpu.bars|driver.bar"]);
}

/// What Proxmox makes by default: i440fx, and the GPU on conventional PCI.
#[test]
fn an_i440fx_machine() {
    let mut machine = Machine::new();
    machine
        .cpu("AuthenticAMD", "AMD EPYC 9354 32-Core Processor", 25, true)
        .dmi("QEMU", "Standard PC (i440FX + PIIX, 1996)")
        .acpi(&["WAET"])
        .memory(64)
        .kernel("6.8.0-1032-nvidia", "root=PARTUUID=1 ro")
        .add("0000:00:00.0", &conventional(0x06_0000, 0x8086, 0x1237))
        .add("0000:00:01.0", &conventional(0x06_0100, 0x8086, 0x7000))
        .add("0000:00:10.0", &h100().flat())
        .add("0000:00:11.0", &drive().flat())
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .p2pdma()
        .expect(Side::Guest, &["vm.machine-type|gpu.pcie"], &["vm.machine-type|gpu.pcie"]);
}

/// Q35, but `pcie=1` was forgotten: the devices hang below QEMU's conventional bridge.
#[test]
fn a_q35_without_pcie() {
    let mut machine = q35();
    let bridge = conventional(0x06_0400, 0x1b36, 0x0001);
    machine
        .add("0000:00:1e.0", &conventional(0x06_0400, 0x8086, 0x244e))
        .add("0000:00:1e.0/0000:05:01.0", &bridge)
        .add("0000:00:1e.0/0000:05:01.0/0000:06:10.0", &h100().flat())
        .add(&at(1, "0000:02:00.0"), &drive())
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .p2pdma()
        .expect(Side::Guest, &["gpu.pcie"], &[]);
}

/// github.com/NVIDIA/gds-nvidia-fs/issues/11: a guest whose only drive is QEMU's.
#[test]
fn the_drive_is_emulated() {
    let mut machine = q35();
    let mut emulated = drive();
    emulated.ids = [0x1b36, 0x0010];
    machine
        .add(&at(0, "0000:01:00.0"), &h100())
        .add(&at(1, "0000:02:00.0"), &emulated)
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .p2pdma()
        .file(
            &format!("sys/devices/pci0000:00/{}/nvme/nvme0/model", at(1, "0000:02:00.0")),
            "QEMU NVMe Ctrl\n",
        )
        .expect(Side::Guest, &["nvme.real"], &[]);
}

/// The disk is virtio; the owner wonders that gdscheck says nothing of NVMe.
#[test]
fn the_disk_is_virtio() {
    let mut machine = q35();
    machine
        .add(&at(0, "0000:01:00.0"), &h100())
        .add("0000:00:13.0", &conventional(0x01_0000, 0x1af4, 0x1001).on("virtio-pci"))
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .p2pdma()
        .file("sys/block/vda/size", "838860800\n")
        .log(Form::Kmsg, &["virtio_blk virtio2: [vda] 838860800 512-byte logical blocks (430 GB/400 GiB)"])
        .expect(Side::Guest, &["nvme.present"], &[]);
}

/// github.com/beclab/Olares/pull/3963
#[test]
fn nova_took_the_gpu() {
    let mut machine = q35();
    machine
        .kernel("7.0.0-12-generic", "root=UUID=3 ro")
        .add(&at(0, "0000:01:00.0"), &h100().on("NovaCore"))
        .add(&at(1, "0000:02:00.0"), &drive())
        .file("etc/modprobe.d/disable-nouveau.conf", "blacklist nouveau\noptions nouveau modeset=0\n")
        .log(
            Form::Journal,
            &[
                "NovaCore 0000:01:00.0: enabling device (0000 -> 0002)",
                "NVRM: GPU 0000:01:00.0 is already bound to NovaCore.",
                "NVRM: No NVIDIA devices probed.",
            ],
        )
        .expect(Side::Guest, &["gpu.driver|driver.nouveau"], &["gpu.driver|driver.nouveau"]);
}

/// The same by the log alone.
#[test]
fn nova_took_the_gpu_by_the_log_alone() {
    let mut machine = Machine::new();
    machine
        .cpu("GenuineIntel", "Intel(R) Xeon(R) Gold 6338", 6, true)
        .log(
            Form::Syslog,
            &["NVRM: GPU 0000:01:00.0 is already bound to NovaCore.", "NVRM: No NVIDIA devices probed."],
        )
        .expect(Side::Guest, &["driver.nouveau"], &[]);
}

/// github.com/NVIDIA/NVSentinel/issues/155: no Xid is logged.
#[test]
fn a_gpu_fell_off_without_an_xid() {
    let mut machine = with_devices();
    machine
        .p2pdma()
        .module("nvidia 11530240 0 - Live 0x0")
        .log(
            Form::Dmesg,
            &[
                "NVRM: The NVIDIA GPU 0000:01:00.0",
                "               NVRM: (PCI ID: 10de:26b5) installed in this system has",
                "               NVRM: fallen off the bus and is not responding to commands.",
                "nvidia 0000:01:00.0: probe with driver nvidia failed with error -1",
                "NVRM: The NVIDIA probe routine failed for 1 device(s).",
                "NVRM: None of the NVIDIA devices were initialized.",
            ],
        )
        .expect(Side::Guest, &["gpu.fell-off|gpu.responds"], &[]);
}

/// GSP was left running by the machine's last run; the text as open-gpu-kernel-modules prints it.
#[test]
fn the_gpu_was_not_reset() {
    let mut machine = ready();
    machine
        .log(
            Form::DmesgHuman,
            &[
                "NVRM: GPU0 _kgspBootGspRm: unexpected WPR2 already up, cannot proceed with booting GSP",
                "NVRM: GPU0 _kgspBootGspRm: (the GPU is likely in a bad state and may need to be reset)",
                "NVRM: GPU0 RmInitAdapter: Cannot initialize GSP firmware RM",
                "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0x40:1860)",
                "NVRM: GPU 0000:01:00.0: rm_init_adapter failed, device minor number 0",
            ],
        )
        .command(&["nvidia-smi"], 6, "No devices were found\n", "")
        .expect(Side::Guest, &["gpu.wedged"], &[]);
}

/// github.com/kata-containers/kata-containers/issues/11730: SXM GPUs without their switches.
#[test]
fn gpus_of_a_fabric_without_its_switches() {
    let mut machine = q35();
    machine
        .add(&at(0, "0000:01:00.0"), &gpu(0x2330, 128 * GIB))
        .add(&at(2, "0000:03:00.0"), &gpu(0x2330, 128 * GIB).bar(1, 0x70_0000_0000, 0x70_0000_0000 + 128 * GIB - 1))
        .add(&at(1, "0000:02:00.0"), &drive())
        .nvidia("575.64.03", true, "NVIDIA H100 80GB HBM3")
        .p2pdma()
        .command(
            &["nvidia-smi", "-q"],
            0,
            "==============NVSMI LOG==============\nDriver Version                            : 575.64.03\nAttached GPUs                             : 2\n\
             GPU 00000000:01:00.0\n    Product Name                          : NVIDIA H100 80GB HBM3\n    Fabric\n        State                             : In Progress\n        Status                            : N/A\n",
            "",
        )
        .file("cufile.log", " 28-08-2025 19:00:23:001 [pid=9 tid=9] ERROR  0:43 cuInit failed error 802 CUDA_ERROR_SYSTEM_NOT_READY: system not yet initialized\n")
        .expect(Side::Guest, &["driver.fabric-manager"], &[]);
}

/// A guest with an IOMMU of its own: `machine: q35,viommu=intel`.
#[test]
fn the_guest_translates_too() {
    let mut machine = Machine::new();
    machine.q35();
    machine
        .cpu("GenuineIntel", "Intel(R) Xeon(R) Platinum 8480+", 6, true)
        .acpi(&["DMAR"])
        .kernel("6.8.0-1032-nvidia", "root=PARTUUID=1 ro intel_iommu=on")
        .file("sys/class/iommu/dmar0/x", "")
        .add(PORTS[0], &qemu_port().group(3))
        .add(PORTS[1], &qemu_port().group(4))
        .add(&at(0, "0000:01:00.0"), &h100().group(5))
        .add(&at(1, "0000:02:00.0"), &drive().group(6))
        .group_type("DMA-FQ")
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .nvidia_fs()
        .log(Form::Kmsg, &["DMAR: IOMMU enabled", "iommu: Default domain type: Translated"])
        .expect(Side::Guest, &["iommu.guest"], &[]);
}

/// github.com/noonghunna/club-3090/pull/884: the host's firmware left BAR1 small; the guest cannot see why.
#[test]
fn the_host_left_bar1_small() {
    let mut machine = q35();
    machine
        .add(&at(0, "0000:01:00.0"), &gpu(0x26b9, GIB / 4))
        .add(&at(1, "0000:02:00.0"), &drive())
        .nvidia("580.95.05", true, "NVIDIA L40S")
        .p2pdma()
        .command(
            &["nvidia-smi", "-q"],
            0,
            "Attached GPUs : 1\nGPU 00000000:01:00.0\n    Product Name : NVIDIA L40S\n    FB Memory Usage\n        Total : 46068 MiB\n    BAR1 Memory Usage\n        Total : 256 MiB\n",
            "",
        )
        .expect(Side::Guest, &["gpu.bar1-p2pdma|gpu.bar1-size"], &["gpu.bar1-p2pdma|gpu.bar1-size"]);
}

/// A part of an A100, given as vGPU: the guest's driver is GRID's.
#[test]
fn the_gpu_is_a_vgpu() {
    let mut machine = q35();
    machine
        .add(&at(0, "0000:01:00.0"), &gpu(0x20b5, 16 * GIB))
        .add(&at(1, "0000:02:00.0"), &drive())
        .nvidia("550.127.05", false, "GRID A100D-20C")
        .nvidia_fs()
        .command(
            &["nvidia-smi", "-q"],
            0,
            "Driver Version : 550.127.05\nAttached GPUs : 1\nGPU 00000000:01:00.0\n    Product Name : GRID A100D-20C\n    GPU Virtualization Mode\n        Virtualization Mode               : VGPU\n        Host VGPU Mode                    : N/A\n",
            "",
        )
        .expect(Side::Guest, &["gpu.virtual-function"], &["driver.open"]);
}

/// github.com/intel/compute-runtime/issues/935 on another platform: the kernel's own word.
#[test]
fn the_kernel_refuses_the_pair() {
    let mut machine = ready();
    machine
        .cpu("GenuineIntel", "Intel(R) Core(TM) i9-11900K", 6, true)
        .log(
            Form::Kmsg,
            &["nvme 0000:02:00.0: cannot be used for peer-to-peer DMA as the client and provider (0000:01:00.0) do not share an upstream bridge or whitelisted host bridge"],
        )
        .expect(Side::Guest, &["p2pdma.topology|topology.p2pdma"], &["p2pdma.topology|topology.p2pdma"]);
}

/// A passed-through drive that never becomes ready.
#[test]
fn the_drive_does_not_start() {
    let mut machine = q35();
    machine
        .add(&at(0, "0000:01:00.0"), &h100())
        .add(&at(1, "0000:02:00.0"), &drive().unbound())
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .p2pdma()
        .log(
            Form::Journal,
            &[
                "nvme nvme0: pci function 0000:02:00.0",
                "nvme nvme0: Device not ready; aborting reset, CSTS=0x1",
                "nvme 0000:02:00.0: probe with driver nvme failed with error -19",
            ],
        )
        .expect(
            Side::Guest,
            &["nvme.driver|storage.health|storage.state"],
            &["nvme.driver|storage.health|storage.state"],
        );
}

/// A confidential guest: the driver shows no memory of such a GPU to other devices. github.com/NVIDIA/nvtrust/issues/128
#[test]
fn a_confidential_machine() {
    let mut machine = ready();
    machine
        .log(
            Form::Kmsg,
            &[
                "Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP",
                "software IO TLB: Memory encryption is active and system is using DMA bounce buffers",
            ],
        )
        .command(&["nvidia-smi", "conf-compute", "-f"], 0, "CC status: ON\n", "")
        .expect(Side::Guest, &["vm.confidential"], &[]);
}

/// An instance of Azure's: each device is a PCI domain of its own, without any bridge.
#[test]
fn hyper_v_gives_every_device_a_domain() {
    let mut machine = Machine::new();
    machine
        .cpu("GenuineIntel", "Intel(R) Xeon(R) Platinum 8480C", 6, true)
        .dmi("Microsoft Corporation", "Virtual Machine")
        .acpi(&["WAET", "OEM0"])
        .memory(320)
        .kernel("6.8.0-1021-azure", "root=PARTUUID=1 ro console=ttyS0")
        .add_below(
            "LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:00/00000001-0000/pci0001:00",
            "0001:00:00.0",
            &gpu(0x2330, 128 * GIB),
        )
        .add_below(
            "LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:00/47505500-0001/pcibcd5:00",
            "bcd5:00:00.0",
            &drive(),
        )
        .nvidia("580.95.05", true, "NVIDIA H100 80GB HBM3")
        .p2pdma()
        .log(
            Form::Journal,
            &[
                "hv_pci 00000001-0000: PCI VMBus probing: Using version 0x10004",
                "hv_vmbus: Vmbus version:5.3",
            ],
        )
        .expect(Side::Guest, &["topology.p2pdma"], &[]);
}

/// One of two GPUs of a guest is nouveau's; the other works.
#[test]
fn one_of_two_gpus_is_nouveaus() {
    let mut machine = q35();
    machine
        .add(&at(0, "0000:01:00.0"), &h100())
        .add(&at(1, "0000:02:00.0"), &drive())
        .add(&at(2, "0000:03:00.0"), &h100().on("nouveau"))
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .p2pdma();
    let judgement = machine.expect(Side::Guest, &["gpu.driver"], &[]);
    assert!(judgement.findings.iter().all(|f| f.because.as_deref() != Some("gpu.driver")));
}

/// A plain user's capture: no configuration space, no log, symbols of zeros; a driver that nobody loaded.
#[test]
fn a_plain_users_capture_without_the_driver() {
    let mut machine = q35();
    machine
        .add(&at(0, "0000:01:00.0"), &h100().unbound().config(Config::Header))
        .add(&at(1, "0000:02:00.0"), &drive().config(Config::Header))
        .command(&["dmesg"], 1, "", "dmesg: read kernel buffer failed: Operation not permitted\n")
        .command(&["nvidia-smi"], 9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.\n", "")
        .expect(Side::Guest, &["driver.loaded|gpu.driver"], &["driver.loaded|gpu.driver"]);
}

/// A second display adapter of the hypervisor's, and a network card's virtual function, disturb nobody.
#[test]
fn a_guests_other_devices_disturb_nobody() {
    let mut machine = ready();
    machine
        .add("0000:00:01.0", &conventional(0x03_0000, 0x1234, 0x1111).on("bochs-drm"))
        .add(
            &at(3, "0000:04:00.0"),
            &dev(0x02_0700, 0x15b3, 0x101e).on("mlx5_core").link("Unknown", 0, "Unknown", 0),
        )
        .log(Form::Kmsg, &["mlx5_core 0000:04:00.0: 0.000 Gb/s available PCIe bandwidth (Unknown x255 link)"])
        .expect_healthy(Side::Guest);
}
