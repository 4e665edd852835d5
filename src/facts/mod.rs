//! Reads a machine, without judging it. Every reader takes a [`Root`]: the live machine, a captured tree of one, or a
//! test's fixture; every [`Fact`] remembers where it was read.

mod fact;

pub use fact::Fact;

use crate::manifest::Manifest;
use serde::{Deserialize, Serialize};

/// Everything that was read from one machine. A field that an older gdsboot did not write is [`Fact::NotRead`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Which image this is.
    pub image: Fact<Manifest>,
}
