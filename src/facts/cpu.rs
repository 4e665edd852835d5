//! The CPUs, from `/proc/cpuinfo` (arch/x86/kernel/cpu/proc.c).

use super::commands::CommandOutput;
use super::{Fact, Root};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The CPUs that the kernel runs on. They are taken to be alike, as Linux does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cpu {
    /// `GenuineIntel`, `AuthenticAMD`, ...
    pub vendor: String,
    /// The name that is sold.
    pub model_name: String,
    /// Decimal family.
    pub family: Option<u32>,
    /// Decimal model.
    pub model: Option<u32>,
    /// Logical CPUs that are online.
    pub online: u32,
    /// Distinct sockets; 0 where the kernel does not say.
    pub sockets: u32,
    /// The CPU says that it runs under a hypervisor.
    pub hypervisor_flag: bool,
}

impl Cpu {
    /// Reads it.
    pub fn read(root: &Root) -> Fact<Self> {
        root.parse("/proc/cpuinfo", Self::parse)
    }

    /// What `lscpu` printed, where the kernel's own file was not captured.
    pub fn of_lscpu(commands: &[CommandOutput]) -> Option<Fact<Self>> {
        let printed = commands.iter().find(|command| command.program() == "lscpu")?;
        let mut cpu = Self::default();
        for (key, value) in printed.stdout.iter().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match key.trim() {
                "CPU(s)" => cpu.online = value.parse().unwrap_or(0),
                "Vendor ID" => cpu.vendor = value.to_owned(),
                "Model name" => cpu.model_name = value.to_owned(),
                "CPU family" => cpu.family = value.parse().ok(),
                "Model" => cpu.model = value.parse().ok(),
                "Socket(s)" => cpu.sockets = value.parse().unwrap_or(0),
                "Flags" => {
                    cpu.hypervisor_flag |= value.split_ascii_whitespace().any(|flag| flag == "hypervisor");
                }
                "Hypervisor vendor" => cpu.hypervisor_flag = true,
                _ => {}
            }
        }
        (cpu.online > 0).then(|| Fact::known(printed.from.as_str(), cpu))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut cpu = Self::default();
        let mut sockets = BTreeSet::new();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match key.trim() {
                "processor" => cpu.online += 1,
                "vendor_id" => cpu.vendor = value.to_owned(),
                "model name" => cpu.model_name = value.to_owned(),
                "cpu family" => cpu.family = value.parse().ok(),
                "model" => cpu.model = value.parse().ok(),
                "physical id" => {
                    sockets.insert(value);
                }
                "flags" => {
                    cpu.hypervisor_flag = value.split_ascii_whitespace().any(|flag| flag == "hypervisor")
                }
                _ => {}
            }
        }
        if cpu.online == 0 {
            return Err("no processor line".into());
        }
        cpu.sockets = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
        Ok(cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lscpu_tells_the_same() {
        let command = |text: &str| CommandOutput {
            argv: vec!["/usr/bin/lscpu".into()],
            stdout: text.lines().map(str::to_owned).collect(),
            ..CommandOutput::default()
        };
        let text = "Architecture: x86_64\nCPU(s):   16\nVendor ID: AuthenticAMD\n  Model name: AMD EPYC 9354\n    CPU family: 25\n    \
                    Model: 17\n    Socket(s): 2\n    Flags: fpu vme\nHypervisor vendor: KVM\n";
        let cpu = Cpu::of_lscpu(&[command(text)]).unwrap().value().cloned().unwrap();
        assert_eq!((cpu.online, cpu.family, cpu.sockets, cpu.hypervisor_flag), (16, Some(25), 2, true));
        assert_eq!((cpu.vendor.as_str(), cpu.model_name.as_str()), ("AuthenticAMD", "AMD EPYC 9354"));
        assert!(Cpu::of_lscpu(&[command("nothing")]).is_none() && Cpu::of_lscpu(&[]).is_none());
    }

    #[test]
    fn two_sockets() {
        let text = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Xeon\n\
                    physical id\t: 0\nflags\t\t: fpu hypervisor\n\nprocessor\t: 1\nphysical id\t: 1\n";
        let cpu = Cpu::parse(text).unwrap();
        assert_eq!((cpu.online, cpu.sockets, cpu.family, cpu.model), (2, 2, Some(6), Some(143)));
        assert!(cpu.hypervisor_flag);
        assert_eq!(cpu.model_name, "Xeon");
    }

    #[test]
    fn nonsense_is_malformed() {
        assert!(Cpu::parse("").is_err());
        assert!(Cpu::parse("cpu family : many\n").is_err());
        assert_eq!(Cpu::parse("processor : 0\ncpu family : many").unwrap().family, None);
    }
}
