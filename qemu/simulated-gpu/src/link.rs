//! A PCI Express link: how fast a lane is and how many there are.

use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::str::FromStr;

/// Speed and width, written as `32x16` (GT/s of a lane, lanes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    generation: u8,
    width: u8,
}

/// GT/s of a lane, from generation 1 on (PCI Express Base Specification, 7.5.3.6).
const SPEEDS: [&str; 6] = ["2.5", "5", "8", "16", "32", "64"];

impl Link {
    /// A link of generation 1 to 6 with 1, 2, 4, 8 or 16 lanes.
    ///
    /// # Errors
    /// Where there is no such link.
    pub fn new(generation: u8, width: u8) -> Result<Link> {
        if (1..=6).contains(&generation) && [1, 2, 4, 8, 16].contains(&width) {
            return Ok(Link { generation, width });
        }
        Err(wrong(&format!("generation {generation} with {width} lanes")))
    }

    /// The generation, which is also its number in the link registers: 1 is 2.5 GT/s, 5 is 32 GT/s.
    pub fn generation(self) -> u8 {
        self.generation
    }

    /// Lanes.
    pub fn width(self) -> u8 {
        self.width
    }

    /// Can a link that is capable of `self` train to `other`?
    pub fn reaches(self, other: Link) -> bool {
        other.generation <= self.generation && other.width <= self.width
    }

    /// The slowest that hardware falls back to, but for one lane: 2.5 GT/s, a quarter of the lanes.
    pub fn trained_down(self) -> Link {
        Link { generation: 1, width: (self.width / 4).max(1) }
    }
}

fn wrong(what: &str) -> Error {
    Error::new(
        format!("{what} is no PCI Express link"),
        "write the speed in GT/s (2.5, 5, 8, 16, 32, 64), x, and 1, 2, 4, 8 or 16 lanes: 32x16",
    )
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", SPEEDS[usize::from(self.generation) - 1], self.width)
    }
}

impl FromStr for Link {
    type Err = Error;

    fn from_str(text: &str) -> Result<Link> {
        let link = text.split_once('x').and_then(|(speed, width)| {
            let generation = SPEEDS.iter().position(|s| *s == speed)? + 1;
            Link::new(generation as u8, width.parse().ok()?).ok()
        });
        link.ok_or_else(|| wrong(&format!("{text:?}")))
    }
}

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Link, D::Error> {
        crate::model::parsed(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_and_shown() {
        for (text, generation, width) in [("2.5x4", 1, 4), ("32x16", 5, 16), ("64x1", 6, 1)] {
            let link: Link = text.parse().unwrap();
            assert_eq!(
                (link.generation(), link.width(), link.to_string().as_str()),
                (generation, width, text)
            );
        }
        for text in ["", "x", "32", "32x", "x16", "3x16", "32x3", "32x32", "32x0", "32 x 16"] {
            text.parse::<Link>().unwrap_err();
        }
    }

    #[test]
    fn a_link_reaches_what_is_not_faster_or_wider() {
        let link = |text: &str| text.parse::<Link>().unwrap();
        assert!(link("32x16").reaches(link("32x16")) && link("32x16").reaches(link("2.5x1")));
        assert!(!link("16x16").reaches(link("32x4")) && !link("32x4").reaches(link("16x16")));
        assert_eq!(link("32x16").trained_down(), link("2.5x4"));
        assert_eq!(link("2.5x1").trained_down(), link("2.5x1"));
    }
}
