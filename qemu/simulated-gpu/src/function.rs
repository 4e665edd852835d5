//! One PCI function, ready to be served: a model and what is to be different about it.

use crate::capabilities::SERIAL;
use crate::error::{Error, Result};
use crate::link::Link;
use crate::model::{Model, SizeRange};
use crate::size::Size;
use std::str::FromStr;

/// BAR1 as a GPU has it that shows only a part of its memory: 256 MiB.
pub const SMALL_BAR1: Size = Size::mib(256);

/// Offsets of NV_PMC_BOOT_0 and NV_PMC_BOOT_42 in BAR0.
const PMC_BOOT_0: u64 = 0x0;
const PMC_BOOT_42: u64 = 0xa00;

/// What is to be different from the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The size of BAR1, 64 MiB to 256 GiB.
    pub bar1: Option<Size>,
    /// What the link has trained to, at most what it is capable of.
    pub link: Option<Link>,
    /// The last 16 bits of the serial number: which GPU of several this is.
    pub serial: u16,
    /// The P2P clique that a hypervisor puts the GPU into, 0 to 15.
    pub clique: Option<u8>,
    /// The Resizable BAR capability, where the model has it.
    pub resizable: bool,
    /// The Access Control Services capability.
    pub acs: bool,
    /// The Address Translation Service capability.
    pub ats: bool,
    /// What is broken.
    pub faults: Vec<Fault>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            bar1: None,
            link: None,
            serial: 1,
            clique: None,
            resizable: true,
            acs: false,
            ats: false,
            faults: Vec::new(),
        }
    }
}

/// What can be broken about a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// BAR1 is [`SMALL_BAR1`], whatever else was said.
    SmallBar1,
    /// The link has trained down ([`Link::trained_down`]), whatever else was said.
    LinkTrainedDown,
    /// The audio function was not passed on.
    AudioMissing,
    /// After so many reads of BAR0 the function is gone: from the next read of BAR0 on, every read of it, of its
    /// configuration space and of its windows gives all ones, and writes have no effect. Until then it is sound, or no
    /// firmware and no kernel would find it. Firmware and Linux do not read BAR0, so that with 0 NVIDIA's driver is the
    /// first to notice. Only a reset of the machine, or of the function, brings it back for as many reads.
    FallenOffTheBus {
        /// Reads of BAR0 that are still answered.
        after_reads: u32,
    },
    /// The function cannot be reset: it does not offer a function level reset, and refuses what QEMU asks for.
    RefusesReset,
}

impl Fault {
    /// Its names on command lines.
    pub const NAMES: [&str; 5] =
        ["small-bar1", "link-trained-down", "audio-missing", "fallen-off-the-bus[=READS]", "refuses-reset"];
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Fault> {
        match (text, text.split_once('=')) {
            ("small-bar1", _) => Ok(Fault::SmallBar1),
            ("link-trained-down", _) => Ok(Fault::LinkTrainedDown),
            ("audio-missing", _) => Ok(Fault::AudioMissing),
            ("fallen-off-the-bus", _) => Ok(Fault::FallenOffTheBus { after_reads: 0 }),
            ("refuses-reset", _) => Ok(Fault::RefusesReset),
            (_, Some(("fallen-off-the-bus", reads))) if reads.parse::<u32>().is_ok() => {
                Ok(Fault::FallenOffTheBus { after_reads: reads.parse().unwrap_or_default() })
            }
            _ => Err(Error::new(
                format!("there is no fault {text:?}"),
                format!("there are {}", Fault::NAMES.join(", ")),
            )),
        }
    }
}

/// A memory window of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Which of the six registers it begins in.
    pub index: u8,
    /// How large it is.
    pub size: Size,
    /// Two registers hold its address.
    pub is_64bit: bool,
    /// Reading has no side effects.
    pub prefetchable: bool,
    /// It remembers what is written to it. One that does not gives [`Function::registers`] and zeros.
    pub memory: bool,
}

