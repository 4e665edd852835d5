//! What a hypervisor tells its guest of the host's topology: SMBIOS OEM strings (type 11) that begin with `gdsboot.host=`,
//! one for each device and one for each pair (docs/vm.md has the form).

use std::collections::BTreeMap;
use std::fmt;

pub use crate::facts::smbios::FROM_HOST as PREFIX;

/// One string: what it is about, and its words. Words have neither `;` nor `,` in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// `device` or `pair`.
    pub about: String,
    /// Its words by name.
    pub words: BTreeMap<String, String>,
}

impl Told {
    /// A string about something.
    pub fn new(about: &str) -> Self {
        Self { about: about.to_owned(), words: BTreeMap::new() }
    }

    /// With one more word; letters that the form gives a meaning become `_`.
    #[must_use]
    pub fn with(mut self, name: &str, word: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "./:-+".contains(c) { c } else { '_' };
        self.words.insert(name.to_owned(), word.chars().map(plain).collect());
        self
    }

    /// A word; empty where it is not there.
    pub fn word(&self, name: &str) -> &str {
        self.words.get(name).map_or("", String::as_str)
    }

    /// Reads one string; `None` for one that is not ours or has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(PREFIX)?.split(';');
        let about = parts.next().filter(|about| ["device", "pair"].contains(about))?.to_owned();
        let words =
            parts.map(|part| part.split_once('=').map(|(name, word)| (name.to_owned(), word.to_owned())));
        Some(Self { about, words: words.collect::<Option<_>>()? })
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.about)?;
        self.words.iter().try_for_each(|(name, word)| write!(f, ";{name}={word}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_ours_is_left_alone() {
        for text in
            ["", "gdsboot.after=hold", "gdsboot.host=", "gdsboot.host=moon;a=b", "gdsboot.host=pair;a"]
        {
            assert_eq!(Told::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(words in proptest::collection::btree_map("[a-z]{1,8}", "[^\\x00]{0,20}", 0..6)) {
            let told = words.iter().fold(Told::new("pair"), |told, (name, word)| told.with(name, word));
            let text = told.to_string();
            prop_assert!(!text.contains(','));
            prop_assert_eq!(Told::parse(&text), Some(told));
        }
    }
}
