//! What the kernel runs on.

use super::check::{ANYWHERE, Check, Outcome, Remedy, Severity, Who};
use super::context::Context;

/// The checks of this file.
pub const CHECKS: &[Check] = &[Check {
    id: "platform.wsl",
    title: "Linux has the devices to itself",
    sides: ANYWHERE,
    requires: &[],
    severity: Severity::Blocker,
    rationale: "Under the Windows Subsystem for Linux GPU and drives belong to Windows: there is no PCI device to transfer to, no \
                kernel module of NVIDIA's, and cuFile copies by the CPU.",
    references: &["CUDA on WSL user guide: features not yet supported", "cucim pull request 106"],
    covers: &["guide: possible routes"],
    run: wsl,
}];

fn wsl(context: &Context<'_>) -> Outcome {
    let kernel = &context.facts.kernel;
    let Some(release) = kernel.release.value().or(kernel.version.value()) else {
        return Outcome::unknown("which kernel runs cannot be seen");
    };
    if !release.to_ascii_lowercase().contains("microsoft") {
        return Outcome::pass("it is not the Windows Subsystem for Linux");
    }
    Outcome::fail("this is the Windows Subsystem for Linux, where GPU and drives belong to Windows: no direct route exists")
        .expected("Linux on the machine itself, or in a virtual machine that was given GPU and drive")
        .actual(release.clone())
        .evidence("/proc/sys/kernel/osrelease", release.clone())
        .remedy(Remedy::new(Who::Guest, "start Linux itself on this machine, from a disk or a USB stick"))
        .remedy(Remedy::new(
            Who::Hypervisor,
            "or give GPU and NVMe controller to a virtual machine, by Discrete Device Assignment or on another hypervisor",
        ))
}

#[cfg(test)]
mod tests {
    use crate::checks::check::{Answer, Side};
    use crate::checks::testing::{answer, good};
    use crate::facts::{Fact, Facts};

    #[test]
    fn kernels_of_windows() {
        let of = |release: &str| {
            let mut facts = good(Side::Guest);
            facts.kernel.release = Fact::known("osrelease", release.into());
            answer("platform.wsl", &facts, Side::Guest)
        };
        assert_eq!(of("5.15.167.4-microsoft-standard-WSL2"), Answer::Fail);
        assert_eq!(of("4.4.0-19041-Microsoft"), Answer::Fail);
        assert_eq!(of("6.8.0-1021-azure"), Answer::Pass);
        assert_eq!(answer("platform.wsl", &Facts::default(), Side::Guest), Answer::Unknown);
    }
}
