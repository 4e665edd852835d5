//! Sizes as people write them: a number with K, M, G or T, powers of 1024.

use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::str::FromStr;

/// The size of a window in bytes: a power of two, as PCI demands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

impl Size {
    /// A size in bytes.
    ///
    /// # Errors
    /// Where it is no power of two, or so small that the window could not be told from its type bits (16 bytes).
    pub fn new(bytes: u64) -> Result<Size> {
        if bytes.is_power_of_two() && bytes >= 16 {
            return Ok(Size(bytes));
        }
        let (message, hint) =
            (format!("{bytes} bytes are no size of a PCI window"), "powers of two from 16 on are");
        Err(Error::new(message, hint))
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    pub(crate) const fn mib(mib: u64) -> Size {
        Size(mib << 20)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().rev().find(|(_, shift)| self.0 >> shift > 0);
        match unit {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Size> {
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(*unit));
        let (digits, shift) = unit.map_or((text, 0), |(_, shift)| (&text[..text.len() - 1], *shift));
        // `parse` would take a sign.
        let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
        let bytes = number.and_then(|number| number.checked_mul(1 << shift));
        let wrong =
            || Error::new(format!("{text:?} is no size"), "write a number and K, M, G or T: 256M, 64G");
        Size::new(bytes.ok_or_else(wrong)?)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Size, D::Error> {
        crate::model::parsed(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in
            [("16", 16), ("16K", 1 << 14), ("256M", 1 << 28), ("128G", 1 << 37), ("1T", 1 << 40)]
        {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, text));
        }
        assert_eq!("1024M".parse::<Size>().unwrap().to_string(), "1G");
    }

    #[test]
    fn what_is_no_size_of_a_window_is_refused() {
        for text in
            ["", "G", "3G", "0", "8", "-1G", "+1G", "1g", "1GiB", "99999999999999999999", "17179869184G"]
        {
            text.parse::<Size>().unwrap_err();
        }
    }
}
