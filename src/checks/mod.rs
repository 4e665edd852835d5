//! Judges facts. Pure: no I/O, the same answer for the same facts on any machine.
//!
//! | file | what it is about |
//! |---|---|
//! | [`check`] | what a check is, and what it answers |
//! | [`context`] | what a check sees |
//! | [`judge`] | from facts to findings and a verdict |
//! | [`platform`] | what the kernel runs on |
//! | [`devices`] | GPUs and NVMe controllers: there, placed, linked, healthy |
//! | [`each`] | one rule over several devices |
//! | [`virtual_machine`] | the machine around a guest |
//! | [`iommu`] | IOMMU and ACS, whose rules invert by side |
//! | [`topology`] | how near GPUs and NVMe controllers are, and what p2pdma makes of it |
//! | [`power`] | asleep or awake, and can it be reset |
//! | [`kernel`] | does the kernel take modules |
//! | [`gpu_start`] | does the driver find, claim and start the GPUs |
//! | [`driver`] | NVIDIA's driver: loaded, and fitting its libraries |
//! | [`nvidia_fs`], [`p2pdma`] | the pieces of the two direct routes |
//! | [`storage`] | filesystem, device-mapper, RAID, the drives' health |
//! | [`cufile`] | libcufile, and what its settings exclude |
//! | [`gds`] | cuFile, gdscheck, a hypervisor's logs |
//! | [`routes`] | the two direct routes and their pieces |
//! | [`transfers`] | what transfers prove: that they were made, that data is right, by which route |
//! | [`throughput`], [`published`] | how fast they were, against the machine's own ceilings and what is published |
//! | [`waiver`] | findings that somebody decided to live with |

#[cfg(test)]
mod captured;
pub mod check;
#[cfg(test)]
mod complete;
pub mod context;
#[cfg(test)]
mod coverage;
pub mod cufile;
pub mod devices;
pub mod driver;
pub mod each;
pub mod gds;
pub mod gpu_start;
pub mod host;
pub mod iommu;
pub mod judge;
pub mod kernel;
pub mod nvidia_fs;
pub mod p2pdma;
#[cfg(test)]
mod passthrough_cases;
pub mod platform;
pub mod power;
pub mod published;
pub mod routes;
pub(crate) mod said;
#[cfg(test)]
mod signatures;
#[cfg(test)]
mod software_cases;
pub mod storage;
#[cfg(test)]
pub(crate) mod testing;
pub mod throughput;
pub mod topology;
pub mod transfers;
pub mod virtual_machine;
pub mod waiver;

use check::Check;

/// The register: all checks, causes before what follows from them.
const REGISTER: &[&[Check]] = &[
    platform::CHECKS,
    virtual_machine::MACHINE,
    devices::CHECKS,
    power::CHECKS,
    virtual_machine::CHECKS,
    iommu::CHECKS,
    topology::CHECKS,
    kernel::CHECKS,
    gpu_start::CHECKS,
    driver::CHECKS,
    nvidia_fs::CHECKS,
    p2pdma::CHECKS,
    host::CHECKS,
    storage::CHECKS,
    gds::SETTINGS,
    cufile::CHECKS,
    gds::CHECKS,
    transfers::CHECKS,
    throughput::CHECKS,
];

/// All checks in the register's order.
pub fn all() -> impl Iterator<Item = &'static Check> {
    REGISTER.iter().copied().flatten()
}

/// The check called `id`.
pub fn find(id: &str) -> Option<&'static Check> {
    all().find(|check| check.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique_words_and_prerequisites_come_before() {
        let mut seen = HashSet::new();
        for check in all() {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
            assert!(check.id.contains('.') && check.id.chars().all(plain), "{}", check.id);
            for required in check.requires {
                assert!(
                    seen.contains(required),
                    "{} requires {required}, which does not come before it",
                    check.id
                );
            }
            assert!(seen.insert(check.id), "{} is there twice", check.id);
            assert!(!check.sides.is_empty() && !check.rationale.is_empty(), "{}", check.id);
            assert!(!check.covers.is_empty() && !check.references.is_empty(), "{}", check.id);
        }
        for subject in judge::SUBJECTS {
            assert!(find(subject).is_some());
        }
    }
}
