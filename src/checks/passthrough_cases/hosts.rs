//! Hosts that give devices away.

use super::machine::{Config, Form, GIB, Machine, conventional, dev, drive, gpu, h100, port, screen};
use crate::checks::check::Side;

/// A Proxmox host on AMD with an H100 and a drive in vfio-pci's hands, each in a group of its own.
fn pve() -> Machine {
    let mut machine = Machine::new();
    machine.epyc();
    machine
        .kernel("6.8.12-4-pve", "root=/dev/mapper/pve-root ro quiet amd_iommu=on iommu=pt")
        .file("etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n")
        .file("etc/pve/qemu-server/100.conf", "machine: q35\nhostpci0: 0000:01:00,pcie=1\n")
        .file("etc/modprobe.d/vfio.conf", "options vfio-pci ids=10de:2331,144d:a80a\n")
        .file("etc/modprobe.d/blacklist.conf", "blacklist nouveau\nblacklist nvidiafb\n")
        .file("sys/class/iommu/ivhd0/x", "")
        .add("0000:00:01.1", &port(0x1022, 0x14ab).group(1).acs(0x1d))
        .add("0000:00:01.2", &port(0x1022, 0x14ab).group(2).acs(0x1d))
        .module("vfio_pci 16384 2 - Live 0x0000000000000000")
        .module("vfio_iommu_type1 49152 1 - Live 0x0000000000000000")
        .module("kvm_amd 208896 16 - Live 0x0000000000000000");
    machine
}

fn given(machine: &mut Machine) -> &mut Machine {
    machine
        .add("0000:00:01.1/0000:01:00.0", &h100().on("vfio-pci").group(15).file("reset_method", "flr bus"))
        .add("0000:00:01.2/0000:02:00.0", &drive().on("vfio-pci").group(16).file("reset_method", "flr bus"))
}

/// github.com/Coopydood/ultimate-macOS-KVM/issues/213: a chipset lumps the slot together with onboard devices.
#[test]
fn the_drive_shares_its_group_with_the_network_card() {
    let mut machine = pve();
    machine
        .add("0000:00:01.1/0000:01:00.0", &h100().on("vfio-pci").group(15))
        .add("0000:00:01.2/0000:02:00.0", &drive().on("vfio-pci").group(16))
        .add("0000:00:01.2/0000:02:00.1", &dev(0x02_0000, 0x10ec, 0x8168).on("r8169").group(16))
        .log(Form::Kmsg, &["AMD-Vi: Interrupt remapping enabled"])
        .expect(Side::Host, &["iommu.groups|host.group-viable"], &["iommu.groups|host.group-viable"]);
}

/// github.com/NVIDIA/k8s-driver-manager/pull/254
#[test]
fn the_gpus_usb_function_stays_with_the_host() {
    let mut machine = pve();
    machine
        .add("0000:00:01.1/0000:16:00.0", &gpu(0x1eb1, GIB / 4).on("vfio-pci").group(15))
        .add("0000:00:01.1/0000:16:00.1", &dev(0x04_0300, 0x10de, 0x10f8).on("vfio-pci").group(15))
        .add("0000:00:01.1/0000:16:00.2", &dev(0x0c_0330, 0x10de, 0x1ad8).on("xhci_hcd").group(15))
        .add("0000:00:01.1/0000:16:00.3", &dev(0x0c_8000, 0x10de, 0x1ad9).group(15))
        .add("0000:00:01.2/0000:02:00.0", &drive().on("vfio-pci").group(16))
        .file("var/log/libvirt/qemu/gpu.log", "2026-09-02T08:00:00Z qemu-system-x86_64: -device vfio-pci,host=0000:16:00.0: vfio 0000:16:00.0: group 15 is not viable\nPlease ensure all devices within the iommu_group are bound to their vfio bus driver.\n")
        .expect(Side::Host, &["iommu.groups|host.group-viable"], &["iommu.groups|host.group-viable"]);
}

/// github.com/kubernetes-sigs/dra-driver-nvidia-gpu/issues/1191; only the tree, no log.
#[test]
fn the_gpus_audio_function_stays_with_the_host() {
    let mut machine = pve();
    machine
        .add("0000:00:01.1/0000:86:00.0", &gpu(0x26b9, 64 * GIB).on("vfio-pci").group(6))
        .add("0000:00:01.1/0000:86:00.1", &dev(0x04_0300, 0x10de, 0x22ba).on("snd_hda_intel").group(6))
        .add("0000:00:01.2/0000:02:00.0", &drive().on("vfio-pci").group(16))
        .expect(Side::Host, &["iommu.groups|host.group-viable"], &["iommu.groups|host.group-viable"]);
}

