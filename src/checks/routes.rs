//! The two direct routes and their pieces. A missing piece is a failure only where its route is the one that this machine
//! was set up for and the other is not complete: nobody needs both.

use super::check::Outcome;
use super::context::Context;
use super::said::at_least;
use crate::facts::cufile_env::CufileVariable;
use std::fmt;

/// A direct route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direct {
    /// nvidia-fs and an nvme driver with its hook.
    Nvfs,
    /// The kernel's PCI P2PDMA.
    P2pdma,
}

impl Direct {
    fn other(self) -> Self {
        match self {
            Self::Nvfs => Self::P2pdma,
            Self::P2pdma => Self::Nvfs,
        }
    }
}

impl fmt::Display for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nvfs => "nvidia-fs",
            Self::P2pdma => "P2PDMA",
        })
    }
}

/// Does the nvme driver that runs carry nvidia-fs's hook? The one on disk speaks only where none runs.
pub fn hook(context: &Context<'_>) -> Option<bool> {
    let facts = context.facts;
    let listed = facts.nvidia.nvidia_fs_modules.value();
    if listed.is_some_and(|text| text.lines().any(|line| line.trim_start().starts_with("nvme"))) {
        return Some(true);
    }
    let runs = context.has_module("nvme") == Some(true)
        || context.nvmes().iter().any(|nvme| nvme.driver.value().is_some_and(|driver| driver == "nvme"));
    match facts.kernel.symbols.value() {
        Some(symbols) if runs || !symbols.nvfs_hooks.is_empty() => Some(!symbols.nvfs_hooks.is_empty()),
        _ => facts.nvme_module_hooks.value().map(|hooks| !hooks.is_empty()),
    }
}

/// Can this kernel hand one device's memory to another device's driver from user space (6.2, `CONFIG_PCI_P2PDMA`)?
pub fn kernel_p2pdma(context: &Context<'_>) -> Option<bool> {
    let kernel = &context.facts.kernel;
    let release = kernel.release.value().map(String::as_str);
    // Red Hat carries newer code under old numbers.
    let old = release.filter(|release| !release.contains(".el")).and_then(|r| at_least(r, &[6, 2]));
    if old == Some(false) {
        return Some(false);
    }
    let symbols = kernel.symbols.value().map(|symbols| symbols.pci_p2pdma);
    symbols.or(kernel.config.value().map(|config| config.pci_p2pdma && config.zone_device))
}

/// The registry keys that the driver took, or was told to take.
pub fn registry_keys(context: &Context<'_>) -> Option<String> {
    let nvidia = &context.facts.nvidia;
    if let Some(params) = nvidia.params.value() {
        return Some(params.get("RegistryDwords").cloned().unwrap_or_default());
    }
    // The module's parameter may read empty although it was set: then it says nothing.
    let module = nvidia.module_parameters.value().and_then(|all| all.get("NVreg_RegistryDwords"));
    let module = module.filter(|value| !value.is_empty() && *value != "(null)").cloned();
    module.or_else(|| context.kernel_parameter("nvidia.NVreg_RegistryDwords").map(str::to_owned))
}

/// Is a registry key set to a value? Keys are separated by `;` and written in any letters.
pub fn has_key(keys: &str, key: &str, value: &str) -> bool {
    keys.split(';').filter_map(|pair| pair.split_once('=')).any(|(name, set)| {
        name.trim().trim_matches('"').eq_ignore_ascii_case(key) && set.trim().trim_matches('"') == value
    })
}

/// Did the driver take both keys that P2PDMA needs?
pub fn static_bar1(context: &Context<'_>) -> Option<bool> {
    let keys = registry_keys(context)?;
    Some(has_key(&keys, "RMForceStaticBar1", "1") && has_key(&keys, "RmForceDisableIomapWC", "1"))
}

/// Is nvme's multipath off, as P2PDMA needs it?
pub fn multipath_off(context: &Context<'_>) -> Option<bool> {
    let told = context.facts.nvme_multipath.value().map(String::as_str);
    match told.or_else(|| context.kernel_parameter("nvme_core.multipath"))? {
        "N" | "n" | "0" => Some(true),
        "Y" | "y" | "1" => Some(false),
        _ => None,
    }
}

/// The version of libcufile, from gdscheck (which only works with its own) or from the library's name.
pub fn cufile_version(context: &Context<'_>) -> Option<String> {
    let facts = context.facts;
    let told = facts.gdscheck.value().and_then(|answer| answer.release.clone());
    told.or_else(|| {
        let libraries = facts.libraries.value()?.iter();
        let versions = libraries.filter(|library| library.name == "libcufile");
        versions.map(|library| library.version.clone()).max_by_key(|version| super::said::numbers(version))
    })
}