/// One PCI function: everything that its configuration space and its windows are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// What it is, for people.
    pub description: String,
    /// Its number on the device: 0 is the GPU, 1 its audio.
    pub number: u8,
    /// Vendor, device, subsystem vendor and subsystem device.
    pub ids: [u16; 4],
    /// Base class, subclass and programming interface.
    pub class: u32,
    /// Revision id.
    pub revision: u8,
    /// Its windows, by index.
    pub bars: Vec<Bar>,
    /// What its link can do.
    pub link_capability: Link,
    /// What its link has trained to.
    pub link: Link,
    /// It is a legacy endpoint, as GPUs that are VGA compatible are.
    pub legacy_endpoint: bool,
    /// The device has an audio function, which Linux looks for in a register of NVIDIA's in the configuration space.
    pub audio_enabled: bool,
    /// Its serial number, from its highest byte on.
    pub serial: [u8; 8],
    /// The index of the window that can be resized, with its sizes.
    pub resizable: Option<(u8, SizeRange)>,
    /// NVIDIA's P2P clique.
    pub clique: Option<u8>,
    /// Access Control Services.
    pub acs: bool,
    /// Address Translation Service.
    pub ats: bool,
    /// Registers in its first window that are not zero: offset and value.
    pub registers: Vec<(u64, u32)>,
    /// After so many reads of its first window it is gone.
    pub gone_after: Option<u32>,
    /// It can be reset.
    pub resettable: bool,
}

/// All functions of a GPU, by number: itself, and its audio where the model has one that is not missing.
///
/// # Errors
/// Where the options do not fit the model.
pub fn functions(model: &Model, options: &Options) -> Result<Vec<Function>> {
    let missing = options.faults.contains(&Fault::AudioMissing);
    let audio = if missing { None } else { Function::audio(model, options)? };
    Ok([Some(Function::gpu(model, options)?), audio].into_iter().flatten().collect())
}

impl Function {
    /// The GPU itself, function 0.
    ///
    /// # Errors
    /// Where the options do not fit the model.
    pub fn gpu(model: &Model, options: &Options) -> Result<Function> {
        let bar1 = options.bar1_size(model)?;
        let wide = model.bar0_64bit;
        let (second, third) = if wide { (2, 4) } else { (1, 3) };
        let memory = |index, size| Bar { index, size, is_64bit: true, prefetchable: true, memory: true };
        let registers = Bar { index: 0, size: model.bar0, is_64bit: wide, prefetchable: wide, memory: false };
        if let Some(clique) = options.clique.filter(|clique| *clique > 15) {
            return Err(Error::new(format!("there is no P2P clique {clique}"), "cliques are 0 to 15"));
        }
        let gone_after = options.faults.iter().find_map(|fault| match fault {
            Fault::FallenOffTheBus { after_reads } => Some(*after_reads),
            _ => None,
        });
        Ok(Function {
            description: model.description.clone(),
            number: 0,
            ids: [model.vendor, model.device, model.subsystem_vendor, model.subsystem_device],
            class: u32::from(model.class) << 8,
            revision: model.revision,
            bars: vec![registers, memory(second, bar1), memory(third, model.bar3)],
            link_capability: model.link,
            link: options.link_state(model)?,
            legacy_endpoint: model.class == 0x0300,
            audio_enabled: model.audio.is_some(),
            serial: serial(options.serial),
            resizable: model.resizable.filter(|_| options.resizable).map(|range| (second, range.with(bar1))),
            clique: options.clique,
            acs: options.acs,
            ats: options.ats,
            registers: vec![(PMC_BOOT_0, model.pmc_boot_0), (PMC_BOOT_42, model.pmc_boot_42)],
            gone_after,
            resettable: !options.faults.contains(&Fault::RefusesReset),
        })
    }

    /// The audio function, 1, where the model has one. It shares the link and the serial number, and that it cannot be
    /// reset; nothing else of the options is about it.
    ///
    /// # Errors
    /// Where the options do not fit the model.
    pub fn audio(model: &Model, options: &Options) -> Result<Option<Function>> {
        let Some(audio) = &model.audio else { return Ok(None) };
        let bar0 = Bar { index: 0, size: audio.bar0, is_64bit: false, prefetchable: false, memory: false };
        Ok(Some(Function {
            description: format!("audio of {}", model.description),
            number: 1,
            ids: [model.vendor, audio.device, model.subsystem_vendor, model.subsystem_device],
            class: 0x04_03_00,
            revision: model.revision,
            bars: vec![bar0],
            link_capability: model.link,
            link: options.link_state(model)?,
            legacy_endpoint: false,
            audio_enabled: false,
            serial: serial(options.serial),
            resizable: None,
            clique: None,
            acs: false,
            ats: false,
            registers: Vec::new(),
            gone_after: None,
            resettable: !options.faults.contains(&Fault::RefusesReset),
        }))
    }
}

