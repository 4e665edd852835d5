//! The boot menu: grub.cfg, one file for UEFI and BIOS, and the kernel's parameters.

use super::{esp, template};
use crate::boot_contract::{
    LOADER_MARK, PARAM_AFTER, PARAM_REPORT, PARAM_ROOT, PARAM_ROOT_SHA256, PARAM_ROOT_SIZE,
};
use anyhow::{Result, ensure};
use serde::Serialize;
use std::fmt;
use uuid::Uuid;

const TEMPLATE: &str = include_str!("../../image/templates/grub.cfg");

/// Kernel messages go to the screen and to the first serial port; the last one named is /dev/console. A port that is
/// not there costs nothing: the kernel's 8250 console does not wait for it.
pub const CONSOLES: [&str; 2] = ["console=tty0", "console=ttyS0,115200"];
/// Seconds that the menu waits before it starts the first entry.
pub const DEFAULT_TIMEOUT: u32 = 2;

/// The entries: title, and what to do once the report is written. The first one starts by itself and leaves that to the
/// settings on the report partition, over which the command line would win.
const ENTRIES: [(&str, Option<&str>); 3] =
    [("Validate", None), ("Validate and hold", Some("hold")), ("Shell on this console", Some("shell"))];

/// Where the root is; written as the value of [`PARAM_ROOT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootPlace {
    /// The partition with this GUID.
    Partition(Uuid),
    /// A file on the ISO with this volume identifier.
    Iso(String),
}

impl fmt::Display for RootPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(uuid) => write!(f, "PARTUUID={uuid}"),
            Self::Iso(volume) => write!(f, "ISO9660={volume}"),
        }
    }
}

/// What the menu says.
#[derive(Clone, Debug)]
pub struct BootMenu {
    /// What this image is, such as `gdsboot debian-13`.
    pub title: String,
    /// Seconds until the first entry starts; see [`DEFAULT_TIMEOUT`].
    pub timeout: u32,
    /// Where the root is.
    pub root: RootPlace,
    /// Size of the squashfs in bytes.
    pub root_size: u64,
    /// SHA-256 of the squashfs, lower-case hex.
    pub root_sha256: String,
    /// GUID of the image's own report partition, where it has one.
    pub report: Option<Uuid>,
    /// The profile's kernel parameters.
    pub parameters: Vec<String>,
}

#[derive(Serialize)]
struct Values<'a> {
    title: &'a str,
    timeout: u32,
    loading: &'a str,
    kernel: &'a str,
    initramfs: &'a str,
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    title: &'static str,
    parameters: String,
}

impl BootMenu {
    /// The kernel's parameters; `after` is a value of [`PARAM_AFTER`], none leaves it to the settings.
    pub fn kernel_parameters(&self, after: Option<&str>) -> Result<Vec<String>> {
        ensure!(
            self.root_sha256.len() == 64
                && self.root_sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
            "{:?} is not a SHA-256 in lower-case hex",
            self.root_sha256
        );
        let mut parameters = CONSOLES.map(str::to_owned).to_vec();
        parameters.extend(self.parameters.iter().cloned());
        parameters.extend([
            format!("{PARAM_ROOT}={}", self.root),
            format!("{PARAM_ROOT_SIZE}={}", self.root_size),
            format!("{PARAM_ROOT_SHA256}={}", self.root_sha256),
        ]);
        parameters.extend(self.report.map(|report| format!("{PARAM_REPORT}=PARTUUID={report}")));
        parameters.extend(after.map(|after| format!("{PARAM_AFTER}={after}")));
        Ok(parameters)
    }

