//! SMBIOS OEM strings (type 11), by which a hypervisor hands words to its guest (DMTF DSP0134, 7.12).

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
