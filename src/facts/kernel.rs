//! The kernel: release, command line, taint, lockdown and Secure Boot, and what it was built with.

use super::commands::CommandOutput;
use super::search::occurrences;
use super::{Fact, Root};
use serde::{Deserialize, Serialize};
use std::io::Read as _;

/// The running kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Kernel {
    /// As `uname -r` prints it.
    pub release: Fact<String>,
    /// `/proc/version`: compiler and build included.
    pub version: Fact<String>,
    /// What the boot loader handed over.
    pub command_line: Fact<String>,
    /// What makes its developers refuse bug reports.
    pub taint: Fact<Taint>,
    /// The lockdown mode in force: `none`, `integrity` or `confidentiality`.
    pub lockdown: Fact<String>,
    /// Was it started by UEFI? Otherwise by BIOS, or directly.
    pub uefi: Fact<bool>,
    /// Does the firmware check signatures? Missing where there is no such variable.
    pub secure_boot: Fact<bool>,
    /// Build options that decide which routes exist.
    pub config: Fact<Config>,
    /// Symbols of the running kernel and its modules that decide which routes exist.
    pub symbols: Fact<Symbols>,
}

/// `/proc/sys/kernel/tainted`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Taint {
    /// The bits.
    pub bits: u64,
    /// The letters of the bits that are set, as a kernel oops prints them.
    pub letters: String,
}

/// The letters of bits 0 to 19 (kernel/panic.c, `taint_flags`).
const TAINT_LETTERS: &[u8] = b"PFSRMBUDAWCIOELKXTNJ";

/// Build options of the kernel. `None` where the configuration does not mention the option and it is off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Config {
    /// `CONFIG_PCI_P2PDMA`: without it the p2pdma route does not exist.
    pub pci_p2pdma: bool,
    /// `CONFIG_ZONE_DEVICE`: what p2pdma's memory is made of.
    pub zone_device: bool,
    /// `CONFIG_MODULE_SIG_FORCE`: unsigned modules are refused whatever the firmware says.
    pub module_sig_force: bool,
}

/// Symbols of the running kernel and its loaded modules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Symbols {
    /// `pci_p2pdma_add_resource` exists: the kernel was built with PCI P2PDMA.
    pub pci_p2pdma: bool,
    /// `nvme_*_register_nvfs_dma_ops` of loaded modules: the hook that nvidia-fs needs in a storage driver.
    pub nvfs_hooks: Vec<String>,
}

impl Kernel {
    /// Reads all of it.
    pub fn read(root: &Root) -> Self {
        let release = root.text("/proc/sys/kernel/osrelease");
        let config = Config::read(root, release.value().map(String::as_str));
        let uefi = match root.list("/sys/firmware") {
            Fact::Known { value, .. } => {
                Fact::known("/sys/firmware/efi", value.iter().any(|name| name == "efi"))
            }
            other => other.map(|_| false),
        };
        Self {
            version: root.text("/proc/version"),
            command_line: root.text("/proc/cmdline").map(|line| crate::redact::command_line(&line)),
            taint: root.parse("/proc/sys/kernel/tainted", Taint::parse),
            lockdown: root.parse("/sys/kernel/security/lockdown", parse_lockdown),
            uefi,
            secure_boot: root.bytes(SECURE_BOOT).parse(|bytes| parse_secure_boot(&bytes)),
            symbols: Symbols::read(root),
            config,
            release,
        }
    }
}

impl Kernel {
    /// Takes the release from what `uname` printed, where the kernel's own file was not captured.
    pub fn or_by_uname(mut self, commands: &[CommandOutput]) -> Self {
        let told = || {
            let printed = commands.iter().find(|command| command.program() == "uname")?;
            let words: Vec<&str> = printed.stdout.first()?.split_ascii_whitespace().collect();
            // `uname -a` prints `Linux <host> <release> ...`, `uname -r` the release alone.
            let release = match words.as_slice() {
                [release] => release,
                ["Linux", _, release, ..] => release,
                _ => return None,
            };
            let is_release = release.starts_with(|c: char| c.is_ascii_digit());
            is_release.then(|| Fact::known(printed.from.clone(), (*release).to_owned()))
        };
        if let Fact::Missing { .. } = self.release
            && let Some(release) = told()
        {
            self.release = release;
        }
        self
    }
}