impl Options {
    fn bar1_size(&self, model: &Model) -> Result<Size> {
        if self.faults.contains(&Fault::SmallBar1) {
            return Ok(SMALL_BAR1);
        }
        let size = self.bar1.unwrap_or(model.bar1);
        if (Size::mib(64)..=Size::mib(256 << 10)).contains(&size) {
            return Ok(size);
        }
        Err(Error::new(format!("BAR1 of {}: {size} is out of range", model.name), "choose 64M to 256G"))
    }

    fn link_state(&self, model: &Model) -> Result<Link> {
        if self.faults.contains(&Fault::LinkTrainedDown) {
            return Ok(model.link.trained_down());
        }
        let link = self.link.unwrap_or(model.link);
        if model.link.reaches(link) {
            return Ok(link);
        }
        let what = format!("the link of {} cannot train to {link}", model.name);
        Err(Error::new(what, format!("its link is capable of {}", model.link)))
    }
}

impl SizeRange {
    /// A window has a size that it can be given.
    fn with(self, size: Size) -> SizeRange {
        SizeRange { from: self.from.min(size), to: self.to.max(size) }
    }
}

fn serial(number: u16) -> [u8; 8] {
    let mut serial = [0; 8];
    serial[..6].copy_from_slice(SERIAL);
    serial[6..].copy_from_slice(&number.to_be_bytes());
    serial
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        Model::named("rtx-6000-ada").unwrap()
    }

    #[test]
    fn a_gpu_with_audio_is_two_functions() {
        let both = functions(&model(), &Options::default()).unwrap();
        let ids: Vec<_> = both.iter().map(|f| (f.number, f.ids[1], f.class)).collect();
        assert_eq!(ids, [(0, 0x26b1, 0x030000), (1, 0x22ba, 0x040300)]);
        let missing = Options { faults: vec![Fault::AudioMissing], ..Options::default() };
        let one = functions(&model(), &missing).unwrap();
        // The GPU still tells that its audio is there.
        assert!(one.len() == 1 && one[0].audio_enabled);
        assert_eq!(functions(&Model::named("l40s").unwrap(), &Options::default()).unwrap().len(), 1);
    }

    #[test]
    fn options_that_do_not_fit_the_model_are_refused() {
        let gpu = |options: Options| Function::gpu(&model(), &options);
        let refused = |options: Options| gpu(options).unwrap_err().to_string();
        let with = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options
        };
        assert!(refused(with(|o| o.bar1 = Some(Size::mib(32)))).contains("32M is out of range"));
        assert!(refused(with(|o| o.bar1 = Some(Size::mib(512 << 10)))).contains("512G is out of range"));
        assert!(refused(with(|o| o.link = "32x16".parse().ok())).contains("cannot train to 32x16"));
        assert!(refused(with(|o| o.clique = Some(16))).contains("clique 16"));
        let changed = gpu(with(|o| {
            o.faults = vec![Fault::SmallBar1, Fault::LinkTrainedDown, Fault::RefusesReset];
            o.bar1 = Some(Size::mib(1024));
        }))
        .unwrap();
        assert_eq!(changed.bars[1].size, SMALL_BAR1);
        assert_eq!(
            (changed.link.to_string(), changed.link_capability.to_string()),
            ("2.5x4".into(), "16x16".into())
        );
        assert!(!changed.resettable);
    }

    #[test]
    fn faults_are_read() {
        for (text, fault) in [
            ("small-bar1", Fault::SmallBar1),
            ("refuses-reset", Fault::RefusesReset),
            ("fallen-off-the-bus", Fault::FallenOffTheBus { after_reads: 0 }),
            ("fallen-off-the-bus=12", Fault::FallenOffTheBus { after_reads: 12 }),
        ] {
            assert_eq!(text.parse::<Fault>().unwrap(), fault);
        }
        for text in ["", "fallen-off-the-bus=", "fallen-off-the-bus=-1", "small-bar1=1", "fire"] {
            text.parse::<Fault>().unwrap_err();
        }
    }
}
