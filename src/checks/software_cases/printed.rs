//! What the field's programs print, with the differences that their releases make.

/// `gdscheck -p` up to release 1.15: rows say Supported or Unsupported. `nvfs` is nvidia-fs' version where it is loaded;
/// `p2p` is left out by releases that know no P2PDMA.
pub(super) fn gdscheck(
    release: &str,
    nvfs: Option<&str>,
    p2p: Option<&str>,
    nvme: &str,
    gpu: &str,
) -> String {
    let header = match nvfs {
        Some(version) => format!(" nvidia_fs version:  {version} libcufile version: 2.12"),
        None => " libcufile version: 2.12".to_owned(),
    };
    let row = p2p.map_or(String::new(), |word| format!(" NVMe P2PDMA        : {word}\n"));
    let p2pdma = if p2p.is_some() { " properties.use_pci_p2pdma : false\n" } else { "" };
    format!(
        " GDS release version: {release}\n{header}\n Platform: x86_64\n ============\n ENVIRONMENT:\n ============\n \
         =====================\n DRIVER CONFIGURATION:\n =====================\n{row} NVMe               : {nvme}\n \
         NVMeOF             : Unsupported\n SCSI               : Unsupported\n ScaleFlux CSD      : Unsupported\n \
         NVMesh             : Unsupported\n DDN EXAScaler      : Unsupported\n IBM Spectrum Scale : Unsupported\n \
         NFS                : Unsupported\n BeeGFS             : Unsupported\n WekaFS             : Unsupported\n \
         Userspace RDMA     : Unsupported\n --Mellanox PeerDirect : Disabled\n --rdma library        : Not Loaded \
         (libcufile_rdma.so)\n --rdma devices        : Not configured\n --rdma_device_status  : Up: 0 Down: 0\n \
         =====================\n CUFILE CONFIGURATION:\n =====================\n{p2pdma} properties.use_compat_mode : \
         true\n properties.force_compat_mode : false\n properties.gds_rdma_write_support : true\n \
         properties.max_direct_io_size_kb : 16384\n properties.max_device_cache_size_kb : 131072\n \
         properties.max_device_pinned_mem_size_kb : 33554432\n fs.generic.posix_unaligned_writes : false\n \
         profile.nvtx : false\n profile.cufile_stats : 0\n miscellaneous.api_check_aggressive : false\n =========\n GPU \
         INFO:\n =========\n GPU index 0 {gpu}\n ==============\n PLATFORM INFO:\n ==============\n IOMMU: disabled\n \
         Nvidia Driver Info Status: Supported(Nvidia Open Driver Installed)\n Cuda Driver Version Installed:  12080\n \
         Platform: PowerEdge R760xa, Arch: x86_64(Linux)\n Platform verification succeeded\n"
    )
}

/// `gdscheck -p` from release 1.16 on: rows list routes.
pub(super) fn gdscheck_16(nvfs: Option<&str>, nvme: &str, keys: (&str, &str), gpu: &str) -> String {
    let header = match nvfs {
        Some(version) => format!(" nvidia_fs version:  {version} nvidia_fs minimum version: 2.12"),
        None => " nvidia_fs minimum version: 2.12".to_owned(),
    };
    let (general, block) = keys;
    format!(
        " GDS release version: 1.16.1.26\n{header}\n Platform: x86_64\n ============\n ENVIRONMENT:\n ============\n \
         =====================\n DRIVER CONFIGURATION:\n =====================\n NVMe               : {nvme}\n NVMeOF    \
                  : compat\n SCSI               : compat\n ScaleFlux CSD      : compat\n NFS                : compat\n \
         VIRTIOFS           : compat\n WekaFS             : compat\n Userspace RDMA     : Unsupported\n --Mellanox \
         PeerDirect : Disabled\n =====================\n CUFILE CONFIGURATION:\n =====================\n \
         properties.use_pci_p2pdma : {general}\n block.nvme.use_pci_p2pdma : {block}\n properties.use_compat_mode : \
         true\n properties.force_compat_mode : false\n properties.max_direct_io_size_kb : 16384\n =========\n GPU \
         INFO:\n =========\n GPU index 0 {gpu}\n ==============\n PLATFORM INFO:\n ==============\n IOMMU: disabled\n \
         Nvidia Driver Info Status: Supported(Nvidia Open Driver Installed)\n Cuda Driver Version Installed:  13010\n \
         Platform: WRX90E-SAGE SE, Arch: x86_64(Linux 6.14.0-37-generic)\n Platform verification succeeded\n"
    )
}

/// What GPUs' lines end with where all is well.
pub(super) fn gpu(name: &str, mib: u32) -> String {
    format!("{name} bar:1 bar size (MiB):{mib} supports GDS, IOMMU State: Disabled")
}

