//! Models: what is known of a GPU from outside, as data.
//!
//! The crate's own stand in `models.toml`, where each says where it is from and which driver has seen it. A file of a
//! user's has the same form. Unknown keys are errors, and so is what no PCI function could be.

use crate::error::{Error, Result};
use crate::link::Link;
use crate::size::Size;
use serde::{Deserialize, Deserializer};
use std::path::Path;
use std::str::FromStr;

/// A GPU as a machine sees it from outside.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Model {
    /// Its name on command lines: lower case, digits, hyphens.
    pub name: String,
    /// Its name for people.
    pub description: String,
    /// Which driver has seen this model and what it said, or that none has.
    pub verified: String,
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id.
    pub device: u16,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem device id.
    pub subsystem_device: u16,
    /// Base class and subclass: 0x0302 (3D controller) or 0x0300 (VGA compatible).
    pub class: u16,
    /// Revision id.
    pub revision: u8,
    /// NV_PMC_BOOT_0, the register at BAR0 + 0: architecture, implementation and revision.
    pub pmc_boot_0: u32,
    /// NV_PMC_BOOT_42, the register at BAR0 + 0xa00: the same once more.
    pub pmc_boot_42: u32,
    /// The registers' window.
    pub bar0: Size,
    /// Is BAR0 64 bits wide and prefetchable, as from Hopper on? Then what is called BAR1 and BAR3 stands in the
    /// registers of BAR2 and BAR4.
    #[serde(default)]
    pub bar0_64bit: bool,
    /// The window on the GPU's memory.
    pub bar1: Size,
    /// The window on the driver's structures.
    pub bar3: Size,
    /// What the link can do.
    pub link: Link,
    /// The sizes that BAR1 can be given, where it can be resized.
    pub resizable: Option<SizeRange>,
    /// The audio function.
    pub audio: Option<Audio>,
}

/// All powers of two from one size to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizeRange {
    /// The smallest.
    pub from: Size,
    /// The largest.
    pub to: Size,
}

/// The audio function, 1, of a GPU with display outputs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audio {
    /// PCI device id. The vendor and the subsystem are the GPU's.
    pub device: u16,
    /// The window of its registers.
    pub bar0: Size,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Vec<Model>,
}

const OWN: &str = include_str!("../models.toml");

impl Model {
    /// The crate's own models.
    pub fn all() -> Vec<Model> {
        Model::parse(OWN).expect("the tests read this file")
    }

    /// The crate's own model of this name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn named(name: &str) -> Result<Model> {
        find(Model::all(), name, "models.toml")
    }

    /// A model of a file.
    ///
    /// # Errors
    /// Where the file cannot be read, is no file of models, or has none of this name.
    pub fn load(path: &Path, name: &str) -> Result<Model> {
        find(Model::load_all(path)?, name, &path.display().to_string())
    }

    /// All models of a file.
    ///
    /// # Errors
    /// Where the file cannot be read or is no file of models.
    pub fn load_all(path: &Path) -> Result<Vec<Model>> {
        let place = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::new(format!("reading the models of {place}"), "name a TOML file").caused_by(error)
        })?;
        Model::parse(&text).map_err(|error| Error::new(format!("{place}: {error}"), error.hint().to_owned()))
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// Where it is not TOML, lacks something, has something unknown or twice, or describes what cannot be.
    pub fn parse(text: &str) -> Result<Vec<Model>> {
        let file: File = toml::from_str(text).map_err(|error| {
            Error::new(
                format!("no file of models: {}", error.to_string().trim_end()),
                "the crate's models.toml has every key",
            )
        })?;
        for (n, model) in file.model.iter().enumerate() {
            model.check()?;
            if file.model[..n].iter().any(|other| other.name == model.name) {
                return Err(Error::new(
                    format!("two models are called {}", model.name),
                    "rename one of them",
                ));
            }
        }
        Ok(file.model)
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: &str, hint: &str| Err(Error::new(format!("model {:?}: {what}", self.name), hint));
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || !self.name.bytes().all(letter) {
            return wrong("its name is no word", "use lower case letters, digits and hyphens");
        }
        if ![0x0300, 0x0302].contains(&self.class) {
            return wrong("its class is not a GPU's", "0x0300 is VGA compatible, 0x0302 is a 3D controller");
        }
        if self.bar0.bytes() < 0x1000 {
            return wrong("BAR0 has no room for PMC_BOOT_42, at 0xa00", "make bar0 4K or larger");
        }
        let limit = if self.bar0_64bit { u64::MAX } else { 1 << 31 };
        if self.bar0.bytes() > limit || self.audio.as_ref().is_some_and(|audio| audio.bar0.bytes() > 1 << 31)
        {
            return wrong("a window of 32 bits is larger than 2G", "make it smaller, or set bar0-64bit");
        }
        if let Some(SizeRange { from, to }) = self.resizable
            && !(Size::mib(1) <= from && from <= to && to <= Size::mib(1 << 27))
        {
            return wrong("its sizes to resize to cannot be", "from 1M to 128T, the smaller first");
        }
        Ok(())
    }
}

