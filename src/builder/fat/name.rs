//! File names on FAT: which are refused, the short name that stands in for a long one, and the long name's slots.
//!
//! Only printable ASCII is taken: everything on our partitions is named by us, and case folding beyond ASCII differs
//! between firmware, GRUB, Linux and Windows. Rules: Microsoft, "FAT: General Overview of On-Disk Format" 1.03,
//! "FAT Long Directory Entries"; and the names that Windows reserves for devices.

use anyhow::{Result, bail, ensure};
use std::collections::BTreeSet;

/// The 8+3 characters of a short directory entry, padded with spaces, without the dot.
pub type ShortName = [u8; 11];

const FORBIDDEN: &[u8] = b"\"*/:<>?\\|";
/// Allowed in long names only; `_` stands for them in the short one.
const LONG_ONLY: &[u8] = b"+,;=[] ";
const DEVICES: [&str; 4] = ["CON", "PRN", "AUX", "NUL"];
const NUMBERED_DEVICES: [&str; 2] = ["COM", "LPT"];

/// Refuses a name (one component of a path) that FAT or Windows cannot hold.
pub fn check(name: &str) -> Result<()> {
    ensure!(!name.is_empty(), "an empty name");
    ensure!(name != "." && name != "..", "{name:?} leads elsewhere");
    ensure!(name.len() <= 255, "a name of {} characters; FAT holds 255", name.len());
    if let Some(bad) =
        name.chars().find(|&c| !matches!(c, ' '..='~') || FORBIDDEN.iter().any(|&f| char::from(f) == c))
    {
        bail!("{name:?} has the character {bad:?}");
    }
    ensure!(
        !name.ends_with(['.', ' ']) && !name.starts_with(' '),
        "{name:?} begins or ends with a space or dot"
    );
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let device = DEVICES.contains(&stem.as_str())
        || NUMBERED_DEVICES.iter().any(|device| {
            stem.strip_prefix(device).is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit())
        });
    ensure!(!device, "{name:?} is a device's name on Windows");
    Ok(())
}

/// `name` as a short entry, where it is one already: upper case, 8.3, nothing that only long names may hold.
pub fn exact_short(name: &str) -> Option<ShortName> {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let fits = |part: &str, most: usize| {
        part.len() <= most
            && part.bytes().all(|b| !b.is_ascii_lowercase() && b != b'.' && !LONG_ONLY.contains(&b))
    };
    if stem.is_empty()
        || !fits(stem, 8)
        || !fits(extension, 3)
        || (extension.is_empty() && name.contains('.'))
    {
        return None;
    }
    Some(pad(stem.as_bytes(), extension.as_bytes()))
}

/// A short name for the long `name` that is not in `taken` yet: the same letters where only their case is lost, else
/// `LONGNA~1.EXT` with the first free number.
pub fn alias(name: &str, taken: &BTreeSet<ShortName>) -> Result<ShortName> {
    let upper = name.to_ascii_uppercase();
    if let Some(short) = exact_short(&upper)
        && !taken.contains(&short)
    {
        return Ok(short);
    }
    let trimmed = upper.trim_start_matches('.');
    let (stem, extension) = trimmed.rsplit_once('.').unwrap_or((trimmed, ""));
    let clean = |part: &str, most: usize| -> Vec<u8> {
        part.bytes()
            .filter(|b| !matches!(b, b'.' | b' '))
            .map(|b| if LONG_ONLY.contains(&b) { b'_' } else { b })
            .take(most)
            .collect()
    };
    let (stem, extension) = (clean(stem, 8), clean(extension, 3));
    for number in 1..1_000_000u32 {
        let tail = format!("~{number}");
        let mut numbered = stem[..stem.len().min(8 - tail.len())].to_vec();
        numbered.extend_from_slice(tail.as_bytes());
        let short = pad(&numbered, &extension);
        if !taken.contains(&short) {
            return Ok(short);
        }
    }
    bail!("too many names like {name:?} in one folder")
}

/// How many 32-byte directory entries `name` takes, its short entry included.
pub fn slots(name: &str) -> u64 {
    if exact_short(name).is_some() { 1 } else { 1 + name.len().div_ceil(UNITS) as u64 }
}

const UNITS: usize = 13;

