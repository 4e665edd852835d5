//! SBAT: the generation numbers in a signed loader by which shim decides whether it has been revoked.
//!
//! A loader says `component,generation,vendor,...`, one per line, in its PE section `.sbat`; shim refuses one whose
//! generation of any component is below the machine's SbatLevel, and the machine then boots nowhere under Secure Boot.
//! Formats: shim's SBAT.md and SbatLevel_Variable.txt; Microsoft, "PE Format".

use crate::error::hinted;
use anyhow::{Context as _, Result, bail, ensure};

/// One line of a loader's SBAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Such as `grub`, `shim`, `grub.debian13`.
    pub name: String,
    /// Rises with every revocation.
    pub generation: u32,
}

/// A real `.sbat` section has a few hundred bytes.
const SECTION_MOST: usize = 64 << 10;
/// The Windows loader's own limit.
const SECTIONS_MOST: u16 = 96;

/// Reads the `.sbat` section of the PE image `pe`.
pub fn read(pe: &[u8]) -> Result<Vec<Component>> {
    ensure!(pe.starts_with(b"MZ"), "not a PE image: it does not begin with MZ");
    let header = u32_at(pe, 0x3c)? as usize;
    ensure!(slice(pe, header, 4)? == b"PE\0\0", "not a PE image: no PE header at {header:#x}");
    let sections = u16_at(pe, header.saturating_add(6))?;
    ensure!(sections <= SECTIONS_MOST, "a PE image with {sections} sections");
    let optional = u16_at(pe, header.saturating_add(20))? as usize;
    let table = header.saturating_add(24).saturating_add(optional);
    for index in 0..usize::from(sections) {
        let section = slice(pe, table.saturating_add(index * 40), 40)?;
        if &section[..8] == b".sbat\0\0\0" {
            // The file holds the section padded; the size in memory is the true one, where it is given.
            let (memory, file) = (u32_at(section, 8)? as usize, u32_at(section, 16)? as usize);
            let length = if memory == 0 { file } else { memory.min(file) };
            ensure!(length <= SECTION_MOST, "a .sbat section of {length} bytes");
            return parse(slice(pe, u32_at(section, 20)? as usize, length)?);
        }
    }
    bail!("no .sbat section: shim refuses a loader without one")
}

/// Parses the text of a `.sbat` section; NULs after it are padding.
pub fn parse(section: &[u8]) -> Result<Vec<Component>> {
    let end = section.iter().position(|b| *b == 0).unwrap_or(section.len());
    ensure!(section[end..].iter().all(|b| *b == 0), "the .sbat section goes on after a NUL");
    let text = std::str::from_utf8(&section[..end]).context("the .sbat section is not text")?;
    let mut components = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut fields = line.split(',');
        let name = fields.next().unwrap_or_default();
        let generation = fields.next().unwrap_or_default();
        ensure!(!name.is_empty(), "a line of .sbat without a component: {line:?}");
        let generation = generation
            .parse()
            .with_context(|| format!("component {name:?} of .sbat has the generation {generation:?}"))?;
        components.push(Component { name: name.to_owned(), generation });
    }
    ensure!(!components.is_empty(), "an empty .sbat section");
    Ok(components)
}

/// Refuses a loader whose `component` is older than `least`. `path` names it in the error.
pub fn require(components: &[Component], component: &str, least: u32, path: &str) -> Result<()> {
    let found = components.iter().filter(|c| c.name == component).map(|c| c.generation).min();
    match found {
        Some(generation) if generation >= least => Ok(()),
        found => {
            let found = found.map_or("none".to_owned(), |generation| generation.to_string());
            Err(hinted(
                format!("{path} has SBAT generation {found} of {component}; {least} is needed"),
                "shim on machines with current revocations refuses it under Secure Boot: take the package from the \
                 suite's updates and renew the lock (gdsboot lock --update)",
            ))
        }
    }
}

