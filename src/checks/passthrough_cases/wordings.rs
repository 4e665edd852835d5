//! The same faults in the words of other kernels, programs and years; and words that look like them and mean nothing.

use super::machine::{Form, G1, G4, G5, GIB, Machine, conventional, dev, drive, gpu, h100, port, qemu_port};
use crate::checks::check::Side;

fn host() -> Machine {
    let mut machine = Machine::new();
    machine.xeon();
    machine
        .kernel("6.8.12-4-pve", "root=/dev/mapper/pve-root ro quiet intel_iommu=on iommu=pt")
        .file("sys/class/iommu/dmar0/x", "")
        .add("0000:00:01.0", &port(0x8086, 0x352a).group(1).acs(0x1d))
        .add("0000:00:01.0/0000:01:00.0", &h100().on("vfio-pci").group(15))
        .add("0000:00:02.0", &port(0x8086, 0x352b).group(2).acs(0x1d))
        .add("0000:00:02.0/0000:02:00.0", &drive().on("vfio-pci").group(16))
        .add("0000:00:14.0", &conventional(0x0c_0330, 0x8086, 0x1bcd).on("xhci_hcd").group(3))
        .module("kvm_intel 380928 0 - Live 0x0");
    machine
}

fn guest() -> Machine {
    let mut machine = Machine::new();
    machine.q35();
    machine
        .kernel("6.8.0-1032-nvidia", "root=PARTUUID=1 ro")
        .add("0000:00:1c.0", &qemu_port())
        .add("0000:00:1c.1", &qemu_port())
        .add("0000:00:1c.0/0000:01:00.0", &h100())
        .add("0000:00:1c.1/0000:02:00.0", &drive())
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .p2pdma();
    machine
}

fn metal() -> Machine {
    let mut machine = Machine::new();
    machine.epyc();
    machine
        .kernel("6.8.0-1032-nvidia", "root=UUID=7 ro")
        .add("0000:00:01.0", &port(0x1022, 0x14ab))
        .switch(0)
        .below(0, "0000:12:00.0", &h100())
        .below(1, "0000:13:00.0", &drive())
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .nvidia_fs();
    machine
}

const QEMU: &str = "var/log/libvirt/qemu/vm.log";

#[test]
fn a_group_that_another_guest_has() {
    host()
        .file(QEMU, "qemu-system-x86_64: -device vfio-pci,host=0000:01:00.0: vfio 0000:01:00.0: failed to open /dev/vfio/15: Device or resource busy\n")
        .expect(Side::Host, &["host.group-viable"], &[]);
}

#[test]
fn a_group_that_is_not_bound_in_an_old_qemus_words() {
    host()
        .file(QEMU, "vfio: error, group 15 is not viable, please ensure all devices within the iommu_group are bound to their vfio bus driver.\nvfio: failed to get group 15\n")
        .expect(Side::Host, &["host.group-viable"], &[]);
}

#[test]
fn proxmox_finds_no_iommu() {
    let mut machine = Machine::new();
    machine
        .kernel("6.8.12-4-pve", "root=/dev/mapper/pve-root ro quiet")
        .cpu("GenuineIntel", "Intel(R) Xeon(R) Gold 6338", 6, false)
        .file(
            "var/log/pve/tasks/active.log",
            "TASK ERROR: Cannot open iommu_group: No such file or directory\n",
        )
        .expect(Side::Host, &["iommu.active|iommu.firmware"], &[]);
}

#[test]
fn libvirt_finds_no_iommu() {
    let mut machine = Machine::new();
    machine
        .kernel("6.8.12-4-pve", "root=/dev/mapper/pve-root ro quiet")
        .cpu("AuthenticAMD", "AMD EPYC 9354", 25, false)
        .file(
            "virsh.log",
            "error: unsupported configuration: host doesn't support passthrough of host PCI devices (vfio)\n",
        )
        .expect(Side::Host, &["iommu.active|iommu.firmware"], &[]);
}

#[test]
fn the_console_holds_the_gpus_window() {
    host()
        .log(
            Form::Journal,
            &["vfio-pci 0000:01:00.0: BAR 1: can't reserve [mem 0x2000000000-0x3fffffffff 64bit pref]"],
        )
        .expect(Side::Host, &["host.framebuffer"], &[]);
}