    /// grub.cfg.
    pub fn grub_cfg(&self) -> Result<String> {
        let entries = ENTRIES
            .into_iter()
            .map(|(title, after)| {
                let parameters = self.kernel_parameters(after)?;
                let quoted: Result<Vec<_>> = parameters.iter().map(|p| quote(p)).collect();
                Ok(Entry { title, parameters: quoted?.join(" ") })
            })
            .collect::<Result<Vec<_>>>()?;
        ensure!(
            self.title.bytes().all(|b| matches!(b, b' '..=b'~')),
            "the image's title {:?} is not printable ASCII",
            self.title
        );
        template::render(
            "grub.cfg",
            TEMPLATE,
            Values {
                title: &self.title,
                timeout: self.timeout,
                loading: LOADER_MARK,
                kernel: esp::KERNEL,
                initramfs: esp::INITRAMFS,
                entries,
            },
        )
    }
}

/// `parameter` as one word of GRUB's shell. GRUB hands a word with spaces to the kernel in double quotes.
fn quote(parameter: &str) -> Result<String> {
    ensure!(
        !parameter.is_empty()
            && parameter.bytes().all(|b| matches!(b, b' '..=b'~'))
            && !parameter.contains(['"', '\\']),
        "the kernel parameter {parameter:?} is empty, or has a quote, a backslash, or what is not printable ASCII"
    );
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"=-_.,:/@%+".contains(&b);
    Ok(if parameter.bytes().all(plain) {
        parameter.to_owned()
    } else {
        format!("'{}'", parameter.replace('\'', r"'\''"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn menu() -> BootMenu {
        BootMenu {
            title: "gdsboot debian-13".to_owned(),
            timeout: DEFAULT_TIMEOUT,
            root: RootPlace::Partition(Uuid::from_u128(0x11111111_2222_3333_4444_5555aaaabbbb)),
            root_size: 182_456_320,
            root_sha256: "ab".repeat(32),
            report: Some(Uuid::from_u128(0x66666666_7777_8888_9999_0000ccccdddd)),
            parameters: ["intel_iommu=on", "panic=30", "dyndbg=file drivers/x.c +p", "a=$b;c"]
                .map(str::to_owned)
                .to_vec(),
        }
    }

    #[test]
    fn grub_cfg() {
        insta::assert_snapshot!(menu().grub_cfg().unwrap());
    }

    #[test]
    fn a_parameter_that_grub_or_the_kernel_would_read_otherwise_is_refused() {
        for bad in ["", "a\nb", "a\"b", "a\\b", "ü", "a\0"] {
            let menu = BootMenu { parameters: vec![bad.to_owned()], ..menu() };
            let error = menu.grub_cfg().unwrap_err().to_string();
            assert!(error.contains("the kernel parameter"), "{bad:?}: {error}");
        }
        assert_eq!(quote("it's").unwrap(), r"'it'\''s'");
    }

    #[test]
    fn a_wrong_hash_or_title_is_refused() {
        for hash in ["", "AB", &"AB".repeat(32), &"g".repeat(64)] {
            assert!(BootMenu { root_sha256: hash.to_owned(), ..menu() }.grub_cfg().is_err(), "{hash}");
        }
        assert!(BootMenu { title: "x\nreboot".to_owned(), ..menu() }.grub_cfg().is_err());
    }

    #[test]
    fn an_iso_names_its_volume_and_no_report_partition() {
        let menu = BootMenu { root: RootPlace::Iso("GDSBOOT_0".to_owned()), report: None, ..menu() };
        let parameters = menu.kernel_parameters(None).unwrap().join(" ");
        assert!(parameters.contains("gdsboot.root=ISO9660=GDSBOOT_0 gdsboot.root-size="), "{parameters}");
        assert!(!parameters.contains("gdsboot.report"), "{parameters}");
    }

    #[test]
    fn the_entry_that_starts_by_itself_obeys_the_settings_file() {
        let text = menu().grub_cfg().unwrap();
        let entries: Vec<_> = text.split("menuentry").skip(1).map(|e| e.contains("gdsboot.after=")).collect();
        assert_eq!(entries, [false, true, true]);
    }

    #[test]
    fn consoles_come_first_so_that_a_profile_can_name_another_last() {
        let parameters = menu().kernel_parameters(Some("hold")).unwrap();
        assert_eq!(parameters[..2], CONSOLES);
        assert_eq!(parameters.last().unwrap(), "gdsboot.after=hold");
    }
}
