//! One fact: a value with where it was read, or exactly why there is none. Unreadable is not absent.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Something read from a machine. `from` is the absolute path on that machine, or the name of what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Fact<T> {
    /// It was read.
    Known {
        /// Where it was read.
        from: String,
        /// What stood there.
        value: T,
    },
    /// It is not there.
    Missing {
        /// Where it was looked for.
        from: String,
    },
    /// It is there, but not for this user.
    Denied {
        /// Where it was looked for.
        from: String,
    },
    /// It was read and means nothing.
    Malformed {
        /// Where it was read.
        from: String,
        /// What is wrong with it.
        why: String,
    },
    /// Reading it failed in another way.
    Failed {
        /// Where it was looked for.
        from: String,
        /// The error.
        why: String,
    },
    /// Nobody looked.
    NotRead {
        /// Why not.
        why: String,
    },
}

impl<T> Fact<T> {
    /// A fact that was read.
    pub fn known(from: impl Into<String>, value: T) -> Self {
        Self::Known { from: from.into(), value }
    }

    /// A fact that nobody looked for.
    pub fn not_read(why: impl Into<String>) -> Self {
        Self::NotRead { why: why.into() }
    }

    /// What an I/O error at `from` means.
    pub fn from_error(from: impl Into<String>, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let from = from.into();
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::Missing { from },
            ErrorKind::PermissionDenied => Self::Denied { from },
            _ => Self::Failed { from, why: error.to_string() },
        }
    }

    /// The value, where there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Known { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Turns the value into another; an `Err` makes the fact malformed.
    pub fn parse<U, E: fmt::Display>(self, parser: impl FnOnce(T) -> Result<U, E>) -> Fact<U> {
        match self {
            Self::Known { from, value } => match parser(value) {
                Ok(value) => Fact::Known { from, value },
                Err(why) => Fact::Malformed { from, why: why.to_string() },
            },
            Self::Missing { from } => Fact::Missing { from },
            Self::Denied { from } => Fact::Denied { from },
            Self::Malformed { from, why } => Fact::Malformed { from, why },
            Self::Failed { from, why } => Fact::Failed { from, why },
            Self::NotRead { why } => Fact::NotRead { why },
        }
    }

    /// Turns the value into another.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Fact<U> {
        self.parse(|value| Ok::<U, std::convert::Infallible>(f(value)))
    }

    /// The same fact without its value being moved.
    pub fn as_ref(&self) -> Fact<&T> {
        match self {
            Self::Known { from, value } => Fact::Known { from: from.clone(), value },
            Self::Missing { from } => Fact::Missing { from: from.clone() },
            Self::Denied { from } => Fact::Denied { from: from.clone() },
            Self::Malformed { from, why } => Fact::Malformed { from: from.clone(), why: why.clone() },
            Self::Failed { from, why } => Fact::Failed { from: from.clone(), why: why.clone() },
            Self::NotRead { why } => Fact::NotRead { why: why.clone() },
        }
    }
}

impl<T> Fact<Fact<T>> {
    /// The inner fact, or why it could not be read.
    pub fn flatten(self) -> Fact<T> {
        match self {
            Self::Known { value, .. } => value,
            Self::Missing { from } => Fact::Missing { from },
            Self::Denied { from } => Fact::Denied { from },
            Self::Malformed { from, why } => Fact::Malformed { from, why },
            Self::Failed { from, why } => Fact::Failed { from, why },
            Self::NotRead { why } => Fact::NotRead { why },
        }
    }
}

impl<T> Default for Fact<T> {
    fn default() -> Self {
        Self::NotRead { why: "not read yet".into() }
    }
}

impl<T: fmt::Display> fmt::Display for Fact<T> {
    /// The value, or in parentheses why there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known { value, .. } => value.fmt(f),
            Self::Missing { from } => write!(f, "(missing: {from})"),
            Self::Denied { from } => write!(f, "(permission denied: {from})"),
            Self::Malformed { from, why } => write!(f, "(malformed: {from}: {why})"),
            Self::Failed { from, why } => write!(f, "(unreadable: {from}: {why})"),
            Self::NotRead { why } => write!(f, "({why})"),
        }
    }
}
