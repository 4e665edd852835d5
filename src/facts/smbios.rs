//! SMBIOS OEM strings (type 11), by which a hypervisor hands words to its guest (DMTF DSP0134, 7.12).

use super::{Fact, Root};

/// How strings begin that tell of the host's topology (docs/vm.md).
pub const FROM_HOST: &str = "gdsboot.host=";

const ENTRIES: &str = "/sys/firmware/dmi/entries";

/// The strings of each structure; only root may read them.
pub fn read_all(root: &Root) -> Vec<Fact<Vec<String>>> {
    let entries = root.list(ENTRIES);
    let entries = entries.value().into_iter().flatten().filter(|entry| entry.starts_with("11-"));
    entries
        .map(|entry| root.bytes(&format!("{ENTRIES}/{entry}/raw")).parse(|raw| oem_strings(&raw)))
        .collect()
}

/// What the hypervisor tells of the host; missing where it tells nothing.
pub fn from_host(root: &Root) -> Fact<Vec<String>> {
    let mut told = Vec::new();
    for entry in read_all(root) {
        match entry {
            Fact::Known { value, .. } => told.extend(value.into_iter().filter(|s| s.starts_with(FROM_HOST))),
            unreadable => return unreadable,
        }
    }
    if told.is_empty() { Fact::Missing { from: ENTRIES.into() } } else { Fact::known(ENTRIES, told) }
}

/// The strings of one raw structure: a formatted area as long as its second byte says, then strings that end with NUL,
/// then one more NUL.
pub fn oem_strings(raw: &[u8]) -> Result<Vec<String>, String> {
    let [kind, length, _, _, count, ..] = *raw else { return Err("shorter than its head".into()) };
    if kind != 11 {
        return Err(format!("type {kind}, and not 11"));
    }
    if length < 5 {
        return Err(format!("a head of {length} bytes"));
    }
    let strings = raw.get(usize::from(length)..).ok_or("shorter than it says")?;
    let strings = strings.split(|byte| *byte == 0).take(usize::from(count));
    Ok(strings.filter(|string| !string.is_empty()).map(|s| String::from_utf8_lossy(s).into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_strings() {
        let raw = b"\x0b\x05\x00\x0e\x02gdsboot.after=hold\0other\0\0";
        assert_eq!(oem_strings(raw).unwrap(), ["gdsboot.after=hold", "other"]);
    }

    #[test]
    fn damaged_structures_are_errors_or_shorter() {
        assert!(oem_strings(b"").is_err());
        assert!(oem_strings(b"\x01\x05\x00\x0e\x02a\0\0").is_err());
        assert!(oem_strings(b"\x0b\xff\x00\x0e\x02a\0\0").is_err());
        assert_eq!(oem_strings(b"\x0b\x05\x00\x0e\xffa\0\0").unwrap(), ["a"]);
        assert!(oem_strings(b"\x0b\x00\x00\x0e\x01").is_err());
    }
}
