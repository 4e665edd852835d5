//! The known failure signatures, each from the file that a machine's owner would send to the finding that names its cause.
//! The texts are the drivers', the kernel's and NVIDIA's tools' own.

use super::check::{Side, Status};
use super::context::side_of;
use super::judge::{Judgement, judge};
use crate::facts::{Facts, Root};
use crate::report::model::Verdict;

/// Number, the file it stands in (`K` for a kernel log), its text, and the check that must fail because of it.
type Signature = (u8, &'static str, &'static str, &'static str);

const K: &str = "var/log/dmesg";
const CUFILE: &str = "var/log/cufile.log";
const GDSCHECK: &str = "run/gdsboot/commands/gdscheck-1/stdout";
const SMI: &str = "run/gdsboot/commands/nvidia-smi-1/stdout";

const SIGNATURES: &[Signature] = &[
    (1, K, "Loading of unsigned module is rejected", "kernel.module-signature"),
    (
        1,
        "run/gdsboot/commands/modprobe-1/stderr",
        "modprobe: ERROR: could not insert 'nvidia_fs': Key was rejected by service",
        "kernel.module-signature",
    ),
    (
        2,
        SMI,
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.",
        "driver.loaded",
    ),
    (3, K, "NVRM: No NVIDIA GPU found.", "driver.no-device"),
    (3, K, "NVRM: No NVIDIA PCI devices found.", "driver.no-device"),
    (
        4,
        K,
        "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:\nNVRM: BAR1 is 0M @ 0x0 (PCI:0000:01:00.0)",
        "driver.bar",
    ),
    (
        5,
        K,
        "NVRM: The NVIDIA probe routine was not called for 1 device(s).\nNVRM: This can occur when another driver was loaded and\nNVRM: obtained ownership of the NVIDIA device(s).",
        "driver.nouveau",
    ),
    (
        6,
        K,
        "NVRM: The NVIDIA probe routine failed for 1 device(s).\nNVRM: None of the NVIDIA devices were initialized.",
        "driver.probe",
    ),
    (
        7,
        "var/log/libvirt/qemu/vm.log",
        "qemu-system-x86_64: -device vfio-pci,host=0000:01:00.0: vfio 0000:01:00.0: group 14 is not viable",
        "host.group-viable",
    ),
    (
        8,
        K,
        "nvidia 0000:01:00.0: Direct firmware load for nvidia/580.126.09/gsp_ga10x.bin failed with error -2\nNVRM: RmInitAdapter: Cannot initialize GSP firmware RM",
        "driver.gsp-firmware",
    ),
    (
        9,
        K,
        "NVRM: _kgspBootGspRm: unexpected WPR2 already up, cannot proceed with booting GSP\nNVRM: _kgspBootGspRm: (the GPU is likely in a bad state and may need to be reset)",
        "gpu.wedged",
    ),
    (
        10,
        K,
        "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        "gpu.fell-off",
    ),
    (
        11,
        K,
        "NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout after 6s of waiting for RPC response from GPU4 GSP!",
        "gpu.xid",
    ),
    (
        12,
        SMI,
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 590.44",
        "driver.userland",
    ),
    (
        13,
        K,
        "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:1b06) installed in this system is not supported by open nvidia.ko because it does not include the required GPU System Processor (GSP).",
        "driver.gpu-supported",
    ),
    (
        14,
        GDSCHECK,
        " cuInit Failed, error CUDA_ERROR_SYSTEM_NOT_READY\n cuFile initialization failed",
        "driver.fabric-manager",
    ),
    (
        15,
        GDSCHECK,
        " cuInit Failed, error CUDA_ERROR_NO_DEVICE\n cuFile initialization failed",
        "driver.cuda",
    ),
    (
        16,
        K,
        "nvidia-uvm: uvm_pmm_gpu.c:3176 devmem_alloc_pagemap[pid:1234] request_free_mem_region() err -34",
        "driver.uvm-memory",
    ),
    (
        17,
        CUFILE,
        " 12-03-2025 10:00:00:123 [pid=1 tid=1] ERROR  cufio-fs:199 NVMe Driver not registered with nvidia-fs!!!",
        "nvme.hook",
    ),
    (
        18,
        K,
        "nvidia_fs: no symbol version for nvidia_p2p_dma_unmap_pages\nnvidia_fs: Unknown symbol nvidia_p2p_dma_unmap_pages (err -22)",
        "nvidia-fs.symbols",
    ),
    (
        19,
        K,
        "nvidia-fs:nvfs_mgroup_pin_shadow_pages:397 Unable to pin shadow buffer pages 1024 ret= -14\nnvidia-fs:nvfs_map:1505 Error nvfs_setup_shadow_buffer",
        "nvidia-fs.pinning",
    ),
    (
        20,
        K,
        "nvidia-fs:nvfs_pin_gpu_pages:1292 Error ret -22 invoking nvidia_p2p_get_pages",
        "driver.product",
    ),
    (21, CUFILE, " ERROR  cufio:1 Kernel does not support PCIP2PDMA", "p2pdma.kernel"),
    (
        22,
        K,
        "NVRM: BAR1 size 268435456 is not large enough to map FB size 48318382080 to force static BAR1",
        "p2pdma.static-bar1",
    ),
    (
        22,
        CUFILE,
        " ERROR  cufio-cuda:663 Failed to get cuda p2p device address for ptr 0x7f00 errornum: 801",
        "p2pdma.static-bar1",
    ),
    (
        23,
        K,
        "nvme 0000:02:00.0: cannot be used for peer-to-peer DMA as the client and provider (0000:01:00.0) do not share an upstream bridge or whitelisted host bridge",
        "p2pdma.path",
    ),
    (
        23,
        K,
        "nvme 0000:02:00.0: ACS redirect is set between the client and provider (0000:01:00.0)\nnvme 0000:02:00.0: to disable ACS redirect for this path, add the kernel parameter: pci=disable_acs_redir=0000:00:01.0",
        "p2pdma.path",
    ),
    (
        24,
        K,
        "x86/PAT: gdsio:4213 conflicting memory types 2000000000-3000000000 write-combining<->uncached-minus",
        "p2pdma.memory-type",
    ),
    (
        25,
        CUFILE,
        " ERROR  cufio-fs:1 EXT4 journal options not found in mount table for device,can't verify data=ordered mode journalling",
        "storage.filesystem",
    ),
    (26, CUFILE, " ERROR  cufio-fs:268 Unsupported block device: /dev/dm-0", "storage.device-mapper"),
    (27, CUFILE, " ERROR  cuFileHandleRegister failed for fd 7 err=5008", "p2pdma.cufile-keys"),
    (
        29,
        K,
        "DMAR: [DMA Write NO_PASID] Request device [02:00.0] fault addr 0x380000000000 [fault reason 0x05] PTE Write access is not set",
        "host.iommu-faults",
    ),
    (
        29,
        K,
        "nvme 0000:02:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000e address=0x380000000000 flags=0x0020]",
        "host.iommu-faults",
    ),
    (
        30,
        K,
        "nvme nvme4: I/O tag 22 (2016) opcode 0x2 (I/O Cmd) QID 7 timeout, reset controller\nnvme nvme4: Disabling device after reset failure: -19",
        "storage.health",
    ),
    (31, K, "EXT4-fs (nvme0n1p1): Remounting filesystem read-only", "storage.read-only"),
    (33, K, "vfio-pci 0000:01:00.0: not ready 65535ms after FLR; giving up", "host.flr"),
    (34, "var/log/libvirt/qemu/vm.log", "qemu-system-x86_64: VFIO_MAP_DMA failed: -12", "host.memory-locked"),
    (
        35,
        "run/gdsboot/commands/gdsio-1/stdout",
        "cuda runtime api call failed cudaGetDeviceCount(&numGPUs)5491 : cudaErrorUnknown exiting gdsio!!!",
        "gds.tool-output",
    ),
    (36, K, "nvidia-uvm: Unable to initialse PCI P2PDMA pages", "p2pdma.pages"),
    (37, CUFILE, "warn: error opening log file: Permission denied, logging will be disabled", "gds.logging"),
];

/// A machine of which nothing is known but one text.
fn machine(file: &str, text: &str) -> Judgement {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(file);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    let text = if file == K {
        let lines = text.lines().map(|line| format!("[   12.345678] {line}\n"));
        std::iter::once("[    0.000000] Linux version 6.8.0-79-generic\n".to_owned()).chain(lines).collect()
    } else {
        format!("{text}\n")
    };
    fs_err::write(path, &text).unwrap();
    let facts = Facts::read(&Root::at(dir.path()));
    // The owner of a hypervisor's log looks at a hypervisor.
    let side = if file.contains("libvirt") || file == K && text.contains("vfio") {
        Side::Host
    } else {
        side_of(&facts)
    };
    judge(&facts, side, None, &[], "2026-11-24")
}

#[test]
fn each_signature_leads_to_its_cause_first() {
    let mut wrong = Vec::new();
    for (number, file, text, id) in SIGNATURES {
        let judgement = machine(file, text);
        let failed: Vec<_> =
            judgement.findings.iter().filter(|f| f.status == Status::Fail).map(|f| f.id.as_str()).collect();
        if !failed.iter().take(3).any(|found| found == id) {
            let finding = judgement.findings.iter().find(|f| f.id == *id);
            wrong.push(format!(
                "{number}: wanted {id}, failed: {failed:?}; it is {:?}",
                finding.map(|f| (&f.status, &f.why, &f.because))
            ));
        }
        let finding = judgement.findings.iter().find(|f| f.id == *id);
        if finding.is_some_and(|f| f.status == Status::Fail && f.remedy.is_empty() && *number != 32) {
            wrong.push(format!("{number}: {id} has no remedy"));
        }
        assert_ne!(judgement.verdict, Verdict::Pass);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn healthy_words_fail_nothing() {
    for (file, text) in [
        (
            K,
            "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n\
             nvidia-modeset: Loading NVIDIA UNIX Open Kernel Mode Setting Driver\n\
             nvme nvme0: 32/0/0 default/read/poll queues\n\
             DMAR: IOMMU enabled\nEXT4-fs (nvme0n1p1): mounted filesystem with ordered data mode\n\
             nvidia 0000:01:00.0: added peer-to-peer DMA memory 0x2000000000-0x2fffffffff",
        ),
        (
            GDSCHECK,
            " GDS release version: 1.16.1.26\n nvidia_fs version:  2.27 nvidia_fs minimum version: 2.12\n Platform: x86_64\n\
             NVMe               : nvfs, compat\n properties.use_compat_mode : false\n properties.force_compat_mode : false\n\
             IOMMU: disabled\n Nvidia Driver Info Status: Supported(Nvidia Open Driver Installed)\n Platform verification succeeded",
        ),
    ] {
        let judgement = machine(file, text);
        let failed: Vec<_> = judgement.findings.iter().filter(|f| f.status == Status::Fail).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        assert_eq!(judgement.verdict, Verdict::Incomplete);
    }
}

#[test]
fn every_signature_is_covered_by_a_check() {
    for number in 1..=38 {
        let name = format!("signature {number}");
        assert!(super::all().any(|check| check.covers.contains(&name.as_str())), "{name}");
    }
}
