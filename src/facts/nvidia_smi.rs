//! What `nvidia-smi` printed: the driver that it spoke to, or why it could not.

use super::commands::CommandOutput;
use serde::{Deserialize, Serialize};

/// An answer of nvidia-smi.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct NvidiaSmi {
    /// Where its output stands.
    pub from: String,
    /// The kernel module's version.
    pub driver: Option<String>,
    /// The library's version, which it prints where the two differ.
    pub library: Option<String>,
    /// Its complaints.
    pub errors: Vec<String>,
    /// The states of `Fabric` sections, such as `Completed`.
    pub fabric: Vec<String>,
    /// How each GPU is virtualised: `None`, `Pass-Through`, `VGPU`, ...
    pub virtualization: Vec<String>,
    /// Is confidential computing on? Only where it was asked.
    pub confidential: Option<bool>,
}

/// Words of its complaints.
const ERRORS: &[&str] = &[
    "couldn't communicate",
    "couldn't find libnvidia-ml",
    "Failed to initialize NVML",
    "No devices were found",
    "Failed to run topology matrix",
    "GPU is lost",
    "access blocked by the operating system",
    "Unable to determine the device handle",
];

impl NvidiaSmi {
    /// Reads all answers among the outputs of programs as one.
    pub fn find(commands: &[CommandOutput]) -> Option<Self> {
        let mut found = commands.iter().filter(|command| command.program() == "nvidia-smi").peekable();
        let from = found.peek()?.from.clone();
        let lines = found.flat_map(|command| command.stdout.iter().chain(&command.stderr));
        Some(Self::parse(&from, lines.map(String::as_str)))
    }

    /// Reads an answer.
    pub fn parse<'a>(from: &str, lines: impl Iterator<Item = &'a str>) -> Self {
        let mut answer = Self { from: from.to_owned(), ..Self::default() };
        let mut in_fabric = false;
        for line in lines.map(str::trim) {
            if ERRORS.iter().any(|error| line.contains(error)) {
                answer.errors.push(line.to_owned());
            }
            let word_after = |label: &str| {
                let rest = line.split_once(label)?.1.trim_start().strip_prefix(':')?;
                rest.split_ascii_whitespace().next().map(str::to_owned)
            };
            // "Driver Version" in the table and in `-q`; the newest call the library's "NVIDIA-SMI version".
            answer.driver = answer.driver.or_else(|| word_after("Driver Version"));
            answer.library = answer.library.or_else(|| word_after("NVML library version"));
            match line.split_once(':').map(|(label, value)| (label.trim(), value.trim())) {
                None => in_fabric = line == "Fabric",
                Some(("State", state)) if in_fabric => {
                    answer.fabric.push(state.to_owned());
                    in_fabric = false;
                }
                Some(("Virtualization Mode", mode)) => answer.virtualization.push(mode.to_owned()),
                Some(("CC status" | "CC State", state)) => {
                    answer.confidential = Some(answer.confidential == Some(true) || state == "ON");
                }
                Some(_) => {}
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualised_and_confidential() {
        let answer = parse(
            "GPU Virtualization Mode\n    Virtualization Mode : VGPU\nCC status: ON\n    CC State : OFF\n",
        );
        assert_eq!((answer.virtualization, answer.confidential), (vec!["VGPU".to_owned()], Some(true)));
        assert_eq!(parse("CC State : OFF").confidential, Some(false));
        assert_eq!(parse("Virtualization : x").confidential, None);
    }

    fn parse(text: &str) -> NvidiaSmi {
        NvidiaSmi::parse("x", text.lines())
    }

    #[test]
    fn answers_and_complaints() {
        let table =
            "| NVIDIA-SMI 580.95.05              Driver Version: 580.95.05      CUDA Version: 13.0     |";
        assert_eq!(parse(table).driver.as_deref(), Some("580.95.05"));
        let mismatch = parse(
            "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 590.44\n",
        );
        assert_eq!((mismatch.library.as_deref(), mismatch.errors.len()), (Some("590.44"), 1));
        let fabric = parse(
            "    Fabric\n        State                             : In Progress\n        Status : N/A\n    Processes : None\n",
        );
        assert_eq!(fabric.fabric, ["In Progress"]);
        assert_eq!(parse("Driver Version"), NvidiaSmi { from: "x".into(), ..NvidiaSmi::default() });
    }
}