/// github.com/foxlet/macOS-Simple-KVM/issues/579
#[test]
fn the_iommu_is_off_in_the_firmware() {
    let mut machine = Machine::new();
    machine
        .cpu("GenuineIntel", "Intel(R) Xeon(R) Gold 6338", 6, false)
        .dmi("ASUSTeK COMPUTER INC.", "Z13PE-D16")
        .acpi(&[])
        .memory(256)
        .kernel("5.15.0-119-generic", "root=UUID=1 ro intel_iommu=on iommu=pt vfio-pci.ids=10de:2331")
        .add("0000:00:00.0", &conventional(0x06_0000, 0x8086, 0x09a2))
        .add("0000:00:01.0", &port(0x8086, 0x347a))
        .add("0000:00:01.0/0000:08:00.0", &h100().on("vfio-pci"))
        .add("0000:00:1d.0", &port(0x8086, 0x347c))
        .add("0000:00:1d.0/0000:09:00.0", &drive())
        .module("vfio_pci 16384 0 - Live 0x0")
        .module("kvm_intel 380928 0 - Live 0x0")
        .file("var/log/libvirt/qemu/mac.log", "qemu-system-x86_64: -device vfio-pci,host=08:00.0,bus=port.1,multifunction=on: vfio 0000:08:00.0: no iommu_group found: No such file or directory\n")
        .log(Form::DmesgHuman, &["DMAR: IOMMU enabled"])
        .expect(Side::Host, &["iommu.firmware"], &[]);
}

/// github.com/ra1nstorm/ra1nstorm-helper/issues/109: the table is there, the kernel was not asked.
#[test]
fn the_iommu_is_not_asked_for() {
    let mut machine = Machine::new();
    machine.xeon();
    machine
        .kernel("5.15.158-2-pve", "root=/dev/mapper/pve-root ro quiet")
        .add("0000:00:01.0", &port(0x8086, 0x352a))
        .add("0000:00:01.0/0000:01:00.0", &h100().unbound())
        .add("0000:00:02.0", &port(0x8086, 0x352b))
        .add("0000:00:02.0/0000:02:00.0", &drive().unbound())
        .module("kvm_intel 380928 0 - Live 0x0")
        .log(Form::Dmesg, &["DMAR: Host address width 46", "DMAR: DRHD base: 0x000000d67fc000 flags: 0x0"])
        .expect(Side::Host, &["iommu.active"], &[]);
}

/// github.com/bigstack-oss/cubecos/issues/259: all devices listed are with the host's driver.
#[test]
fn the_hosts_own_driver_holds_the_gpu() {
    let mut machine = pve();
    machine
        .add("0000:00:01.1/0000:18:00.0", &gpu(0x2335, 256 * GIB).group(59))
        .add("0000:00:01.2/0000:02:00.0", &drive().on("vfio-pci").group(16))
        .nvidia("570.133.20", true, "NVIDIA H200")
        .log(Form::Journal, &["NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.133.20"])
        .expect(Side::Host, &["gpu.driver"], &[]);
}

/// github.com/kata-containers/kata-containers/issues/11708
#[test]
fn a_gpu_that_does_not_wake_from_d3cold() {
    let mut machine = pve();
    machine
        .add(
            "0000:00:01.1/0000:01:00.0",
            &h100().on("vfio-pci").group(15).config(Config::Ones).file("power_state", "D3cold"),
        )
        .add("0000:00:01.2/0000:02:00.0", &drive().on("vfio-pci").group(16))
        .log(
            Form::Dmesg,
            &[
                "vfio-pci 0000:01:00.0: Unable to change power state from D3cold to D0, device inaccessible",
                "vfio-pci 0000:01:00.0: resetting",
                "vfio-pci 0000:01:00.0: Unable to change power state from D3cold to D0, device inaccessible",
                "vfio-pci 0000:01:00.0: timed out waiting for pending transaction; performing function level reset anyway",
                "vfio-pci 0000:01:00.0: reset done",
            ],
        )
        .expect(Side::Host, &["device.power|gpu.responds"], &["device.power|gpu.responds"]);
}

/// The same thread's log alone, as a plain user sent it.
#[test]
fn a_gpu_that_does_not_wake_by_the_log_alone() {
    let mut machine = pve();
    given(&mut machine)
        .log(
            Form::Syslog,
            &["vfio-pci 0000:01:00.0: Unable to change power state from D3cold to D0, device inaccessible"],
        )
        .expect(Side::Host, &["device.power"], &[]);
}