#[test]
fn a_device_that_does_not_wake_in_older_words() {
    for (words, id) in [
        (
            "vfio-pci 0000:01:00.0: can't change power state from D3cold to D0 (config space inaccessible)",
            "device.power",
        ),
        ("vfio-pci 0000:01:00.0: Refused to change power state, currently in D3", "device.power"),
        ("vfio-pci 0000:01:00.0: Failed to return from FLR", "host.vfio-reset"),
    ] {
        host().log(Form::Dmesg, &[words]).expect(Side::Host, &[id], &[]);
    }
    // A controller of no interest may sleep for good.
    let words = "xhci_hcd 0000:00:14.0: Unable to change power state from D3cold to D0, device inaccessible";
    host().log(Form::Dmesg, &[words]).expect_healthy(Side::Host);
}

#[test]
fn too_many_mappings() {
    host()
        .file(QEMU, "qemu-system-x86_64: VFIO_MAP_DMA failed: No space left on device\nqemu-system-x86_64: vfio_dma_map(0x55, 0x100000000, 0x1000, 0x7f) = -28 (No space left on device)\n")
        .expect(Side::Host, &["host.memory-lock"], &[]);
}

#[test]
fn faults_of_a_device_that_nobody_asked_about() {
    host()
        .log(
            Form::Dmesg,
            &[
                "DMAR: [Firmware Bug]: No firmware reserved region can cover this RMRR [0x000000003e2e0000-0x000000003e2fffff], contact BIOS vendor for fixes",
                "DMAR: [DMA Read NO_PASID] Request device [00:14.0] fault addr 0x7c000000 [fault reason 0x06] PTE Read access is not set",
            ],
        )
        .expect_healthy(Side::Host);
}

#[test]
fn proxmox_notes_that_harm_nobody() {
    host()
        .log(
            Form::Syslog,
            &[
                "vfio-pci 0000:01:00.0: vgaarb: VGA decodes changed: olddecodes=io+mem,decodes=io+mem:owns=none",
                "vfio-pci 0000:01:00.0: enabling device (0000 -> 0003)",
                "vfio-pci 0000:01:00.0: not enough MMIO resources for SR-IOV",
                "kvm: SMP vm created on host with unstable TSC; guest TSC will not be reliable",
            ],
        )
        .file("var/log/pve/tasks/x.log", "failed to reset PCI device '0000:01:00.0', but trying to continue as not all devices need a reset\n")
        .expect_healthy(Side::Host);
}

#[test]
fn a_window_that_is_not_claimed() {
    let mut machine = Machine::new();
    machine
        .cpu("AuthenticAMD", "AMD EPYC 9354", 25, true)
        .log(
            Form::DmesgHuman,
            &[
                "nvidia 0000:01:00.0: can't enable device: BAR 1 [mem size 0x2000000000 64bit pref] not assigned",
                "nvidia 0000:01:00.0: probe with driver nvidia failed with error -22",
            ],
        )
        .expect(Side::Guest, &["driver.bar"], &[]);
}

#[test]
fn a_made_up_cpu_hides_zen() {
    guest().cpu("AuthenticAMD", "Common KVM processor", 15, true).expect(
        Side::Guest,
        &["vm.cpu-type"],
        &["topology.p2pdma"],
    );
}

#[test]
fn no_kvm_at_all() {
    let mut machine = guest();
    machine.cpu("AuthenticAMD", "QEMU TCG CPU version 2.5+", 15, true).expect(
        Side::Guest,
        &["vm.emulator"],
        &["topology.p2pdma"],
    );
}

#[test]
fn a_gsp_that_does_not_answer() {
    metal()
        .log(Form::Syslog, &["NVRM: Xid (PCI:0000:12:00): 119, pid=2024380, name=nvidia-smi, Timeout after 6s of waiting for RPC response from GPU0 GSP! Expected function 103 (GSP_RM_ALLOC) (0x0 0x0)."])
        .expect(Side::BareMetal, &["gpu.xid"], &[]);
}

#[test]
fn a_drive_that_is_gone() {
    metal()
        .log(
            Form::Dmesg,
            &[
                "nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0xffff",
                "nvme 0000:13:00.0: Unable to change power state from D3cold to D0, device inaccessible",
                "nvme nvme0: Disabling device after reset failure: -19",
            ],
        )
        .expect(Side::BareMetal, &["storage.health|nvme.responds"], &["device.power"]);
}

#[test]
fn one_of_eight_gpus_has_half_its_lanes() {
    let mut machine = metal();
    for n in 0..7u32 {
        let root = format!("0000:00:0{}.0", n + 2);
        let link = if n == 4 { (G5, 8) } else { (G5, 16) };
        machine
            .add(&root, &port(0x1022, 0x14ab))
            .add(&format!("{root}/0000:{:02x}:00.0", 0x20 + n), &h100().link(link.0, link.1, G5, 16));
    }
    let judgement = machine.expect(Side::BareMetal, &["gpu.link"], &["topology.switch"]);
    assert!(judgement.findings.iter().any(|f| f.id == "gpu.link" && f.why.contains("0000:24:00.0")));
}

