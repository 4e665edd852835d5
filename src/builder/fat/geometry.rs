//! Where things are on a FAT volume, and which cluster size a volume of some size gets.

use anyhow::{Context as _, Result};

/// Bytes in a sector.
pub const SECTOR: u64 = 512;
/// Bytes in a directory entry.
pub const ENTRY: u64 = 32;
/// Entries in the root directory of FAT16, which cannot grow.
pub const FAT16_ROOT_ENTRIES: u64 = 512;
/// The specification asks to stay away from the limits, because much code is off by a few.
const MARGIN: u64 = 16;

/// Which FAT; it is the number of clusters that tells them apart, so each has a smallest and a largest volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 4,085 to 65,524 clusters.
    Fat16,
    /// 65,525 clusters and more.
    Fat32,
}

impl Kind {
    fn clusters(self) -> std::ops::Range<u64> {
        match self {
            Self::Fat16 => 4085 + MARGIN..65525 - MARGIN,
            Self::Fat32 => 65525 + MARGIN..0x0fff_fff5 - MARGIN,
        }
    }

    fn entry_bytes(self) -> u64 {
        match self {
            Self::Fat16 => 2,
            Self::Fat32 => 4,
        }
    }
}

/// Where things are on a volume; all numbers in sectors of 512 bytes unless they say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// FAT16 or FAT32.
    pub kind: Kind,
    /// The whole volume.
    pub sectors: u32,
    /// One cluster.
    pub cluster: u8,
    /// Before the first FAT. Chosen so that the data begin on 4 KiB.
    pub reserved: u16,
    /// Each of the two FATs.
    pub fat: u32,
    /// Number of clusters.
    pub clusters: u32,
}

impl Geometry {
    /// The geometry of a volume of `bytes`. Cluster sizes are Windows' own for FAT32, so that a technician who formats
    /// it again gets the same; 4 KiB for FAT16 where that is possible.
    pub fn new(kind: Kind, bytes: u64) -> Result<Self> {
        let sectors = u32::try_from(bytes / SECTOR).context("FAT ends at 2 TiB")?;
        let mib = bytes >> 20;
        let mut cluster = match kind {
            Kind::Fat16 => 8,
            Kind::Fat32 => match mib {
                ..=64 => 1,
                65..=128 => 2,
                129..=256 => 4,
                257..=8192 => 8,
                8193..=16384 => 16,
                16385..=32768 => 32,
                _ => 64,
            },
        };
        let range = kind.clusters();
        let mut made = Self::with_cluster(kind, sectors, cluster);
        while made.is_none_or(|g| u64::from(g.clusters) < range.start) && cluster > 1 {
            cluster /= 2;
            made = Self::with_cluster(kind, sectors, cluster);
        }
        while made.is_some_and(|g| u64::from(g.clusters) >= range.end) && cluster < 64 {
            cluster *= 2;
            made = Self::with_cluster(kind, sectors, cluster);
        }
        made.filter(|g| range.contains(&u64::from(g.clusters)))
            .with_context(|| format!("a volume of {mib} MiB cannot be {kind:?}"))
    }

    fn with_cluster(kind: Kind, sectors: u32, cluster: u8) -> Option<Self> {
        let root = Self::root_sectors(kind);
        let reserved = match kind {
            Kind::Fat16 => 1,
            Kind::Fat32 => 32,
        };
        let rest = u64::from(sectors).checked_sub(reserved + root)?;
        // Counts the FATs themselves as data, so it is at most a few sectors too large.
        let fat = ((rest / u64::from(cluster) + 2) * kind.entry_bytes()).div_ceil(SECTOR);
        let reserved = reserved + (8 - (reserved + 2 * fat + root) % 8) % 8;
        let data = u64::from(sectors).checked_sub(reserved + 2 * fat + root)?;
        Some(Self {
            kind,
            sectors,
            cluster,
            reserved: u16::try_from(reserved).ok()?,
            fat: u32::try_from(fat).ok()?,
            clusters: u32::try_from(data / u64::from(cluster)).ok()?,
        })
    }

    fn root_sectors(kind: Kind) -> u64 {
        match kind {
            Kind::Fat16 => FAT16_ROOT_ENTRIES * ENTRY / SECTOR,
            Kind::Fat32 => 0,
        }
    }

    /// Bytes in a cluster.
    pub fn cluster_bytes(&self) -> u64 {
        u64::from(self.cluster) * SECTOR
    }

    /// Byte at which FAT16 keeps its root directory, and where FAT32's data begin.
    pub fn root_start(&self) -> u64 {
        (u64::from(self.reserved) + 2 * u64::from(self.fat)) * SECTOR
    }

    /// Byte at which a cluster begins.
    pub fn cluster_start(&self, cluster: u32) -> u64 {
        self.root_start()
            + Self::root_sectors(self.kind) * SECTOR
            + (u64::from(cluster) - 2) * self.cluster_bytes()
    }
}
