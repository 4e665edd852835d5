//! Servers and workstations without a hypervisor: links, buses, sockets, switches and IOMMUs.

use super::machine::{Config, Form, G1, G4, G5, GIB, Machine, conventional, dev, drive, gpu, h100, port};
use crate::checks::check::Side;

/// A server with software for nvidia-fs and no devices.
fn server() -> Machine {
    let mut machine = Machine::new();
    machine.epyc();
    machine
        .kernel("6.8.0-1032-nvidia", "root=UUID=7 ro iommu=off")
        .file("etc/os-release", "PRETTY_NAME=\"Ubuntu 24.04.2 LTS\"\nID=ubuntu\n")
        .file("proc/self/mountinfo", "30 1 259:1 / /data rw - xfs /dev/nvme0n1 rw,attr2\n")
        .add("0000:00:01.0", &port(0x1022, 0x14ab).node(0))
        .add("0000:00:14.0", &conventional(0x0c_0330, 0x1022, 0x790b).on("xhci_hcd"))
        .add("0000:00:18.0", &conventional(0x03_0000, 0x1a03, 0x2000).on("ast"));
    machine
}

/// GPU and drive on one switch, no software yet.
fn switched(gpu: &super::machine::Dev, drive: &super::machine::Dev) -> Machine {
    let mut machine = server();
    machine.switch(0).below(0, "0000:12:00.0", gpu).below(1, "0000:13:00.0", drive);
    machine
}

/// github.com/janhq/jan/issues/183's riser, one step worse: lanes are lost.
#[test]
fn a_riser_leaves_four_lanes() {
    let mut machine = switched(&h100().node(0).link(G4, 4, G5, 16), &drive().node(0));
    machine.nvidia("580.95.05", true, "NVIDIA H100 PCIe").nvidia_fs().expect(
        Side::BareMetal,
        &["gpu.link"],
        &[],
    );
}

/// The drive's slot runs at the first generation's speed with one lane.
#[test]
fn the_drives_link_is_narrow_and_slow() {
    let mut machine = switched(&h100().node(0), &drive().node(0).link(G1, 1, G4, 4));
    machine
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .nvidia_fs()
        .log(Form::Dmesg, &["pci 0000:13:00.0: 2.000 Gb/s available PCIe bandwidth, limited by 2.5 GT/s PCIe x1 link at 0000:11:01.0 (capable of 63.012 Gb/s with 16.0 GT/s PCIe x4 link)"])
        .expect(Side::BareMetal, &["nvme.link"], &[]);
}

/// github.com/pop-os/pop/issues/3363: errors of the link, many a second.
#[test]
fn a_storm_of_link_errors() {
    let noisy = h100()
        .node(0)
        .file("aer_dev_correctable", "RxErr 0\nBadTLP 183324\nBadDLLP 92110\nRollover 7713\nTimeout 40223\nNonFatalErr 0\nCorrIntErr 0\nHeaderOF 0\nTOTAL_ERR_COR 323370")
        .file("aer_dev_nonfatal", "Undefined 0\nDLP 0\nTOTAL_ERR_NONFATAL 0")
        .file("aer_dev_fatal", "Undefined 0\nDLP 0\nTOTAL_ERR_FATAL 0");
    let mut machine = switched(&noisy, &drive().node(0));
    machine
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .nvidia_fs()
        .log(
            Form::Syslog,
            &[
                "pcieport 0000:11:00.0: AER: Multiple Correctable error message received from 0000:12:00.0",
                "nvidia 0000:12:00.0: PCIe Bus Error: severity=Correctable, type=Data Link Layer, (Transmitter ID)",
                "nvidia 0000:12:00.0:   device [10de:2331] error status/mask=00001000/0000a000",
                "nvidia 0000:12:00.0:    [ 6] BadTLP                ",
            ],
        )
        .expect(Side::BareMetal, &["aer.counters"], &[]);
}

