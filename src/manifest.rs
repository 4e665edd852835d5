//! What an image is: written by the builder into the root and onto the ESP, read by the validator and by `inspect`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The identity and the contents of one image. Everything in it is a function of the inputs, so it is the same for every
/// build of the same lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Manifest {
    /// Format version of this file: 1.
    pub version: u32,
    /// gdsboot's own version.
    pub gdsboot: String,
    /// Profile name, such as `debian-13`.
    pub profile: String,
    /// Overlays that were asked for.
    #[serde(default)]
    pub overlays: Vec<String>,
    /// SHA-256 of the lock file's meaning (not its bytes), hex.
    pub lock: String,
    /// Identifies the image: the first 16 hex digits of the hash of all inputs.
    pub image_id: String,
    /// Kernel release, such as `6.12.107+deb13-amd64`.
    pub kernel: String,
    /// Driver version of the NVIDIA kernel modules, where there are any.
    #[serde(default)]
    pub driver: Option<String>,
    /// Kernel modules from outside the kernel package: name -> `compiled` or `prebuilt`, with the version.
    #[serde(default)]
    pub modules: BTreeMap<String, String>,
    /// The instant that the image's content is dated to (newest source's Release date), seconds since 1970 UTC.
    pub epoch: u64,
    /// Packages in the root: name -> version.
    pub packages: BTreeMap<String, String>,
    /// Tools that made the image: name -> version.
    #[serde(default)]
    pub tools: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads its JSON, by way of a tree as facts do ([`crate::facts::Fact`]), so that the code for it exists once.
    ///
    /// # Errors
    /// It is no JSON, or no manifest.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_value(serde_json::from_slice(bytes)?)
    }
}