/// github.com/amd/MxGPU-Virtualization/issues/25's symptom with the text of the kernel's FLR wait.
#[test]
fn a_gpu_that_does_not_return_from_its_reset() {
    let mut machine = pve();
    given(&mut machine)
        .log(
            Form::Journal,
            &[
                "vfio-pci 0000:01:00.0: not ready 1023ms after FLR; waiting",
                "vfio-pci 0000:01:00.0: not ready 65535ms after FLR; giving up",
            ],
        )
        .expect(Side::Host, &["host.vfio-reset"], &[]);
}

/// github.com/patmagauran/i915ovmfPkg/issues/23: "ready" is what a healthy slow device says.
#[test]
fn a_device_that_is_slow_after_its_reset_is_no_fault() {
    let mut machine = pve();
    given(&mut machine)
        .log(
            Form::Journal,
            &[
                "vfio-pci 0000:01:00.0: not ready 1023ms after FLR; waiting",
                "vfio-pci 0000:01:00.0: ready 2047ms after FLR",
                "vfio-pci 0000:02:00.0: enabling device (0000 -> 0002)",
                "vfio_ecap_init: 0000:01:00.0 hiding ecap 0x1e@0x154",
            ],
        )
        .expect_healthy(Side::Host);
}

/// github.com/kata-containers/kata-containers/issues/12549
#[test]
fn iommufd_maps_no_windows() {
    let mut machine = pve();
    given(&mut machine)
        .log(Form::Kmsg, &[])
        .file(
            "var/log/syslog",
            "Feb 19 13:46:44 xi kata[15969]: level=warning msg=\"qemu-system-x86_64: IOMMU_IOAS_MAP failed: Bad address, PCI BAR?\" subsystem=qemu\n\
             Feb 19 13:46:44 xi kata[15969]: level=warning msg=\"qemu-system-x86_64: vfio_container_dma_map(0x55558771a400, 0xfa800000, 0x4000, 0x7788e9d2c000) = -14 (Bad address)\" subsystem=qemu\n",
        )
        .expect(Side::Host, &["host.bar-mapping"], &[]);
}

/// github.com/cloud-hypervisor/cloud-hypervisor/issues/8895
#[test]
fn cloud_hypervisor_maps_no_windows() {
    let mut machine = pve();
    given(&mut machine)
        .file("cloud-hypervisor.log", "cloud-hypervisor: 1.2s: <vmm> ERROR: Failed to map VFIO MMIO region: Failed to DMA map: failed to map an IOVA range to the IOAS: Bad address (os error 14)\n")
        .expect(Side::Host, &["host.bar-mapping"], &[]);
}

/// github.com/kubevirt/kubevirt/issues/8472
#[test]
fn the_guests_memory_may_not_be_locked() {
    let mut machine = pve();
    given(&mut machine)
        .log(Form::DmesgHuman, &["vfio_pin_pages_remote: RLIMIT_MEMLOCK (65536) exceeded"])
        .expect(Side::Host, &["host.memory-lock"], &[]);
}

/// github.com/seapath/meta-seapath/issues/166
#[test]
fn qemu_cannot_map_the_guests_memory() {
    let mut machine = pve();
    given(&mut machine)
        .file(
            "var/log/libvirt/qemu/vm.log",
            "2024-02-07T09:02:08.235671Z qemu-system-x86_64: -device vfio-pci,host=0000:07:00.0,id=hostdev0,bus=pci.2,addr=0x0: VFIO_MAP_DMA failed: Cannot allocate memory\n\
             2024-02-07T09:02:08.235790Z qemu-system-x86_64: -device vfio-pci,host=0000:07:00.0: vfio 0000:07:00.0: failed to setup container for group 49: memory listener initialization failed: Region pc.ram: vfio_dma_map(0x648f08f946c0, 0x0, 0x80000000, 0x715dc0000000) = -12 (Cannot allocate memory)\n",
        )
        .expect(Side::Host, &["host.memory-lock"], &[]);
}

/// github.com/harvester/harvester/issues/7340
#[test]
fn the_firmware_reserves_memory_for_the_device() {
    let mut machine = pve();
    given(&mut machine)
        .log(
            Form::Syslog,
            &["vfio-pci 0000:01:00.0: DMAR: Device is ineligible for IOMMU domain attach due to platform RMRR requirement.  Contact your platform vendor."],
        )
        .expect(Side::Host, &["host.reserved-memory"], &[]);
}

