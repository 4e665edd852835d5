//! Which ACPI tables the firmware hands over. Their names already say what the machine can do.

use super::{Fact, Root};
use serde::{Deserialize, Serialize};

/// The tables' names, such as `DMAR` (an Intel IOMMU), `IVRS` (one of AMD's), `VIOT` (a paravirtual one), `SRAT` (NUMA).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AcpiTables(pub Vec<String>);

impl AcpiTables {
    /// Reads them.
    pub fn read(root: &Root) -> Fact<Self> {
        root.list("/sys/firmware/acpi/tables").map(Self)
    }

    /// Is the table there? `None` where the folder holds too little to be sure: every machine with ACPI has a `FACP`.
    pub fn has(&self, name: &str) -> Option<bool> {
        if self.0.iter().any(|table| table == name) {
            Some(true)
        } else {
            self.0.iter().any(|table| table == "FACP").then_some(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_absent_only_from_a_whole_folder() {
        let tables = |names: &[&str]| AcpiTables(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(tables(&["DMAR"]).has("DMAR"), Some(true));
        assert_eq!(tables(&["FACP", "APIC"]).has("DMAR"), Some(false));
        assert_eq!(tables(&["SRAT"]).has("DMAR"), None);
    }
}
