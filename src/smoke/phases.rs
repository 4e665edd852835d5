//! How long each part of a boot took, told from marks on the console.

use serde::Serialize;
use std::time::Duration;

/// When each mark was seen, since QEMU's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The boot menu loads the kernel.
    pub loader: Option<Duration>,
    /// The kernel's first line.
    pub kernel: Option<Duration>,
    /// The validator's first event.
    pub validator: Option<Duration>,
    /// NVIDIA's modules were loaded, or refused.
    pub modules: Option<Duration>,
    /// The validator's verdict.
    pub verdict: Option<Duration>,
    /// QEMU ended by itself.
    pub exit: Option<Duration>,
}

/// Seconds that each part of a boot took; nothing where one of its two marks was not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Phases {
    /// From QEMU's start to the boot menu's line.
    pub firmware: Option<f64>,
    /// From there to the kernel's first line.
    pub loader: Option<f64>,
    /// From there to the validator's first event.
    pub kernel: Option<f64>,
    /// From there to the verdict.
    pub validator: Option<f64>,
    /// The part of that until NVIDIA's modules are loaded, or refused.
    pub modules: Option<f64>,
    /// The part of it after that: what the machine is asked, the benchmark, the judgement and the report.
    pub checks: Option<f64>,
    /// From there to QEMU's end.
    pub power_off: Option<f64>,
    /// From QEMU's start to the verdict.
    pub to_verdict: Option<f64>,
}

impl Marks {
    /// The times between the marks.
    pub fn phases(&self) -> Phases {
        let between = |from: Option<Duration>, to: Option<Duration>| {
            let seconds = to?.checked_sub(from?)?.as_secs_f64();
            Some((seconds * 1000.0).round() / 1000.0)
        };
        let start = Some(Duration::ZERO);
        Phases {
            firmware: between(start, self.loader),
            loader: between(self.loader, self.kernel),
            kernel: between(self.kernel, self.validator),
            validator: between(self.validator, self.verdict),
            modules: between(self.validator, self.modules),
            checks: between(self.modules, self.verdict),
            power_off: between(self.verdict, self.exit),
            to_verdict: between(start, self.verdict),
        }
    }

    /// What the guest was doing after the last mark that was seen.
    pub fn reached(&self) -> &'static str {
        match self {
            Self { verdict: Some(_), .. } => "power-off",
            Self { validator: Some(_), .. } => "validator",
            Self { kernel: Some(_), .. } => "kernel",
            Self { loader: Some(_), .. } => "loader",
            _ => "firmware",
        }
    }
}

impl Phases {
    /// The columns of the table that people see: name and seconds.
    pub fn columns(&self) -> [(&'static str, Option<f64>); 7] {
        [
            ("firmware", self.firmware),
            ("loader", self.loader),
            ("kernel", self.kernel),
            ("modules", self.modules),
            ("checks", self.checks),
            ("power-off", self.power_off),
            ("to verdict", self.to_verdict),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Option<Duration> {
        Some(Duration::from_millis(n))
    }

    #[test]
    fn phases_lie_between_marks() {
        let marks = Marks {
            loader: ms(3300),
            kernel: ms(7000),
            validator: ms(12_500),
            modules: ms(13_000),
            verdict: ms(14_000),
            exit: ms(14_250),
        };
        let seconds = marks.phases().columns().map(|(_, seconds)| seconds);
        assert_eq!(seconds, [Some(3.3), Some(3.7), Some(5.5), Some(0.5), Some(1.0), Some(0.25), Some(14.0)]);
        assert_eq!(marks.reached(), "power-off");
    }

    #[test]
    fn a_mark_that_was_not_seen_leaves_both_sides_unknown() {
        let marks = Marks { kernel: ms(7000), validator: ms(9000), ..Marks::default() };
        let seconds = marks.phases().columns().map(|(_, seconds)| seconds);
        assert_eq!(seconds, [None, None, Some(2.0), None, None, None, None]);
        assert_eq!(marks.reached(), "validator");
        assert_eq!(Marks::default().reached(), "firmware");
    }
}