/// github.com/AltraMayor/gatekeeper/issues/718: how newer kernels say it.
#[test]
fn the_firmware_wants_a_fixed_mapping() {
    let mut machine = pve();
    given(&mut machine)
        .log(
            Form::Kmsg,
            &["vfio-pci 0000:02:00.0: Firmware has requested this device have a 1:1 IOMMU mapping, rejecting configuring the device without a 1:1 mapping. Contact your platform vendor."],
        )
        .expect(Side::Host, &["host.reserved-memory"], &[]);
}

/// github.com/genodelabs/genode/issues/5066 is about the same lack: interrupts cannot be remapped.
#[test]
fn interrupts_cannot_be_remapped() {
    let mut machine = pve();
    given(&mut machine)
        .log(
            Form::Dmesg,
            &["vfio_iommu_type1_attach_group: No interrupt remapping support.  Use the module param \"allow_unsafe_interrupts\" to enable VFIO IOMMU support on this platform"],
        )
        .file("var/log/libvirt/qemu/vm.log", "qemu-system-x86_64: -device vfio-pci,host=0000:01:00.0: vfio 0000:01:00.0: failed to setup container for group 15: Failed to set iommu for container: Operation not permitted\n")
        .expect(Side::Host, &["host.interrupt-remapping"], &[]);
}

/// The command line that many threads recommend, as github.com/bcdurden's and Proxmox' readers use it.
#[test]
fn groups_are_parted_by_a_kernel_option_alone() {
    let mut machine = pve();
    given(&mut machine)
        .kernel("6.8.12-4-pve", "root=ZFS=rpool/ROOT/pve-1 quiet amd_iommu=on iommu=pt pcie_acs_override=downstream,multifunction")
        .log(Form::Kmsg, &["Warning: PCIe ACS overrides enabled; This may allow non-IOMMU-protected peer-to-peer DMA"])
        .expect(Side::Host, &["iommu.acs-override"], &[]);
}

/// github.com/patmagauran/i915ovmfPkg/issues/23, with an H100 in its place.
#[test]
fn the_iommu_refuses_a_guests_transfers() {
    let mut machine = Machine::new();
    machine.xeon();
    machine
        .kernel("6.8.12-4-pve", "root=/dev/mapper/pve-root ro quiet intel_iommu=on iommu=pt")
        .file("sys/class/iommu/dmar0/x", "")
        .add("0000:00:01.0", &port(0x8086, 0x352a).group(1).acs(0x1d))
        .add("0000:00:01.0/0000:01:00.0", &h100().on("vfio-pci").group(15))
        .add("0000:00:02.0", &port(0x8086, 0x352b).group(2).acs(0x1d))
        .add("0000:00:02.0/0000:02:00.0", &drive().on("vfio-pci").group(16))
        .module("kvm_intel 380928 0 - Live 0x0")
        .log(
            Form::Journal,
            &[
                "DMAR: DRHD: handling fault status reg 3",
                "DMAR: [DMA Read NO_PASID] Request device [02:00.0] fault addr 0x9c000000 [fault reason 0x06] PTE Read access is not set",
                "dmar_fault: 893 callbacks suppressed",
            ],
        )
        .expect(Side::Host, &["host.iommu-faults"], &[]);
}

/// A workstation: a small GPU shows the host's screen, an L40S is given away.
#[test]
fn the_hosts_display_gpu_is_not_the_one_given_away() {
    let mut machine = pve();
    given(&mut machine)
        .add("0000:00:03.0", &port(0x1022, 0x14ab).group(3).acs(0x1d))
        .add("0000:00:03.0/0000:03:00.0", &screen(0x1fb1).on("nouveau").group(17))
        .add("0000:00:03.0/0000:03:00.1", &dev(0x04_0300, 0x10de, 0x10fa).on("snd_hda_intel").group(17))
        .add("0000:00:04.0", &port(0x1022, 0x14ab).group(4).acs(0x1d))
        .add("0000:00:04.0/0000:04:00.0", &drive().group(18))
        .expect_healthy(Side::Host);
}

/// github.com/Silfalion's and others' habit: one of two equal GPUs was forgotten.
#[test]
fn one_of_two_gpus_is_still_with_the_host() {
    let mut machine = pve();
    let judgement = given(&mut machine)
        .add("0000:00:03.0", &port(0x1022, 0x14ab).group(3).acs(0x1d))
        .add("0000:00:03.0/0000:03:00.0", &h100().on("nouveau").group(17))
        .expect(Side::Host, &["gpu.driver"], &[]);
    let finding = judgement.findings.iter().find(|f| f.id == "gpu.driver").unwrap();
    assert!(finding.why.contains("0000:03:00.0"), "{}", finding.why);
    assert!(judgement.findings.iter().all(|f| f.because.as_deref() != Some("gpu.driver")));
}