/// `gdscheck -p` where CUDA does not start: standard output and standard error.
pub(super) fn gdscheck_cuda(error: &str) -> (String, String) {
    let out = format!(" cuInit Failed, error {error}\n cuFile initialization failed\n");
    (out, " Platform verification error :\nCUDA Driver API error\n".to_owned())
}

/// `nvidia-smi` of one GPU.
pub(super) fn nvidia_smi(driver: &str, cuda: &str, name: &str, address: &str) -> String {
    format!(
        "Fri Nov 20 04:22:13 2026       \n\
+-----------------------------------------------------------------------------------------+\n\
| NVIDIA-SMI {driver:22} Driver Version: {driver:14} CUDA Version: {cuda:8} |\n\
|-----------------------------------------+------------------------+----------------------+\n\
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |\n\
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |\n\
|                                         |                        |               MIG M. |\n\
|=========================================+========================+======================|\n\
|   0  {name:29}  On  |   0000{address} Off |                    0 |\n\
| N/A   34C    P0             68W /  350W |       1MiB /  81559MiB |      0%      Default |\n\
|                                         |                        |             Disabled |\n\
+-----------------------------------------+------------------------+----------------------+\n\
                                                                                         \n\
+-----------------------------------------------------------------------------------------+\n\
| Processes:                                                                              |\n\
|  No running processes found                                                             |\n\
+-----------------------------------------------------------------------------------------+\n"
    )
}

/// cuFile's settings as NVIDIA ships them, comments and all, with the keys of the P2PDMA route as told.
pub(super) fn cufile_json(p2pdma: &str, nvme_p2pdma: &str, compat: &str) -> String {
    let block = if nvme_p2pdma.is_empty() {
        String::new()
    } else {
        format!(
            "    \"block\": {{\n            // per transport\n            \"nvme\": {{\n                    \
             \"use_pci_p2pdma\": {nvme_p2pdma}\n            }},\n    }},\n"
        )
    };
    format!(
        "{{\n    // NOTE : Application can override custom configuration via export CUFILE_ENV_PATH_JSON=<filepath>\n    \
         // e.g : export CUFILE_ENV_PATH_JSON=\"/home/<xxx>/cufile.json\"\n\n    \"logging\": {{\n            // log \
         directory, if not enabled will create log file under current working directory\n            //\"dir\": \
         \"/home/<xxxx>\",\n\n            // NOTICE|ERROR|WARN|INFO|DEBUG|TRACE (in decreasing order of severity)\n     \
                \"level\": \"ERROR\"\n    }},\n\n    \"profile\": {{\n            // nvtx profiling on/off\n            \
         \"nvtx\": false,\n            // cufile stats level(0-3)\n            \"cufile_stats\": 0\n    }},\n\n    \
         \"properties\": {{\n            // max IO chunk size (parameter should be multiples of 64K) used by cuFile \
         internally per IO request\n            \"max_direct_io_size_kb\" : 16384,\n            /* device memory */\n   \
                  \"max_device_cache_size_kb\" : 131072,\n            // allow p2pdma, this will enable use of cuFile \
         without nvme patches\n            \"use_pci_p2pdma\": {p2pdma},\n            // true or false (true will \
         enable asynchronous io submission to nvidia-fs driver)\n            \"use_poll_mode\" : false,\n            \
         // allow compat mode, this will enable use of cuFile posix read/writes\n            \"allow_compat_mode\": \
         {compat},\n            \"force_compat_mode\": false,\n            \"gds_rdma_write_support\": true,\n          \
           // client-side rdma addr list for user-space file-systems(e.g [\"10.0.1.0\", \"10.0.2.0\"])\n            \
         \"rdma_dev_addr_list\": [ ],\n    }},\n\n    \"fs\": {{\n            \"generic\": {{\n                    \
         \"posix_unaligned_writes\" : false\n            }},\n            \"lustre\": {{\n                    \
         \"posix_gds_min_kb\" : 0\n            }}\n    }},\n{block}\n    \"denylist\": {{\n            // specify list \
         of vendor driver modules to deny for nvidia-fs (e.g. [\"nvme\" , \"nvme_rdma\"])\n            \"drivers\":  [ \
         ],\n            \"devices\": [ ],\n            \"mounts\": [ ],\n            \"filesystems\": [ ]\n    \
         }},\n\n    \"miscellaneous\": {{\n            \"api_check_aggressive\": false\n    }}\n}}\n"
    )
}

/// Lines of a cuFile log.
pub(super) fn cufile_log(lines: &[&str]) -> String {
    let stamped = lines.iter().map(|line| format!(" 20-11-2026 07:30:32:289 [pid=16846 tid=16846] {line}\n"));
    stamped.collect()
}