/// A switch in cuFile's environment, and where it is set. Each says something of some programs alone: a value that forbids
/// counts before one that allows.
pub fn cufile_environment<'a>(
    context: &Context<'a>,
    name: &str,
    bad: bool,
) -> Option<(&'a CufileVariable, bool)> {
    let set = context.facts.cufile_environment.value()?.iter().filter(|variable| variable.name == name);
    let switches: Vec<_> = set.filter_map(|variable| Some((variable, variable.switch()?))).collect();
    switches.iter().find(|(_, on)| *on == bad).or(switches.first()).copied()
}

/// Is cuFile told to use P2PDMA?
pub fn cufile_p2pdma(context: &Context<'_>) -> Option<bool> {
    let facts = context.facts;
    if let Some(answer) = facts.gdscheck.value()
        && let Some(general) = answer.switch("properties.use_pci_p2pdma")
    {
        return Some(general && answer.switch("block.nvme.use_pci_p2pdma").unwrap_or(true));
    }
    let Some(config) = facts.cufile.value() else {
        // Off is the default, but a capture without this one file has other things to say about that.
        let is_absent = matches!(facts.cufile, crate::facts::Fact::Missing { .. });
        return (is_absent && facts.modules.value().is_some()).then_some(false);
    };
    if config.use_pci_p2pdma != Some(true) {
        return Some(false);
    }
    match config.nvme_use_pci_p2pdma {
        Some(on) => Some(on),
        // The second key is asked for from 1.16 on.
        None => cufile_version(context).and_then(|version| at_least(&version, &[1, 16])).map(|new| !new),
    }
}

/// Is everything of a route there, as far as can be seen? gdscheck's answer counts: it asks the same things.
pub fn complete(context: &Context<'_>, route: Direct) -> Option<bool> {
    let told = context.facts.gdscheck.value().and_then(crate::facts::gdscheck::Gdscheck::nvme_routes);
    let name = match route {
        Direct::Nvfs => "nvfs",
        Direct::P2pdma => "p2pdma",
    };
    if told.is_some_and(|routes| routes.contains(&name)) {
        return Some(true);
    }
    let pieces = match route {
        Direct::Nvfs => vec![context.has_module("nvidia_fs"), hook(context)],
        Direct::P2pdma => {
            vec![kernel_p2pdma(context), static_bar1(context), multipath_off(context)]
        }
    };
    if pieces.contains(&Some(false)) {
        Some(false)
    } else if pieces.contains(&None) {
        None
    } else {
        Some(true)
    }
}

/// Was this machine set up for a route? Without any sign of either it is P2PDMA, which needs no other kernel, unless the
/// kernel cannot do it.
pub fn is_wanted(context: &Context<'_>, route: Direct) -> bool {
    let gdscheck = context.facts.gdscheck.value();
    let nvfs = context.has_module("nvidia_fs") == Some(true)
        || hook(context) == Some(true)
        || gdscheck.is_some_and(|answer| answer.nvidia_fs.is_some());
    let cufile = context.facts.cufile.value().and_then(|config| config.use_pci_p2pdma);
    let p2pdma = static_bar1(context) == Some(true)
        || multipath_off(context) == Some(true)
        || cufile == Some(true)
        || cufile_environment(context, "CUFILE_USE_PCIP2PDMA", false).is_some_and(|(_, on)| on)
        || gdscheck.and_then(|answer| answer.switch("properties.use_pci_p2pdma")) == Some(true);
    match route {
        Direct::Nvfs => nvfs || (!p2pdma && kernel_p2pdma(context) == Some(false)),
        Direct::P2pdma => p2pdma || (!nvfs && kernel_p2pdma(context) != Some(false)),
    }
}

/// Why a piece of `route` need not be looked at, if it need not.
pub fn moot(context: &Context<'_>, route: Direct) -> Option<Outcome> {
    if has_c2c(context) && complete(context, route) != Some(true) {
        return Some(Outcome::note(format!("GPU memory is the CPU's (c2c), so {route} is not needed")));
    }
    let other = route.other();
    if complete(context, other) == Some(true) && complete(context, route) != Some(true) {
        return Some(Outcome::note(format!("the {other} route is complete, so {route} is not needed")));
    }
    (!is_wanted(context, route))
        .then(|| Outcome::not_applicable(format!("this machine is set up for the {other} route")))
}

/// Is GPU memory part of the CPU's, as on Grace? gdscheck says so.
pub fn has_c2c(context: &Context<'_>) -> bool {
    let told = context.facts.gdscheck.value().and_then(crate::facts::gdscheck::Gdscheck::nvme_routes);
    told.is_some_and(|routes| routes.contains(&"c2c"))
}

/// Like [`moot`] for what a log complains about: only a complete other route makes that unimportant.
pub fn other_is_complete(context: &Context<'_>, route: Direct) -> bool {
    has_c2c(context) || complete(context, route.other()) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_any_letters() {
        assert!(has_key("RMForceStaticBar1=1;RmForceDisableIomapWC=1;", "rmforcestaticbar1", "1"));
        assert!(!has_key("RMForceStaticBar1=0", "RMForceStaticBar1", "1"));
        assert!(!has_key(";=;x", "RMForceStaticBar1", "1"));
    }
}
