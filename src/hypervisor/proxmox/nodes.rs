//! The guest's NUMA nodes, `numa` and `numa0` to `numa7`.

use super::options::{is_on, pairs, value};
use crate::hypervisor::machine::{Machine, Memory, Refused};
use std::collections::BTreeMap;

/// A guest has no more NUMA nodes (`$MAX_NUMA`).
pub const MOST_NODES: usize = 8;

/// The NUMA nodes that a guest is given, and what keeps Proxmox from starting it with them (qemu-server: Memory.pm, `config`,
/// `hugepages_size` and `hugepages_topology`).
#[derive(Default)]
pub(super) struct Nodes {
    /// Do the lines count?
    are_on: bool,
    /// Is memory added while the machine runs?
    hotplug: bool,
    /// The lines' keys and options, the last one of each.
    lines: BTreeMap<String, Vec<(String, String)>>,
}

impl Nodes {
    /// Takes notice of a line.
    pub(super) fn note(&mut self, key: &str, text: &str) {
        match key {
            "numa" => self.are_on = is_on(Some(text)),
            "hotplug" => self.hotplug = text.split(',').any(|what| what.trim() == "memory"),
            _ if (0..MOST_NODES).any(|number| key == format!("numa{number}")) => {
                self.lines.insert(key.to_owned(), pairs(text, ""));
            }
            _ => {}
        }
    }

    pub(super) fn apply(self, machine: &mut Machine) {
        machine.memory.numa_lines = self.lines.keys().cloned().collect();
        if self.are_on {
            self.bind(&mut machine.memory);
        }
        let pages = machine.memory.hugepages;
        let total = machine.memory.bytes.map(|bytes| bytes >> 20);
        let mut refuse =
            |why: String, mend: &str| machine.refused.push(Refused { why, mend: mend.to_owned() });
        if !self.are_on {
            let on = "switch NUMA on: qm set VMID -numa 1";
            if pages.is_some() {
                refuse("hugepages: they need numa: 1".into(), on);
            }
            if self.hotplug {
                refuse("hotplug: of memory it needs numa: 1".into(), on);
            }
            return;
        }
        if let (true, Some(key)) = (self.hotplug, self.lines.keys().next()) {
            refuse(
                format!("{key}: where memory is hotplugged it takes no such line"),
                "leave memory out of hotplug: qm set VMID -hotplug network,disk,usb",
            );
            return;
        }
        let mib = |options: &[(String, String)]| value(options, "memory").and_then(|size| size.parse().ok());
        for (key, options) in &self.lines {
            for word in ["cpus", "memory"].into_iter().filter(|word| value(options, word).is_none()) {
                refuse(
                    format!("{key}: it has no {word}"),
                    "give each numaN line its part of memory and CPUs",
                );
            }
            let hosts = value(options, "hostnodes");
            if hosts.is_some() && value(options, "policy").is_none() {
                refuse(format!("{key}: it has hostnodes and no policy"), "add policy=bind to the line");
            }
            let Some(page) = pages else { continue };
            let hosts = hosts.unwrap_or("");
            if hosts.len() != 1 || !hosts.bytes().all(|byte| byte.is_ascii_digit()) {
                refuse(
                    format!(
                        "{key}: with huge pages it takes one node of the host, 0 to 9, and here it has {hosts:?}"
                    ),
                    "give each node of the host a numaN of its own with its part of memory and CPUs, or leave the huge pages away",
                );
            }
            // Where any page will do, these are the smallest.
            let page = (page >> 20).max(2);
            if let Some(part) = mib(options).filter(|part: &u64| !part.is_multiple_of(page)) {
                refuse(
                    format!("{key}: its {part} MiB are no multiple of a page of {page} MiB"),
                    "let each numaN line have whole pages, or choose smaller ones: qm set VMID -hugepages 2",
                );
            }
        }
        let sum: Option<u64> =
            self.lines.values().map(|options| mib(options)).try_fold(0u64, |sum, mib| sum.checked_add(mib?));
        if let (false, Some(sum), Some(total)) = (self.lines.is_empty(), sum, total)
            && sum != total
        {
            refuse(
                format!("the numaN lines have {sum} MiB, and memory has {total}"),
                "let the sum of the numaN lines' memory be that of the machine",
            );
        }
    }

    /// The host's nodes to which the lines bind memory.
    fn bind(&self, memory: &mut Memory) {
        let bound = self.lines.values().filter(|options| value(options, "policy") == Some("bind"));
        bound.for_each(|options| memory.bind(value(options, "hostnodes").unwrap_or("")));
    }
}
