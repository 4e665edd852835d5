//! The joined judgement as text.

use super::Joined;
use crate::report::findings;
use crate::report::layout::{clean, wrap};
use std::io::{self, Write};

/// Writes what was joined, then the judgement.
///
/// # Errors
/// Writing fails.
pub fn text(joined: &Joined, out: &mut dyn Write) -> io::Result<()> {
    let together = &joined.joined;
    writeln!(out, "Guest and host")?;
    writeln!(out, "--------------")?;
    if let Some(uuid) = &together.uuid {
        writeln!(out, "  UUID {uuid} on both sides")?;
    }
    for device in &together.devices {
        let line = format!(
            "{} in the guest is {} on the host ({}, {}, by {})",
            device.guest, device.host, device.name, device.ids, device.by
        );
        for line in wrap("  ", &clean(&line)) {
            writeln!(out, "{line}")?;
        }
    }
    for pair in &together.pairs {
        let line =
            format!("GPU {} and NVMe {}: guest {}, host {}", pair.gpu, pair.nvme, pair.guest, pair.host);
        for line in wrap("  ", &clean(&line)) {
            writeln!(out, "{line}")?;
        }
    }
    for warning in &together.warnings {
        for line in wrap("  note: ", &clean(warning)) {
            writeln!(out, "{line}")?;
        }
    }
    writeln!(out)?;
    findings::write(&joined.judgement, out)
}
