//! What a GPU says of itself while a job runs: a figure that was taken while its clocks were held down is one of that, and
//! not of what it can do.

use serde::{Deserialize, Serialize};

/// A GPU at one moment of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct GpuState {
    /// How long after the job's beginning, in milliseconds.
    pub at_ms: u64,
    /// Its temperature.
    pub celsius: Option<u32>,
    /// Why its clocks are lower than they could be, by the names of nvidia-smi's fields, idleness left out.
    pub slowed: Vec<String>,
}

/// The bit that is left out: a GPU that only moves data has nothing to compute.
const IDLE: u64 = 1;
/// The names of the bits from 2 on, as `nvidia-smi --query-gpu=clocks_event_reasons.…` has them.
const REASONS: [&str; 8] = [
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "display_clock_setting",
];

/// The reasons in nvml.h's bits; a bit that it has no name for is a number.
pub fn reasons(bits: u64) -> Vec<String> {
    let set = (0..u64::BITS).map(|place| 1_u64 << place).filter(|bit| bits & bit & !IDLE != 0);
    set.map(|bit| match REASONS.get(bit.trailing_zeros() as usize - 1) {
        Some(name) => (*name).to_owned(),
        None => format!("{bit:#x}"),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_nvidia_smi_s_names() {
        assert_eq!(reasons(0), [""; 0]);
        assert_eq!(reasons(IDLE), [""; 0]);
        // nvmlClocksEventReasonSwPowerCap, …SwThermalSlowdown, …DisplayClockSetting
        assert_eq!(reasons(0x125), ["sw_power_cap", "sw_thermal_slowdown", "display_clock_setting"]);
        assert_eq!(reasons(0x208), ["hw_slowdown", "0x200"]);
        assert_eq!(reasons(0x1fe), REASONS);
    }
}