/// The variable of the EFI global namespace (UEFI specification, 3.3).
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// efivarfs puts four bytes of attributes before a variable's value, which is one byte here.
fn parse_secure_boot(bytes: &[u8]) -> Result<bool, String> {
    match bytes {
        [_, _, _, _, value @ (0 | 1)] => Ok(*value == 1),
        _ => Err(format!("{} bytes that are no attributes and a 0 or 1", bytes.len())),
    }
}

/// `none [integrity] confidentiality`: the mode in force stands in brackets.
fn parse_lockdown(text: &str) -> Result<String, String> {
    let word = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    word.map(|(mode, _)| mode.to_owned()).ok_or_else(|| format!("{text:?} has no mode in brackets"))
}

impl Taint {
    fn parse(text: &str) -> Result<Self, String> {
        let bits: u64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
        let letters = (0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit: usize| {
            // Bit 0 unset is 'G', but an unset bit says nothing here.
            TAINT_LETTERS.get(bit).map_or('?', |letter| char::from(*letter))
        });
        Ok(Self { bits, letters: letters.collect() })
    }
}

impl Config {
    /// Reads the first configuration that is there: the kernel's own, then the package's.
    fn read(root: &Root, release: Option<&str>) -> Fact<Self> {
        let own = root.bytes("/proc/config.gz");
        if !matches!(own, Fact::Missing { .. }) {
            return own.parse(|bytes| {
                let mut text = String::new();
                let mut unpacked = flate2::read::GzDecoder::new(&bytes[..]).take(16 << 20);
                unpacked.read_to_string(&mut text).map_err(|e| e.to_string())?;
                Self::parse(&text)
            });
        }
        let Some(release) = release else { return Fact::not_read("the kernel's release is not known") };
        let paths = [format!("/boot/config-{release}"), format!("/usr/lib/modules/{release}/config")];
        let found = paths.iter().find(|path| root.exists(path)).unwrap_or(&paths[0]);
        root.parse(found, Self::parse)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let set = |name: &str| {
            text.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest == "=y" || rest == "=m"))
        };
        if !text.lines().any(|line| line.starts_with("CONFIG_")) {
            return Err("no CONFIG_ line".into());
        }
        Ok(Self {
            pci_p2pdma: set("CONFIG_PCI_P2PDMA"),
            zone_device: set("CONFIG_ZONE_DEVICE"),
            module_sig_force: set("CONFIG_MODULE_SIG_FORCE"),
        })
    }
}

/// What a storage driver must export for nvidia-fs (nvidia-fs, nvfs-core.c and nvfs-mod.c), after its own prefix.
pub const NVFS_HOOK_SUFFIX: &str = "_register_nvfs_dma_ops";

/// One line per symbol of a kernel and all its modules; a hundred modules make some 15 MB.
const KALLSYMS_LIMIT: u64 = 256 << 20;

impl Symbols {
    fn read(root: &Root) -> Fact<Self> {
        root.bytes_up_to("/proc/kallsyms", KALLSYMS_LIMIT)
            .parse(|text| if text.is_empty() { Err("empty") } else { Ok(Self::find(&text)) })
    }

    /// Lines are `address type name` and, for a module's symbol, a tab and `[module]`.
    fn find(text: &[u8]) -> Self {
        let p2pdma = b"pci_p2pdma_add_resource";
        let pci_p2pdma = occurrences(text, p2pdma).any(|at| name_at(text, at).as_bytes() == p2pdma);
        let mut nvfs_hooks: Vec<String> = Vec::new();
        for at in occurrences(text, NVFS_HOOK_SUFFIX.as_bytes()) {
            let name = name_at(text, at);
            // `__ksymtab_...` and the like are the kernel's own bookkeeping about the symbol.
            let is_hook = name.ends_with(NVFS_HOOK_SUFFIX) && !name.starts_with("__");
            if is_hook && !nvfs_hooks.contains(&name) {
                nvfs_hooks.push(name);
            }
        }
        Self { pci_p2pdma, nvfs_hooks }
    }
}

