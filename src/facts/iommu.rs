//! IOMMUs and the groups that they part devices into, by what is in force and not by what was asked for on the command line
//! (Documentation/ABI/testing/sysfs-class-iommu, sysfs-kernel-iommu_groups).

use super::{Fact, Root};
use serde::{Deserialize, Serialize};

/// What stands between the devices and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Iommu {
    /// The IOMMUs that are switched on, as in `dmar0` or `ivhd0`; none where none is.
    pub units: Fact<Vec<String>>,
    /// The groups, ordered by number.
    pub groups: Fact<Vec<IommuGroup>>,
}

/// Devices that an IOMMU cannot tell apart, or that could reach each other behind its back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct IommuGroup {
    /// Its number.
    pub number: u32,
    /// `identity`: addresses pass as they are (`iommu=pt`). `DMA`, `DMA-FQ`: they are translated. `blocked`,
    /// `unmanaged`: given to a program, as to a virtual machine.
    pub kind: Fact<String>,
    /// The PCI addresses of its devices.
    pub devices: Fact<Vec<String>>,
}

impl Iommu {
    /// Reads all of it.
    pub fn read(root: &Root) -> Self {
        const GROUPS: &str = "/sys/kernel/iommu_groups";
        let groups = root.list(GROUPS).map(|names| {
            let mut groups: Vec<IommuGroup> = names
                .iter()
                .filter_map(|name| {
                    let number = name.parse().ok()?;
                    let kind = root.text(&format!("{GROUPS}/{name}/type"));
                    let devices = root.list(&format!("{GROUPS}/{name}/devices"));
                    Some(IommuGroup { number, kind, devices })
                })
                .collect();
            groups.sort_by_key(|group| group.number);
            groups
        });
        Self { units: root.list("/sys/class/iommu"), groups }
    }

    /// The group with this number.
    pub fn group(&self, number: u32) -> Option<&IommuGroup> {
        self.groups.value()?.iter().find(|group| group.number == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_ordered_by_number() {
        let dir = tempfile::tempdir().unwrap();
        let groups = dir.path().join("sys/kernel/iommu_groups");
        for (group, device) in [("10", "0000:02:00.0"), ("9", "0000:01:00.0"), ("x", "0000:03:00.0")] {
            fs_err::create_dir_all(groups.join(group).join("devices").join(device)).unwrap();
        }
        fs_err::write(groups.join("9/type"), "DMA-FQ\n").unwrap();
        let iommu = Iommu::read(&Root::at(dir.path()));
        let numbers: Vec<u32> = iommu.groups.value().unwrap().iter().map(|group| group.number).collect();
        assert_eq!(numbers, [9, 10]);
        let group = iommu.group(9).unwrap();
        assert_eq!(group.kind.value().unwrap(), "DMA-FQ");
        assert_eq!(group.devices.value().unwrap(), &["0000:01:00.0"]);
        assert!(matches!(iommu.group(10).unwrap().kind, Fact::Missing { .. }));
        assert!(matches!(iommu.units, Fact::Missing { .. }));
    }
}