/// The long-name entries that stand before `short` in a directory, in the order in which they stand there.
pub fn long_entries(name: &str, short: &ShortName) -> Vec<[u8; 32]> {
    let checksum = short.iter().fold(0u8, |sum, &b| sum.rotate_right(1).wrapping_add(b));
    let units: Vec<u16> = name.encode_utf16().collect();
    let mut entries: Vec<[u8; 32]> = Vec::new();
    for (index, part) in units.chunks(UNITS).enumerate() {
        let mut entry = [0u8; 32];
        entry[0] = index as u8 + 1;
        entry[11] = 0x0f;
        entry[13] = checksum;
        for slot in 0..UNITS {
            let unit = match slot {
                s if s < part.len() => part[s],
                s if s == part.len() => 0,
                _ => 0xffff,
            };
            let at = match slot {
                0..5 => 1 + 2 * slot,
                5..11 => 14 + 2 * (slot - 5),
                _ => 28 + 2 * (slot - 11),
            };
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        entries.push(entry);
    }
    if let Some(last) = entries.last_mut() {
        last[0] |= 0x40;
    }
    entries.reverse();
    entries
}

fn pad(stem: &[u8], extension: &[u8]) -> ShortName {
    let mut short = [b' '; 11];
    short[..stem.len()].copy_from_slice(stem);
    short[8..8 + extension.len()].copy_from_slice(extension);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fat_or_windows_cannot_hold_are_refused() {
        for bad in [
            "", ".", "..", "a:b", "a\\b", "a/b", "what?", "tab\t", "umläut", "trail.", "trail ", " lead",
            "nul", "CON.txt", "com1", "Lpt9.log", "a\0b",
        ] {
            assert!(check(bad).is_err(), "{bad:?} was taken");
        }
        assert!(check(&"x".repeat(256)).is_err());
        for good in ["EFI", "grub.cfg", "a b+c", ".hidden", "console", "common", "lpt", "com10", "nullified"]
        {
            assert!(check(good).is_ok(), "{good:?} was refused: {:?}", check(good));
        }
    }

    #[test]
    fn short_names() {
        let text = |short: ShortName| String::from_utf8_lossy(&short).into_owned();
        let none = BTreeSet::new();
        assert_eq!(exact_short("BOOTX64.EFI").map(text).as_deref(), Some("BOOTX64 EFI"));
        assert_eq!(exact_short("EFI").map(text).as_deref(), Some("EFI        "));
        for long in ["grub.cfg", "A.B.C", "LONGERTHAN8", "A.LONG", ".X", "X.", "A B", "A+B"] {
            assert_eq!(exact_short(long), None, "{long}");
        }
        assert_eq!(text(alias("grub.cfg", &none).unwrap()), "GRUB    CFG");
        assert_eq!(text(alias("manifest.json", &none).unwrap()), "MANIFE~1JSO");
        assert_eq!(text(alias("a b+c.x", &none).unwrap()), "AB_C~1  X  ");
        assert_eq!(text(alias(".profile", &none).unwrap()), "PROFIL~1   ");
        let taken = BTreeSet::from([*b"MANIFE~1JSO", *b"GRUB    CFG"]);
        assert_eq!(text(alias("manifest.json", &taken).unwrap()), "MANIFE~2JSO");
        assert_eq!(text(alias("grub.cfg", &taken).unwrap()), "GRUB~1  CFG");
    }

    #[test]
    fn long_entries_carry_the_name_backwards() {
        let short = alias("manifest-of-it.json", &BTreeSet::new()).unwrap();
        let entries = long_entries("manifest-of-it.json", &short);
        assert_eq!(entries.len() as u64 + 1, slots("manifest-of-it.json"));
        assert_eq!((entries[0][0], entries[1][0]), (0x42, 1));
        assert_eq!(&entries[1][1..11], b"m\0a\0n\0i\0f\0");
        // Six characters are left for the second entry: `t.json`, a terminator, then padding.
        assert_eq!(&entries[0][1..11], b"t\0.\0j\0s\0o\0");
        assert_eq!(&entries[0][14..20], b"n\0\0\0\xff\xff");
        // A name that fills its entries exactly has no terminator.
        assert_eq!(long_entries("thirteen-char", &short)[0][28..32], *b"a\0r\0");
    }
}