/// The same storm where only the log was sent.
#[test]
fn a_storm_of_link_errors_in_the_log_alone() {
    let mut machine = switched(&h100().node(0), &drive().node(0));
    let error: Vec<String> = (0..400)
        .flat_map(|_| {
            [
                "pcieport 0000:11:00.0: AER: Multiple Correctable error message received from 0000:12:00.0",
                "nvidia 0000:12:00.0: PCIe Bus Error: severity=Correctable, type=Data Link Layer, (Transmitter ID)",
                "nvidia 0000:12:00.0:    [ 6] BadTLP                ",
            ]
        })
        .map(str::to_owned)
        .collect();
    let lines: Vec<&str> = error.iter().map(String::as_str).collect();
    machine.nvidia("580.95.05", true, "NVIDIA H100 PCIe").nvidia_fs().log(Form::Journal, &lines).expect(
        Side::BareMetal,
        &["aer.counters"],
        &[],
    );
}

/// github.com/wilicc/gpu-burn/issues/1
#[test]
fn a_gpu_fell_off_under_load() {
    let mut machine = switched(&h100().node(0).config(Config::Ones), &drive().node(0));
    machine
        .nvidia("550.54.15", true, "NVIDIA H100 PCIe")
        .nvidia_fs()
        .log(
            Form::Dmesg,
            &[
                "pcieport 0000:11:00.0: AER: Uncorrected (Fatal) error received: id=0010",
                "pcieport 0000:11:00.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer, id=0010(Receiver ID)",
                "pcieport 0000:11:00.0:    [ 5] Surprise Down Error    (First)",
                "nvidia 0000:12:00.0: device has no AER-aware driver",
                "NVRM: GPU at PCI:0000:12:00: GPU-660d987e-5b28-3bf6-2a2d-1d5ecae7f6df",
                "NVRM: Xid (PCI:0000:12:00): 79, GPU has fallen off the bus.",
            ],
        )
        .command(&["nvidia-smi"], 0, "Unable to determine the device handle for GPU 0000:12:00.0: GPU is lost.  Reboot the system to recover this GPU\n", "")
        .expect(Side::BareMetal, &["gpu.fell-off|gpu.responds"], &["gpu.fell-off|gpu.responds", "aer.counters"]);
}

/// github.com/bryansteiner/gpu-passthrough-tutorial/issues/39
#[test]
fn a_gpu_stays_in_d3cold() {
    let mut machine =
        switched(&h100().node(0).config(Config::Ones).file("power_state", "D3cold"), &drive().node(0));
    machine
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .nvidia_fs()
        .log(
            Form::Journal,
            &[
                "nvidia 0000:12:00.0: not ready 65535ms after resume; giving up",
                "nvidia 0000:12:00.0: Unable to change power state from D3cold to D0, device inaccessible",
                "NVRM: GPU 0000:12:00.0: RmInitAdapter failed! (0x22:0x56:667)",
                "NVRM: GPU 0000:12:00.0: rm_init_adapter failed, device minor number 0",
            ],
        )
        .expect(Side::BareMetal, &["gpu.responds", "device.power"], &[]);
}

/// github.com/NVIDIA/cuda-samples/issues/48 and github.com/local-inference-lab/vllm/issues/262
#[test]
fn the_iommu_translates() {
    let mut machine = server();
    machine
        .kernel("6.8.0-1032-nvidia", "root=UUID=7 ro")
        .file("sys/class/iommu/ivhd0/x", "")
        .add("0000:00:03.1", &port(0x1022, 0x14ab).group(3))
        .add("0000:00:03.1/0000:07:00.0", &h100().group(12))
        .add("0000:00:03.2", &port(0x1022, 0x14ab).group(4))
        .add("0000:00:03.2/0000:08:00.0", &drive().group(13))
        .group_type("DMA-FQ")
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .nvidia_fs()
        .log(
            Form::Syslog,
            &[
                "iommu: Default domain type: Translated",
                "nvidia 0000:07:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0003 address=0x80000040 flags=0x0020]",
                "nvidia 0000:07:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0003 address=0x9e139068 flags=0x0020]",
            ],
        )
        .expect(Side::BareMetal, &["iommu.translation|host.iommu-faults"], &["iommu.translation|host.iommu-faults"]);
}

