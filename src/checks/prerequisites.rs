//! What is missing before any transfer could be tried, causes first. It can say why nothing is proven, and never that
//! something is: a proof needs a transfer.

use crate::facts::dma::Library;
use crate::facts::modules::LoadOutcome;
use crate::facts::pci::Class;
use crate::facts::{Fact, Facts};

/// Why no direct transfer can be expected, one sentence each, causes before what follows from them.
pub fn missing(facts: &Facts) -> Vec<String> {
    let mut why = Vec::new();
    why.extend(devices(facts));
    why.extend(modules(facts));
    why.extend(routes(facts));
    why.extend(libraries(facts));
    why
}

fn devices(facts: &Facts) -> Vec<String> {
    let Fact::Known { value: devices, .. } = &facts.pci else {
        return vec![format!("PCI devices cannot be seen: {}", absent(&facts.pci))];
    };
    let mut why = Vec::new();
    let count = devices.len();
    if !devices.iter().any(|device| device.is_nvidia_gpu()) {
        why.push(format!("no NVIDIA GPU is visible among {count} PCI functions"));
    }
    if !devices.iter().any(|device| device.class.value().copied().is_some_and(Class::is_nvme)) {
        why.push(format!("no NVMe controller is visible among {count} PCI functions"));
    }
    why
}

fn modules(facts: &Facts) -> Vec<String> {
    let loads = match &facts.module_loads {
        Fact::Known { value, .. } => value,
        // A run that loads none (on a running system) is judged by what is in the kernel.
        Fact::NotRead { .. } => return loaded_modules(facts),
        other => return vec![format!("no modules were loaded: {}", absent(other))],
    };
    let refused = loads.iter().filter(|load| !load.outcome.is_in());
    refused
        // The module that it needs has its own line, above.
        .filter(|load| !matches!(load.outcome, LoadOutcome::Dependency { .. }))
        .map(|load| {
            format!("module {} {}{}", load.name, load.outcome.words(), unsigned(&load.outcome, facts))
        })
        .collect()
}

/// What an unsigned module's refusal comes from. The kernel answers EKEYREJECTED where signatures are enforced, and EPERM
/// where it is locked down, as it is under Secure Boot (`module_sig_check`, kernel/module/signing.c).
fn unsigned(outcome: &LoadOutcome, facts: &Facts) -> &'static str {
    let secure_boot = facts.kernel.secure_boot.value().copied().unwrap_or_default();
    match outcome {
        LoadOutcome::Refused { name, .. } if name == "EKEYREJECTED" || (name == "EPERM" && secure_boot) => {
            if secure_boot {
                ": Secure Boot is on, and no key that this kernel trusts has signed the module"
            } else {
                ": no key that this kernel trusts has signed the module"
            }
        }
        _ => "",
    }
}

fn loaded_modules(facts: &Facts) -> Vec<String> {
    match &facts.modules {
        Fact::Known { value: loaded, .. } if loaded.iter().any(|module| module.name == "nvidia") => {
            Vec::new()
        }
        Fact::Known { .. } => vec!["module nvidia is not loaded".into()],
        other => vec![format!("modules cannot be seen: {}", absent(other))],
    }
}

/// Is a direct route there at all? `nvfs` needs a hook in nvme, `p2pdma` needs the kernel's support.
fn routes(facts: &Facts) -> Option<String> {
    let symbols = facts.kernel.symbols.value();
    let config = facts.kernel.config.value();
    // What runs counts; the configuration file on disk speaks only where the running kernel cannot be asked.
    let p2pdma = symbols.map(|symbols| symbols.pci_p2pdma).or(config.map(|config| config.pci_p2pdma));
    let nvme_is_loaded =
        facts.modules.value().is_some_and(|loaded| loaded.iter().any(|module| module.name == "nvme"));
    let hooks = match symbols {
        Some(symbols) if nvme_is_loaded || !symbols.nvfs_hooks.is_empty() => {
            Some(!symbols.nvfs_hooks.is_empty())
        }
        _ => facts.nvme_module_hooks.value().map(|hooks| !hooks.is_empty()),
    };
    let kernel = facts.kernel.release.value().map_or("(release unknown)", String::as_str);
    let no_p2pdma = "it lacks CONFIG_PCI_P2PDMA";
    let no_hook = "its nvme module carries no nvidia-fs hook";
    match (p2pdma, hooks) {
        (Some(true), _) | (_, Some(true)) => None,
        (Some(false), Some(false)) => {
            Some(format!("no direct route exists on kernel {kernel}: {no_p2pdma} and {no_hook}"))
        }
        (Some(false), None) => Some(format!(
            "no direct route is known on kernel {kernel}: {no_p2pdma}, and its nvme module cannot be read: {}",
            absent(&facts.nvme_module_hooks)
        )),
        (None, Some(false)) => Some(format!(
            "no direct route is known on kernel {kernel}: {no_hook}, and whether it has CONFIG_PCI_P2PDMA cannot be \
             seen: {}",
            absent(&facts.kernel.symbols)
        )),
        (None, None) => Some(format!(
            "which direct routes there are on kernel {kernel} cannot be seen: {}",
            absent(&facts.kernel.symbols)
        )),
    }
}

fn libraries(facts: &Facts) -> Vec<String> {
    match &facts.dma {
        Fact::Known { value: probe, .. } => {
            let failed = |library: &Library| {
                let error = library.error.as_ref()?;
                Some(format!("library {} cannot be loaded: {error}", library.name))
            };
            probe.libraries.iter().filter_map(failed).collect()
        }
        Fact::NotRead { .. } => Vec::new(),
        other => vec![format!("NVIDIA's libraries could not be asked: {}", absent(other))],
    }
}

