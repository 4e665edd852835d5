//! The cluster's resource mappings, `/etc/pve/mapping/pci.cfg`.

use super::options::{pairs, value};
use crate::facts::Facts;
use crate::hypervisor::machine::address;
use std::collections::BTreeMap;

/// Resource mappings: by name, for each of their devices its addresses on the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    /// Were they read? Else a mapping may well be there.
    pub(super) is_read: bool,
    /// This node's name, where it is known.
    node: Option<String>,
    offers: BTreeMap<String, Vec<Mapped>>,
}

/// One device that a mapping offers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapped {
    /// The cluster's node that has it.
    node: String,
    /// Its addresses there, several functions with `;` in the file.
    paths: Vec<String>,
}

impl Mappings {
    /// Reads `pci.cfg`: a line `NAME` for each mapping, and indented lines `map id=...,node=...,path=...`. `node` is the node
    /// that starts the machine: it takes its own devices (PVE::Mapping::PCI, `find_on_current_node`).
    pub fn parse(text: &str, node: Option<&str>) -> Self {
        let mut offers: BTreeMap<String, Vec<Mapped>> = BTreeMap::new();
        let mut current = None;
        let is_said = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        for line in text.lines().filter(is_said) {
            if !line.starts_with([' ', '\t']) {
                current = Some(line.trim().to_owned());
                offers.entry(line.trim().to_owned()).or_default();
                continue;
            }
            let (Some(name), Some(rest)) = (&current, line.trim().strip_prefix("map ")) else { continue };
            let options = pairs(rest, "");
            let mapped = Mapped {
                node: value(&options, "node").unwrap_or("").to_owned(),
                paths: value(&options, "path").unwrap_or("").split(';').filter_map(address).collect(),
            };
            offers.entry(name.clone()).or_default().push(mapped);
        }
        Self { is_read: true, node: node.map(str::to_owned), offers }
    }

    /// The mappings that a host's report carries.
    pub fn of_host(host: &Facts) -> Self {
        let Some(vm) = host.hosted.value() else { return Self::default() };
        vm.mappings
            .value()
            .map_or_else(Self::default, |text| Self::parse(text, vm.node.value().map(String::as_str)))
    }

    /// The addresses that a mapping has on this node; on all nodes where this node is not known.
    pub(super) fn addresses(&self, name: &str) -> Vec<String> {
        let is_here = |offer: &&Mapped| self.node.as_ref().is_none_or(|node| *node == offer.node);
        let offers = self.offers.get(name).into_iter().flatten().filter(is_here);
        offers.flat_map(|offer| offer.paths.iter().cloned()).collect()
    }
}