/// The name around the byte at `at`: all that is neither white space nor NUL.
pub(super) fn name_at(text: &[u8], at: usize) -> String {
    let is_end = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
    let start = text[..at].iter().rposition(is_end).map_or(0, |end| end + 1);
    let end = text[at..].iter().position(is_end).map_or(text.len(), |end| at + end);
    String::from_utf8_lossy(&text[start..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_by_uname() {
        let of = |line: &str| {
            let command = CommandOutput {
                argv: vec!["uname".into()],
                stdout: vec![line.to_owned()],
                ..CommandOutput::default()
            };
            let kernel = Kernel { release: Fact::Missing { from: "x".into() }, ..Kernel::default() };
            kernel.or_by_uname(&[command]).release.value().cloned()
        };
        assert_eq!(of("6.8.0-60-generic").as_deref(), Some("6.8.0-60-generic"));
        assert_eq!(
            of("Linux gpu01 6.8.0-60-generic #63-Ubuntu SMP x86_64").as_deref(),
            Some("6.8.0-60-generic")
        );
        for line in ["", "Linux", "x86_64", "gpu01 6.8"] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn taint_letters_follow_the_kernel() {
        assert_eq!(Taint::parse("0"), Ok(Taint { bits: 0, letters: String::new() }));
        // Proprietary, out of tree, unsigned: what a machine with NVIDIA's own module shows.
        assert_eq!(Taint::parse("12289").unwrap().letters, "POE");
        assert_eq!(Taint::parse("9223372036854775808").unwrap().letters, "?");
        assert!(Taint::parse("G").is_err());
    }

    #[test]
    fn secure_boot_needs_five_bytes() {
        assert_eq!(parse_secure_boot(&[6, 0, 0, 0, 1]), Ok(true));
        assert_eq!(parse_secure_boot(&[6, 0, 0, 0, 0]), Ok(false));
        assert!(parse_secure_boot(&[6, 0, 0, 0]).is_err());
        assert!(parse_secure_boot(&[6, 0, 0, 0, 7]).is_err());
    }

    #[test]
    fn the_lockdown_mode_stands_in_brackets() {
        assert_eq!(parse_lockdown("none [integrity] confidentiality"), Ok("integrity".into()));
        assert!(parse_lockdown("none integrity").is_err());
    }

    #[test]
    fn a_configuration_that_says_not_set_is_off() {
        let config =
            "#\n# Linux\n#\nCONFIG_ZONE_DEVICE=y\n# CONFIG_PCI_P2PDMA is not set\nCONFIG_PCI_P2PDMA_X=y\n";
        let config = Config::parse(config).unwrap();
        assert_eq!(config, Config { pci_p2pdma: false, zone_device: true, module_sig_force: false });
        assert!(Config::parse("<html>").is_err());
    }

    #[test]
    fn symbols_of_a_patched_nvme() {
        let text = b"0000000000000000 T pci_p2pdma_add_resource\n\
            0000000000000000 r __ksymtab_nvme_v1_register_nvfs_dma_ops\t[nvme]\n\
            0000000000000000 T nvme_v1_register_nvfs_dma_ops\t[nvme]\n\
            0000000000000000 t nvme_v1_register_nvfs_dma_ops\t[nvme]\n\
            0000000000000000 T nvme_v1_unregister_nvfs_dma_ops\t[nvme]";
        let hooks = vec!["nvme_v1_register_nvfs_dma_ops".to_owned()];
        assert_eq!(Symbols::find(text), Symbols { pci_p2pdma: true, nvfs_hooks: hooks });
        assert_eq!(Symbols::find(b"0 T __traceiter_pci_p2pdma_add_resource_x\n"), Symbols::default());
    }
}