/// Why a fact has no value, in words.
fn absent<T>(fact: &Fact<T>) -> String {
    fact.as_ref().map(|_| "known").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::dma::DmaProbe;
    use crate::facts::kernel::Symbols;
    use crate::facts::modules::{LoadedModule, ModuleLoad};
    use crate::facts::pci::{Class, Id, PciDevice};

    fn device(vendor: u16, class: u32) -> PciDevice {
        let missing = |what: &str| Fact::Missing { from: what.into() };
        PciDevice {
            address: "0000:01:00.0".into(),
            vendor: Fact::known("vendor", Id(vendor)),
            device: Fact::known("device", Id(1)),
            class: Fact::known("class", Class(class)),
            driver: missing("driver"),
            bars: Fact::known("resource", vec![]),
            ..PciDevice::default()
        }
    }

    fn load(name: &str, outcome: LoadOutcome) -> ModuleLoad {
        ModuleLoad { name: name.into(), path: None, outcome, ms: 0, kernel_lines: vec![] }
    }

    fn loaded(name: &str) -> LoadedModule {
        LoadedModule {
            name: name.into(),
            bytes: 1,
            state: "Live".into(),
            taint: String::new(),
            version: Fact::default(),
        }
    }

    /// A machine on which nothing is missing.
    fn complete() -> Facts {
        let mut facts = Facts {
            pci: Fact::known("pci", vec![device(0x10de, 0x03_0200), device(0x144d, 0x01_0802)]),
            module_loads: Fact::known("modules", vec![load("nvidia", LoadOutcome::Loaded)]),
            modules: Fact::known("modules", vec![loaded("nvidia"), loaded("nvme")]),
            nvme_module_hooks: Fact::known("nvme.ko", vec![]),
            dma: Fact::known("probe", DmaProbe::default()),
            ..Facts::default()
        };
        facts.kernel.release = Fact::known("osrelease", "6.12.1".into());
        facts.kernel.symbols = Fact::known("kallsyms", Symbols { pci_p2pdma: true, nvfs_hooks: vec![] });
        facts
    }

    #[test]
    fn nothing_is_missing_from_a_complete_machine() {
        assert_eq!(missing(&complete()), Vec::<String>::new());
    }

    #[test]
    fn an_empty_machine_with_a_stock_kernel() {
        let mut facts = complete();
        facts.pci = Fact::known("pci", vec![device(0x8086, 0x06_0000), device(0x10de, 0x04_0300)]);
        let enodev = LoadOutcome::Refused { errno: 19, name: "ENODEV".into(), text: "No such device".into() };
        let needs = LoadOutcome::Dependency { needs: "nvidia".into() };
        facts.module_loads = Fact::known("modules", vec![load("nvidia", enodev), load("nvidia-fs", needs)]);
        facts.kernel.symbols = Fact::known("kallsyms", Symbols::default());
        insta::assert_snapshot!(missing(&facts).join("\n"), @r"
        no NVIDIA GPU is visible among 2 PCI functions
        no NVMe controller is visible among 2 PCI functions
        module nvidia refused: ENODEV (No such device)
        no direct route exists on kernel 6.12.1: it lacks CONFIG_PCI_P2PDMA and its nvme module carries no nvidia-fs hook
        ");
    }

    #[test]
    fn an_unsigned_module_is_told_from_other_refusals() {
        let refused = |name: &str, secure_boot: bool| {
            let mut facts = complete();
            let outcome = LoadOutcome::Refused { errno: 1, name: name.into(), text: "x".into() };
            facts.module_loads = Fact::known("modules", vec![load("nvidia", outcome)]);
            facts.kernel.secure_boot = Fact::known("efivars", secure_boot);
            missing(&facts).join("\n")
        };
        let signed = "no key that this kernel trusts has signed the module";
        assert!(refused("EPERM", true).ends_with(&format!(": Secure Boot is on, and {signed}")));
        assert!(refused("EKEYREJECTED", false).ends_with(&format!("): {signed}")));
        assert!(refused("EPERM", false).ends_with("EPERM (x)"));
        assert!(refused("ENODEV", true).ends_with("ENODEV (x)"));
    }

    #[test]
    fn the_module_on_disk_speaks_only_while_none_is_loaded() {
        let mut facts = complete();
        facts.kernel.symbols = Fact::known("kallsyms", Symbols::default());
        facts.nvme_module_hooks = Fact::known("nvme.ko", vec!["nvme_v1_register_nvfs_dma_ops".into()]);
        assert_eq!(missing(&facts).len(), 1, "the nvme that runs has no hook, whatever lies on the disk");
        facts.modules = Fact::known("modules", vec![loaded("nvidia")]);
        assert_eq!(missing(&facts), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_seen_is_said_and_not_taken_for_absent() {
        let mut facts = complete();
        facts.pci = Fact::Denied { from: "/sys/bus/pci/devices".into() };
        facts.kernel.symbols = Fact::Denied { from: "/proc/kallsyms".into() };
        facts.nvme_module_hooks = Fact::Malformed { from: "nvme.ko".into(), why: "cut".into() };
        facts.dma = Fact::Failed { from: "gdsboot-dma".into(), why: "killed after 60 s".into() };
        facts.module_loads = Fact::not_read("no");
        facts.modules = Fact::known("modules", vec![]);
        insta::assert_snapshot!(missing(&facts).join("\n"), @r"
        PCI devices cannot be seen: (permission denied: /sys/bus/pci/devices)
        module nvidia is not loaded
        which direct routes there are on kernel 6.12.1 cannot be seen: (permission denied: /proc/kallsyms)
        NVIDIA's libraries could not be asked: (unreadable: gdsboot-dma: killed after 60 s)
        ");
    }
}