/// github.com/intel/compute-runtime/issues/935: redirection sends requests up to a host bridge that refuses them.
#[test]
fn the_switch_redirects_requests() {
    let mut machine = Machine::new();
    machine
        .cpu("GenuineIntel", "Intel(R) Core(TM) i9-11900K", 6, false)
        .dmi("ASUS", "ProArt W480")
        .acpi(&[])
        .memory(64)
        .kernel("6.8.0-60-generic", "root=UUID=7 ro")
        .add("0000:00:00.0", &conventional(0x06_0000, 0x8086, 0x4c43))
        .add("0000:00:01.0", &port(0x8086, 0x4c01));
    machine
        .switch(0x1d)
        .below(0, "0000:12:00.0", &gpu(0x2235, 64 * GIB))
        .below(1, "0000:13:00.0", &drive())
        .nvidia("580.95.05", true, "NVIDIA A40")
        .p2pdma()
        .expect(Side::BareMetal, &["acs.redirect"], &[]);
}

/// The same processor without the switch: the host bridge is on no list.
#[test]
fn the_host_bridge_is_on_no_list() {
    let mut machine = Machine::new();
    machine
        .cpu("GenuineIntel", "Intel(R) Core(TM) i9-11900K", 6, false)
        .dmi("ASUS", "ProArt W480")
        .acpi(&[])
        .memory(64)
        .kernel("6.8.0-60-generic", "root=UUID=7 ro")
        .add("0000:00:00.0", &conventional(0x06_0000, 0x8086, 0x4c43))
        .add("0000:00:01.0", &port(0x8086, 0x4c01))
        .add("0000:00:06.0", &port(0x8086, 0x4c09))
        .add("0000:00:01.0/0000:01:00.0", &gpu(0x2235, 64 * GIB))
        .add("0000:00:06.0/0000:02:00.0", &drive())
        .nvidia("580.95.05", true, "NVIDIA A40")
        .p2pdma()
        .expect(Side::BareMetal, &["topology.p2pdma"], &[]);
}

/// github.com/NVIDIA/gds-nvidia-fs/issues/70: all drives are on the other socket.
#[test]
fn the_drives_are_on_the_other_socket() {
    let mut machine = server();
    machine
        .file("sys/devices/system/node/node0/x", "")
        .file("sys/devices/system/node/node1/x", "")
        .add("0000:00:01.0/0000:12:00.0", &h100().node(0))
        .add("0000:80:00.0", &conventional(0x06_0000, 0x1022, 0x14a4).node(1))
        .add("0000:80:01.0", &port(0x1022, 0x14ab).node(1))
        .add("0000:80:01.0/0000:81:00.0", &drive().node(1))
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .nvidia_fs()
        .expect(Side::BareMetal, &["topology.socket"], &[]);
}

/// github.com/tinygrad/open-gpu-kernel-modules/issues/51
#[test]
fn a_geforce() {
    let mut machine = switched(&gpu(0x2684, 32 * GIB), &drive());
    machine
        .kernel("6.8.0-106-generic", "root=UUID=7 ro")
        .nvidia("570.148.08", true, "NVIDIA GeForce RTX 4090")
        .nvidia_fs()
        .command(
            &["gdscheck", "-p"],
            0,
            " GDS release version: 1.13.1.3\n nvidia_fs version:  2.28 libcufile version: 2.12\n Platform: x86_64\n ============\n ENVIRONMENT:\n ============\n =====================\n DRIVER CONFIGURATION:\n =====================\n NVMe P2PDMA        : Unsupported\n NVMe               : Unsupported\n NVMeOF             : Unsupported\n =========\n GPU INFO:\n =========\n GPU index 0 NVIDIA GeForce RTX 4090 bar:1 bar size (MiB):32768 supports GDS, IOMMU State: Disabled\n ==============\n PLATFORM INFO:\n ==============\n IOMMU: disabled\n Platform verification succeeded\n",
            "",
        )
        .expect(Side::BareMetal, &["gpu.product|driver.product"], &["gpu.product|driver.product"]);
}

/// The firmware decodes nothing above 4 GiB; kernels since 6.10 word it so.
#[test]
fn nothing_is_decoded_above_4_gib() {
    let mut machine = switched(&h100().unbound().bar(1, 0, 0).bar(3, 0, 0), &drive());
    machine
        .log(
            Form::DmesgHuman,
            &[
                "pci 0000:12:00.0: BAR 1 [mem size 0x2000000000 64bit pref]: can't assign; no space",
                "pci 0000:12:00.0: BAR 1 [mem size 0x2000000000 64bit pref]: failed to assign",
                "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:",
                "NVRM: BAR1 is 0M @ 0x0 (PCI:0000:12:00.0)",
                "nvidia 0000:12:00.0: probe with driver nvidia failed with error -1",
            ],
        )
        .expect(Side::BareMetal, &["gpu.bars|driver.bar"], &["gpu.bars|driver.bar"]);
}

