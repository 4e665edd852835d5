//! Memory, from `/proc/meminfo`, and the NUMA nodes that it lies on.

use super::{Fact, Root};
use serde::{Deserialize, Serialize};

/// How much memory there is. All sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Memory {
    /// What the kernel manages.
    pub total: u64,
    /// What a program could get without swapping.
    pub available: Option<u64>,
    /// Huge pages of the default size that are reserved, by number.
    pub huge_pages: u64,
    /// Those of them that nobody uses.
    pub huge_pages_free: Option<u64>,
    /// The default size of a huge page.
    pub huge_page_size: Option<u64>,
}

impl Memory {
    /// Reads it.
    pub fn read(root: &Root) -> Fact<Self> {
        root.parse("/proc/meminfo", Self::parse)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let number = |key: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            let mut words = line.split_ascii_whitespace();
            let number: u64 = words.next()?.parse().ok()?;
            // Sizes are in KiB, whatever "kB" says; counts have no unit.
            if words.next() == Some("kB") { number.checked_mul(1024) } else { Some(number) }
        };
        Ok(Self {
            total: number("MemTotal").ok_or("no MemTotal")?,
            available: number("MemAvailable"),
            huge_pages: number("HugePages_Total").unwrap_or(0),
            huge_pages_free: number("HugePages_Free"),
            huge_page_size: number("Hugepagesize"),
        })
    }
}

/// The numbers of the NUMA nodes, ascending; missing where the kernel knows none.
pub fn read_nodes(root: &Root) -> Fact<Vec<u32>> {
    root.list("/sys/devices/system/node").map(|names| {
        let mut nodes: Vec<u32> =
            names.iter().filter_map(|name| name.strip_prefix("node")?.parse().ok()).collect();
        nodes.sort_unstable();
        nodes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["node10", "node2", "node", "possible", "nodex"] {
            fs_err::create_dir_all(dir.path().join("sys/devices/system/node").join(name)).unwrap();
        }
        assert_eq!(read_nodes(&Root::at(dir.path())).value().unwrap(), &[2, 10]);
        assert!(matches!(read_nodes(&Root::at("/nowhere")), Fact::Missing { .. }));
    }

    #[test]
    fn sizes_are_in_kibibytes_and_counts_are_not() {
        let text = "MemTotal:        2014028 kB\nMemAvailable:    1900000 kB\nHugePages_Total:       4\n\
                    HugePages_Free: 1\nHugepagesize:       2048 kB\n";
        let expected = Memory {
            total: 2_014_028 * 1024,
            available: Some(1_900_000 * 1024),
            huge_pages: 4,
            huge_pages_free: Some(1),
            huge_page_size: Some(2 << 20),
        };
        assert_eq!(Memory::parse(text), Ok(expected));
    }

    #[test]
    fn a_total_that_is_no_number_is_malformed() {
        assert!(Memory::parse("MemTotal: lots kB").is_err());
        assert!(Memory::parse("MemTotal: 99999999999999999999 kB").is_err());
        assert!(Memory::parse("MemTotal: 18446744073709551615 kB").is_err());
    }
}