#[test]
fn one_of_two_gpus_is_gone_and_the_other_works_on() {
    let mut machine = metal();
    let gone = h100().config(super::machine::Config::Ones).link("Unknown", 63, G5, 16);
    let judgement = machine
        .add("0000:00:02.0", &port(0x1022, 0x14ab))
        .add("0000:00:02.0/0000:20:00.0", &gone)
        .log(
            Form::Kmsg,
            &["NVRM: Xid (PCI:0000:20:00): 79, pid=1234, name=python3, GPU has fallen off the bus."],
        )
        .expect(
            Side::BareMetal,
            &["gpu.responds|gpu.fell-off"],
            &["gpu.responds|gpu.fell-off", "topology.switch"],
        );
    assert!(judgement.findings.iter().all(|f| f.because.as_deref() != Some("gpu.responds")));
}

#[test]
fn an_instance_of_a_cloud_has_its_clouds_drives() {
    let mut machine = Machine::new();
    let mut store = drive();
    store.ids = [0x1d0f, 0xcd01];
    machine
        .cpu("AuthenticAMD", "AMD EPYC 7R13 Processor", 25, true)
        .dmi("Amazon EC2", "p5.48xlarge")
        .acpi(&["WAET"])
        .memory(2048)
        .kernel("6.8.0-1021-aws", "root=PARTUUID=1 ro")
        .add("0000:00:00.0", &conventional(0x06_0000, 0x8086, 0x1237))
        .add("0000:44:01.0", &switchless_port())
        .add("0000:44:01.0/0000:53:00.0", &gpu(0x2330, 128 * GIB))
        .add("0000:44:02.0", &switchless_port())
        .add("0000:44:02.0/0000:54:00.0", &store)
        .nvidia("570.133.20", true, "NVIDIA H100 80GB HBM3")
        .p2pdma()
        .expect_healthy(Side::Guest);
}

fn switchless_port() -> super::machine::Dev {
    port(0x1d0f, 0x0200)
}

#[test]
fn a_slot_with_fewer_lanes_than_its_device() {
    let mut machine = Machine::new();
    machine.epyc();
    machine
        .kernel("6.8.0-1032-nvidia", "root=UUID=7 ro")
        .add("0000:00:01.0", &port(0x1022, 0x14ab))
        .switch(0)
        .below(0, "0000:12:00.0", &h100())
        .below(1, "0000:13:00.0", &drive())
        .add("0000:00:05.0", &port(0x1022, 0x14ab).link(G4, 8, G4, 8))
        .add("0000:00:05.0/0000:50:00.0", &dev(0x02_0000, 0x15b3, 0x1021).on("mlx5_core").link(G4, 8, G5, 16))
        .add("0000:00:06.0", &port(0x1022, 0x14ab).link(G1, 1, G1, 1))
        .nvidia("580.95.05", true, "NVIDIA H100 PCIe")
        .nvidia_fs()
        .expect_healthy(Side::BareMetal);
}

/// Nothing of sysfs or procfs: what the owner's programs printed is all there is.
#[test]
fn programs_outputs_make_a_guest() {
    Machine::new()
        .command(
            &["dmidecode", "-t", "system"],
            0,
            "# dmidecode 3.3\n\nHandle 0x0100, DMI type 1, 27 bytes\nSystem Information\n\tManufacturer: QEMU\n\tProduct Name: Standard PC (i440FX + PIIX, 1996)\n\tVersion: pc-i440fx-8.1\n",
            "",
        )
        .command(&["lspci", "-nnk"], 0, "00:10.0 3D controller [0302]: NVIDIA Corporation GH100 [10de:2331] (rev a1)\n\tKernel driver in use: nvidia\n00:11.0 Non-Volatile memory controller [0108]: Samsung Electronics Co Ltd NVMe [144d:a80a]\n\tKernel driver in use: nvme\n", "")
        .expect(Side::Guest, &["vm.machine-type"], &[]);
}

/// A kernel log alone tells on which side of a hypervisor it was written.
#[test]
fn a_log_alone_makes_a_guest() {
    Machine::new()
        .log(
            Form::Dmesg,
            &[
                "DMI: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 4.2023.08-4 02/15/2024",
                "Hypervisor detected: KVM",
                "pci 0000:01:00.0: BAR 1 [mem size 0x2000000000 64bit pref]: can't assign; no space",
                "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:",
                "NVRM: BAR1 is 0M @ 0x0 (PCI:0000:01:00.0)",
            ],
        )
        .expect(Side::Guest, &["driver.bar"], &[]);
}