/// github.com/NVIDIA/gds-nvidia-fs/issues/4 asks it of a P100.
#[test]
fn a_gpu_of_an_old_generation() {
    let mut machine = switched(&gpu(0x15f8, 16 * GIB).unbound(), &drive());
    machine
        .log(
            Form::Dmesg,
            &[
                "NVRM: The NVIDIA GPU 0000:12:00.0 (PCI ID: 10de:15f8)",
                "NVRM: installed in this system is not supported by open",
                "NVRM: nvidia.ko because it does not include the required GPU",
                "NVRM: System Processor (GSP).",
                "nvidia 0000:12:00.0: probe with driver nvidia failed with error -1",
            ],
        )
        .expect(
            Side::BareMetal,
            &["gpu.generation|driver.gpu-supported"],
            &["gpu.generation|driver.gpu-supported"],
        );
}

/// Intel's VMD keeps the drives: no NVMe controller is to be seen, a RAID controller is.
#[test]
fn vmd_hides_the_drives() {
    let mut machine = Machine::new();
    machine.xeon();
    machine
        .kernel("5.15.0-119-generic", "root=UUID=7 ro")
        .add("0000:00:01.0", &port(0x8086, 0x352a))
        .add("0000:00:01.0/0000:01:00.0", &h100())
        .add("0000:00:00.5", &conventional(0x01_0400, 0x8086, 0x28c0))
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .nvidia_fs()
        .expect(Side::BareMetal, &["nvme.present"], &[]);
}

/// With VMD's driver the drives are behind a PCI domain that the kernel made up: every transfer goes by the CPU's root.
#[test]
fn the_drive_is_behind_vmd() {
    let mut machine = Machine::new();
    machine.xeon();
    machine
        .kernel("6.8.0-60-generic", "root=UUID=7 ro")
        .add("0000:00:01.0", &port(0x8086, 0x352a))
        .add("0000:00:01.0/0000:01:00.0", &h100())
        .add("0000:00:00.5", &conventional(0x01_0400, 0x8086, 0x28c0).on("vmd"))
        .add_below("pci0000:00/0000:00:00.5/pci10000:00", "10000:00:02.0", &port(0x8086, 0x352a))
        .add_below("pci0000:00/0000:00:00.5/pci10000:00", "10000:00:02.0/10000:01:00.0", &drive())
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .p2pdma()
        .expect(Side::BareMetal, &["topology.p2pdma"], &[]);
}