fn slice(bytes: &[u8], at: usize, length: usize) -> Result<&[u8]> {
    at.checked_add(length)
        .and_then(|end| bytes.get(at..end))
        .with_context(|| format!("a PE image that ends before byte {at:#x} + {length}"))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(slice(bytes, at, 2)?.try_into()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(slice(bytes, at, 4)?.try_into()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::error::hint_of;
    use proptest::prelude::*;

    const DEBIAN: &str = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n\
        grub,5,Free Software Foundation,grub,2.12,https://www.gnu.org/software/grub/\n\
        grub.debian,5,Debian,grub2,2.12-9,https://tracker.debian.org/pkg/grub2\n";

    /// A PE image with nothing but a `.text` and a `.sbat` section.
    pub fn pe(sbat: &[u8]) -> Vec<u8> {
        let mut pe = vec![0; 0x200];
        pe[..2].copy_from_slice(b"MZ");
        pe[0x3c] = 0x80;
        pe[0x80..0x84].copy_from_slice(b"PE\0\0");
        pe[0x86] = 2;
        pe[0x94] = 16;
        let table = 0x80 + 24 + 16;
        pe[table..table + 5].copy_from_slice(b".text");
        let at = table + 40;
        pe[at..at + 5].copy_from_slice(b".sbat");
        pe[at + 8..at + 12].copy_from_slice(&(sbat.len() as u32).to_le_bytes());
        let padded = sbat.len().next_multiple_of(512);
        pe[at + 16..at + 20].copy_from_slice(&(padded as u32).to_le_bytes());
        pe[at + 20..at + 24].copy_from_slice(&0x200u32.to_le_bytes());
        pe.extend_from_slice(sbat);
        pe.resize(0x200 + padded, 0);
        pe
    }

    #[test]
    fn generations_are_read_and_compared() {
        let found = read(&pe(DEBIAN.as_bytes())).unwrap();
        let pairs: Vec<_> = found.iter().map(|c| (c.name.as_str(), c.generation)).collect();
        assert_eq!(pairs, [("sbat", 1), ("grub", 5), ("grub.debian", 5)]);
        require(&found, "grub", 5, "grubx64.efi").unwrap();
        let error = require(&found, "grub", 6, "grubx64.efi").unwrap_err();
        assert_eq!(error.to_string(), "grubx64.efi has SBAT generation 5 of grub; 6 is needed");
        assert!(hint_of(&error).is_some_and(|hint| hint.contains("lock --update")));
        let error = require(&found, "shim", 4, "x").unwrap_err().to_string();
        assert_eq!(error, "x has SBAT generation none of shim; 4 is needed");
    }

    #[test]
    fn the_lowest_generation_counts_where_a_component_is_named_twice() {
        let found = parse(b"grub,5,\ngrub,3,\n").unwrap();
        assert!(require(&found, "grub", 5, "x").is_err());
    }

    #[test]
    fn what_is_no_sbat_is_refused_with_a_reason() {
        let whole = pe(DEBIAN.as_bytes());
        let reason = |bytes: &[u8]| format!("{:#}", read(bytes).unwrap_err());
        assert!(reason(b"").contains("not a PE image"));
        assert!(reason(b"\x7fELF").contains("not a PE image"));
        assert!(reason(&whole[..0x40]).contains("ends before"));
        assert!(reason(&whole[..0x210]).contains("ends before"));
        let mut other = whole.clone();
        other[0xa8 + 41] = b'x';
        assert!(reason(&other).contains("no .sbat section"));
        let mut far = whole.clone();
        far[0x3c..0x40].fill(0xff);
        assert!(reason(&far).contains("ends before"));
        let mut many = whole;
        many[0x87] = 0xff;
        assert!(reason(&many).contains("sections"));
        assert!(reason(&pe(&vec![b'a'; 100_000])).contains("100000 bytes"));
        for (text, why) in [
            (&b""[..], "empty"),
            (b"\0\0\0", "empty"),
            (b"grub", "generation \"\""),
            (b"grub,-1", "generation \"-1\""),
            (b"grub,99999999999", "generation"),
            (b",1,x", "without a component"),
            (b"grub,1\0grub,9", "after a NUL"),
            (b"\xff\xfe,1", "not text"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = read(&bytes);
            let _ = parse(&bytes);
        }

        #[test]
        fn no_damage_makes_it_panic_or_read_other_components(at in 0usize..0x200, value: u8) {
            let mut damaged = pe(DEBIAN.as_bytes());
            damaged[at] = value;
            if let Ok(found) = read(&damaged) {
                // Damaged headers may cut the text, never invent a generation that is not in the file.
                prop_assert!(found.iter().all(|c| c.generation <= 5));
            }
        }
    }
}
