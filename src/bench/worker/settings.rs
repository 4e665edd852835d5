//! cuFile's settings for one worker: a `cufile.json` that leaves nothing to what the machine has in `/etc`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;

/// Which route cuFile is told to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// nvidia-fs.
    Nvfs,
    /// The kernel's PCI P2PDMA.
    P2pdma,
    /// Copies by the CPU.
    Compat,
    /// Whichever cuFile finds; P2PDMA is on.
    Any,
}

/// What a worker's cuFile may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CufileSettings {
    /// The route.
    pub wanted: Wanted,
    /// May it fall back to copies by the CPU? Always where these are what is wanted.
    pub compat: bool,
}

impl CufileSettings {
    /// May it fall back?
    pub fn allows_compat(self) -> bool {
        self.compat || self.wanted == Wanted::Compat
    }

    /// The file's text; logs go to `folder`.
    pub fn json(self, folder: &Path) -> Value {
        let p2pdma = matches!(self.wanted, Wanted::P2pdma | Wanted::Any);
        json!({
            "logging": { "dir": folder.display().to_string(), "level": "INFO" },
            "properties": {
                "allow_compat_mode": self.allows_compat(),
                "force_compat_mode": self.wanted == Wanted::Compat,
                "use_pci_p2pdma": p2pdma,
            },
            // From GDS 1.16 on each kind of drive is asked for as well; fabrics are left alone.
            "block": { "nvme": { "use_pci_p2pdma": p2pdma } },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::cufile::CufileConfig;

    #[test]
    fn what_is_wanted_reads_back_as_a_machine_s_settings() {
        for (wanted, compat, allow, force, p2pdma) in [
            (Wanted::Nvfs, false, false, false, false),
            (Wanted::P2pdma, false, false, false, true),
            (Wanted::Any, true, true, false, true),
            (Wanted::Compat, false, true, true, false),
        ] {
            let text = CufileSettings { wanted, compat }.json(Path::new("/run/x")).to_string();
            let config = CufileConfig::parse(&text).unwrap();
            assert_eq!(config.allow_compat_mode, Some(allow));
            assert_eq!(config.force_compat_mode, Some(force));
            assert_eq!((config.use_pci_p2pdma, config.nvme_use_pci_p2pdma), (Some(p2pdma), Some(p2pdma)));
            assert_eq!(config.logging_dir.as_deref(), Some("/run/x"));
        }
    }
}