/// A GPU disappeared from its slot; what is left works.
#[test]
fn one_of_two_gpus_was_unplugged() {
    let mut machine = switched(&h100().node(0), &drive().node(0));
    machine
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .nvidia_fs()
        .log(
            Form::Kmsg,
            &[
                "pcieport 0000:11:02.0: pciehp: Slot(9): Link Down",
                "pcieport 0000:11:02.0: pciehp: Slot(9): Card not present",
                "NVRM: Attempting to remove device 0000:14:00.0 with non-zero usage count!",
                "NVRM: Xid (PCI:0000:14:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            ],
        )
        .expect(Side::BareMetal, &["gpu.fell-off"], &[]);
}

/// Of the whole machine the owner sent `lspci -vvv -D -nnk` alone.
#[test]
fn lspci_alone_shows_a_lost_window() {
    let mut machine = Machine::new();
    machine
        .command(
            &["lspci", "-vvv", "-D", "-nn", "-k"],
            0,
            "0000:00:01.0 PCI bridge [0604]: Advanced Micro Devices, Inc. [AMD] Device [1022:14ab] (rev 01) (prog-if 00 [Normal decode])\n\
             \tControl: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+\n\
             \tBus: primary=00, secondary=12, subordinate=12, sec-latency=0\n\
             \tKernel driver in use: pcieport\n\n\
             0000:12:00.0 3D controller [0302]: NVIDIA Corporation GH100 [H100 PCIe] [10de:2331] (rev a1)\n\
             \tSubsystem: NVIDIA Corporation Device [10de:1626]\n\
             \tControl: I/O- Mem- BusMaster- SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx-\n\
             \tNUMA node: 0\n\
             \tRegion 0: Memory at 81000000 (32-bit, non-prefetchable) [disabled] [size=16M]\n\
             \tRegion 1: Memory at <unassigned> (64-bit, prefetchable) [disabled] [size=128G]\n\
             \tRegion 3: Memory at <unassigned> (64-bit, prefetchable) [disabled] [size=32M]\n\
             \tCapabilities: [60] Express (v2) Endpoint, IntMsgNum 0\n\
             \t\tLnkCap:\tPort #0, Speed 32GT/s, Width x16, ASPM not supported\n\
             \t\tLnkSta:\tSpeed 32GT/s, Width x16\n\
             \tKernel modules: nvidiafb, nouveau, nvidia_drm, nvidia\n\n\
             0000:13:00.0 Non-Volatile memory controller [0108]: Samsung Electronics Co Ltd NVMe SSD Controller PM9A1/PM9A3/980PRO [144d:a80a] (prog-if 02 [NVM Express])\n\
             \tRegion 0: Memory at 82000000 (64-bit, non-prefetchable) [size=16K]\n\
             \t\tLnkCap:\tPort #0, Speed 16GT/s, Width x4, ASPM L1, Exit Latency L1 <64us\n\
             \t\tLnkSta:\tSpeed 16GT/s, Width x4\n\
             \tKernel driver in use: nvme\n",
            "",
        )
        .expect(Side::BareMetal, &["gpu.bars|driver.bar"], &[]);
}

/// github.com/tinygrad/open-gpu-kernel-modules/issues/6 shows such a listing; here lanes are lost for good.
#[test]
fn lspci_alone_shows_a_narrow_link() {
    let mut machine = Machine::new();
    machine
        .command(
            &["lspci", "-vvvnn"],
            0,
            "01:00.0 3D controller [0302]: NVIDIA Corporation GA100 [A100 PCIe 80GB] [10de:20b5] (rev a1)\n\
             \tSubsystem: NVIDIA Corporation Device [10de:1533]\n\
             \tRegion 0: Memory at d0000000 (32-bit, non-prefetchable) [size=16M]\n\
             \tRegion 1: Memory at 10000000000 (64-bit, prefetchable) [size=128G]\n\
             \tRegion 3: Memory at 12000000000 (64-bit, prefetchable) [size=32M]\n\
             \tCapabilities: [78] Express (v2) Endpoint, MSI 00\n\
             \t\tLnkCap:\tPort #0, Speed 16GT/s, Width x16, ASPM not supported\n\
             \t\tLnkSta:\tSpeed 2.5GT/s (downgraded), Width x4 (downgraded)\n\
             \tKernel driver in use: nvidia\n\
             \tKernel modules: nvidiafb, nouveau, nvidia_drm, nvidia\n\n\
             02:00.0 Non-Volatile memory controller [0108]: Samsung Electronics Co Ltd Device [144d:a80a] (prog-if 02 [NVM Express])\n\
             \t\tLnkCap:\tPort #0, Speed 16GT/s, Width x4, ASPM L1\n\
             \t\tLnkSta:\tSpeed 16GT/s, Width x4\n\
             \tKernel driver in use: nvme\n",
            "",
        )
        .expect(Side::BareMetal, &["gpu.link"], &[]);
}

/// A GPU on the chipset's one lane beside a drive that is fine, and other vendors' devices with errors of their own.
#[test]
fn other_devices_errors_are_not_the_gpus() {
    let noisy = dev(0x02_0000, 0x8086, 0x1539)
        .on("igb")
        .link(G1, 1, G1, 1)
        .file("aer_dev_correctable", "RxErr 4711\nBadTLP 0\nTOTAL_ERR_COR 4711");
    let mut machine = switched(&h100().node(0), &drive().node(0));
    machine
        .add("0000:00:15.0", &port(0x1022, 0x14ab))
        .add("0000:00:15.0/0000:40:00.0", &noisy)
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .nvidia_fs()
        .log(
            Form::Dmesg,
            &[
                "igb 0000:40:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)",
                "pcieport 0000:00:15.0: AER: Corrected error message received from 0000:40:00.0",
            ],
        )
        .expect_healthy(Side::BareMetal);
}
