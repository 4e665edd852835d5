//! The names on which the builder and the live side agree: kernel parameters, paths, labels.
//!
//! The builder writes them, the validator reads them, `smoke` and `inspect` look them up; none of the three knows
//! another.

/// Kernel parameter: where the squashfs root is: `PARTUUID=<uuid>` of its partition, or `ISO9660=<volume identifier>` of the
/// ISO that has it as a file.
pub const PARAM_ROOT: &str = "gdsboot.root";
/// Kernel parameter: size of the squashfs in bytes (the partition is larger: it is padded to 1 MiB).
pub const PARAM_ROOT_SIZE: &str = "gdsboot.root-size";
/// Kernel parameter: SHA-256 of those bytes, in lower-case hex.
pub const PARAM_ROOT_SHA256: &str = "gdsboot.root-sha256";
/// Kernel parameter: where the root is fetched, `http://<address>...`; there is no [`PARAM_ROOT`] then.
pub const PARAM_ROOT_URL: &str = "gdsboot.root_url";
/// Kernel parameter: how the machine gets an address, a setting.
pub const PARAM_NET: &str = "gdsboot.net";
/// Kernel parameter: `PARTUUID=<uuid>` of the image's own report partition. An ISO has none.
pub const PARAM_REPORT: &str = "gdsboot.report";
/// Kernel parameter: what to do when the report is written: `poweroff` (default), `reboot`, `hold` or `shell`.
pub const PARAM_AFTER: &str = "gdsboot.after";
/// Kernel parameter: where the report is sent. A pre-signed URL is a secret, so its value is hidden wherever the command line
/// is quoted.
pub const PARAM_REPORT_URL: &str = "gdsboot.report_url";
/// Kernel parameter: the name of a stage that panics when it begins, so that a test can see what becomes of a panic.
pub const PARAM_BREAK: &str = "gdsboot.break";

/// What the boot menu prints on the console before it loads the kernel.
pub const LOADER_MARK: &str = "gdsboot: loading the kernel";

/// On the ESP: what this image is, a [`crate::manifest::Manifest`] as JSON.
pub const ESP_MANIFEST: &str = "gdsboot/manifest.json";

/// On an ISO: the squashfs root, as Linux shows the name.
pub const ISO_ROOT: &str = "gdsboot/root.sqs";

/// The validator in the initramfs.
pub const INITRAMFS_INIT: &str = "init";
/// In the initramfs: the modules to load before the root can be found, one absolute path per line, in load order.
pub const INITRAMFS_MODULES: &str = "etc/gdsboot/modules";
/// In the initramfs: what this image is, a [`crate::manifest::Manifest`] as JSON.
pub const INITRAMFS_MANIFEST: &str = "gdsboot/manifest.json";
/// In the initramfs: the dynamic worker, the only program that loads libcuda, libcufile and NVML. gdsboot's own programs
/// travel in the initramfs, so that a new one does not mean a new root.
pub const INITRAMFS_DMA: &str = "gdsboot/gdsboot-dma";
/// On the running system: where the validator lays what the initramfs carried, for itself and for the shell.
pub const RUN_FOLDER: &str = "run/gdsboot";
/// On the running system: the manifest.
pub const RUN_MANIFEST: &str = "run/gdsboot/manifest.json";
/// On the running system: the validator again, for use from the shell.
pub const RUN_VALIDATOR: &str = "run/gdsboot/bin/gdsboot-validator";
/// On the running system: the worker.
pub const RUN_DMA: &str = "run/gdsboot/bin/gdsboot-dma";
/// On the running system: copies of the operator's own programs.
pub const RUN_PROGRAMS: &str = "run/gdsboot/programs";
/// On the running system: what came of loading modules, a fact as JSON. A capture takes it along.
pub const RUN_MODULE_LOADS: &str = "run/gdsboot/module-loads.json";
/// On the running system: what the benchmark found, as JSON. A capture takes it along.
pub const RUN_BENCHMARK: &str = "run/gdsboot/benchmark.json";
/// On the running system: what NVIDIA's libraries answered, a fact as JSON. A capture takes it along.
pub const RUN_LIBRARIES: &str = "run/gdsboot/libraries.json";
/// On the running system: what is needed for sending the report, and the network.
pub const RUN_NETWORK: &str = "run/gdsboot/network";
/// On the running system: where `/etc/resolv.conf` leads.
pub const RUN_RESOLV_CONF: &str = "run/gdsboot/network/resolv.conf";
/// In the root: the modules to load for GDS, by name, one per line, in the order in which to try them.
pub const ROOT_MODULES: &str = "usr/share/gdsboot/modules";

/// GPT name and FAT label of the report partition.
pub const REPORT_LABEL: &str = "GDSREPORT";
/// On the report partition: the settings that a technician edits.
pub const REPORT_SETTINGS: &str = "gdsboot.toml";
/// On the report partition: programs of the operator's own, which `gdsboot.toml` names.
pub const REPORT_PROGRAMS: &str = "workloads";
/// On the report partition: one folder per run, `<UTC as YYYYMMDDThhmmssZ>-<run id>`.
pub const REPORT_RUNS: &str = "reports";
/// In a run's folder: written first, so that a hang still leaves evidence.
pub const RUN_STARTED: &str = "STARTED";
/// In a run's folder: the report for programs.
pub const RUN_REPORT_JSON: &str = "report.json";
/// In a run's folder: the report for people.
pub const RUN_REPORT_TEXT: &str = "report.txt";
/// The report for people with a browser, in a run's folder.
pub const RUN_REPORT_HTML: &str = "report.html";
/// The findings for CI systems, in a run's folder.
pub const RUN_REPORT_JUNIT: &str = "junit.xml";
/// The raw samples that the benchmark's figures are computed from, in a run's folder: a line of JSON for each measurement.
pub const RUN_SAMPLES: &str = "samples.jsonl";
/// The machine itself, in a run's folder, where that was asked for: what `gdsboot-validator check --root` reads.
pub const RUN_CAPTURE: &str = "capture.tar.zst";