fn find(models: Vec<Model>, name: &str, place: &str) -> Result<Model> {
    let names: Vec<String> = models.iter().map(|model| model.name.clone()).collect();
    let found = models.into_iter().find(|model| model.name == name);
    found.ok_or_else(|| {
        Error::new(format!("{place} has no model {name:?}"), format!("it has {}", names.join(", ")))
    })
}

/// Reads a string by its `FromStr`.
pub(crate) fn parsed<'de, T: FromStr<Err = Error>, D: Deserializer<'de>>(
    d: D,
) -> std::result::Result<T, D::Error> {
    let text = String::deserialize(d)?;
    text.parse().map_err(|error: Error| serde::de::Error::custom(format!("{error}; {}", error.hint())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_models_are_sound() {
        let models = Model::parse(OWN).unwrap();
        for device in [0x2331, 0x2335, 0x26b9, 0x20b5, 0x26b1] {
            assert!(
                models.iter().any(|model| (model.vendor, model.device) == (0x10de, device)),
                "{device:x}"
            );
        }
        // Both registers say the same: architecture in 28:24 and 29:24, implementation in 23:20 of both, revision below.
        for model in models {
            let (zero, other) = (model.pmc_boot_0, model.pmc_boot_42);
            assert_eq!((zero >> 20, zero & 0xff), (other >> 20, other >> 12 & 0xff), "{}", model.name);
            assert_eq!(u32::from(model.revision), zero & 0xff, "{}", model.name);
        }
    }

    #[test]
    fn a_model_is_found_by_its_name() {
        assert_eq!(Model::named("h100-pcie").unwrap().device, 0x2331);
        let error = Model::named("h1000").unwrap_err();
        assert_eq!(error.to_string(), "models.toml has no model \"h1000\"");
        assert!(error.hint().contains("h100-pcie"), "{}", error.hint());
    }

    #[test]
    fn files_that_say_something_else_are_refused() {
        let (_, first) = OWN.split_once("[[model]]").unwrap();
        let one = format!("[[model]]{}", first.split_once("[[model]]").unwrap().0);
        assert_eq!(Model::parse(&one).unwrap().len(), 1);
        for (from, to, why) in [
            ("class = ", "classes = ", "unknown field"),
            ("class = 0x0302", "class = 0x0108", "class"),
            ("bar1 = \"128G\"", "bar1 = \"100G\"", "power"),
            ("link = \"32x16\"", "link = \"33x16\"", "link"),
            ("name = \"h100-pcie\"", "name = \"H100 PCIe\"", "name"),
            ("bar0 = \"16M\"", "bar0 = \"1K\"", "BAR0"),
            ("from = \"64M\"", "from = \"512K\"", "resize"),
        ] {
            assert!(one.contains(from), "{from}");
            let error = Model::parse(&one.replacen(from, to, 1)).unwrap_err();
            assert!(error.to_string().contains(why) || error.hint().contains(why), "{error}");
        }
        let error = Model::parse(&format!("{one}{one}")).unwrap_err();
        assert_eq!(error.to_string(), "two models are called h100-pcie");
    }
}
