//! One fact: a value with where it was read, or exactly why there is none. Unreadable is not absent.

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::fmt;

/// Something read from a machine. `from` is the absolute path on that machine, or the name of what was asked.
///
/// In JSON it is one object: `state` (`known`, `missing`, ...) and the fields of that variant.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// The variant's name in JSON.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Known,
    Missing,
    Denied,
    Malformed,
    Failed,
    NotRead,
}

/// All of a fact but its value. There are hundreds of types of facts; what is not about the type is compiled once, which
/// is why this is not derived.
struct Head<'a> {
    state: State,
    from: Option<&'a str>,
    why: Option<&'a str>,
}

impl Head<'_> {
    fn fields(&self) -> usize {
        1 + usize::from(self.from.is_some()) + usize::from(self.why.is_some())
    }

    #[inline(never)]
    fn write<S: SerializeStruct>(&self, out: &mut S) -> Result<(), S::Error> {
        out.serialize_field("state", &self.state)?;
        for (name, text) in [("from", self.from), ("why", self.why)] {
            if let Some(text) = text {
                out.serialize_field(name, text)?;
            }
        }
        Ok(())
    }
}

impl<T: Serialize> Serialize for Fact<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (state, from, why) = match self {
            Self::Known { from, .. } => (State::Known, Some(from), None),
            Self::Missing { from } => (State::Missing, Some(from), None),
            Self::Denied { from } => (State::Denied, Some(from), None),
            Self::Malformed { from, why } => (State::Malformed, Some(from), Some(why)),
            Self::Failed { from, why } => (State::Failed, Some(from), Some(why)),
            Self::NotRead { why } => (State::NotRead, None, Some(why)),
        };
        let head = Head { state, from: from.map(String::as_str), why: why.map(String::as_str) };
        let value = self.value();
        let mut out = serializer.serialize_struct("Fact", head.fields() + usize::from(value.is_some()))?;
        head.write(&mut out)?;
        if let Some(value) = value {
            out.serialize_field("value", value)?;
        }
        out.end()
    }
}

/// A fact whose value has no type yet.
#[derive(Deserialize)]
struct Untyped {
    state: State,
    from: Option<String>,
    why: Option<String>,
    value: Option<Value>,
}

impl Untyped {
    fn fact<E: serde::de::Error>(self) -> Result<Fact<Value>, E> {
        let from = self.from.ok_or_else(|| E::missing_field("from"));
        let why = self.why.ok_or_else(|| E::missing_field("why"));
        Ok(match self.state {
            // An absent value is the null of a type that has one.
            State::Known => Fact::Known { from: from?, value: self.value.unwrap_or_default() },
            State::Missing => Fact::Missing { from: from? },
            State::Denied => Fact::Denied { from: from? },
            State::Malformed => Fact::Malformed { from: from?, why: why? },
            State::Failed => Fact::Failed { from: from?, why: why? },
            State::NotRead => Fact::NotRead { why: why? },
        })
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Fact<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let untyped = Untyped::deserialize(deserializer)?.fact()?;
        let mut refused = None;
        let fact = untyped.parse(|value| {
            T::deserialize(value).map_err(|error| {
                refused = Some(error);
                "refused"
            })
        });
        refused.map_or(Ok(fact), |error| Err(D::Error::custom(error)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    /// The form of facts, as serde derives it.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "state", rename_all = "kebab-case")]
    enum Derived<T> {
        Known { from: String, value: T },
        Missing { from: String },
        Denied { from: String },
        Malformed { from: String, why: String },
        Failed { from: String, why: String },
        NotRead { why: String },
    }

    impl<T> From<Fact<T>> for Derived<T> {
        fn from(fact: Fact<T>) -> Self {
            match fact {
                Fact::Known { from, value } => Self::Known { from, value },
                Fact::Missing { from } => Self::Missing { from },
                Fact::Denied { from } => Self::Denied { from },
                Fact::Malformed { from, why } => Self::Malformed { from, why },
                Fact::Failed { from, why } => Self::Failed { from, why },
                Fact::NotRead { why } => Self::NotRead { why },
            }
        }
    }

    fn every_state<T: Clone>(value: T) -> [Fact<T>; 6] {
        let (from, why) = (String::from("/sys/a \"b\""), String::from("because\n\u{1b}"));
        [
            Fact::Known { from: from.clone(), value },
            Fact::Missing { from: from.clone() },
            Fact::Denied { from: from.clone() },
            Fact::Malformed { from: from.clone(), why: why.clone() },
            Fact::Failed { from, why: why.clone() },
            Fact::NotRead { why },
        ]
    }

    fn same_form<T>(value: T)
    where
        T: Clone + PartialEq + fmt::Debug + Serialize + DeserializeOwned,
    {
        for fact in every_state(value) {
            let text = serde_json::to_string(&fact).unwrap();
            let pretty = serde_json::to_vec_pretty(&fact).unwrap();
            assert_eq!(serde_json::from_str::<Fact<T>>(&text).unwrap(), fact, "{text}");
            let tree: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::from_value::<Fact<T>>(tree).unwrap(), fact, "{text}");
            let derived = Derived::from(fact);
            assert_eq!(text, serde_json::to_string(&derived).unwrap());
            assert_eq!(pretty, serde_json::to_vec_pretty(&derived).unwrap());
        }
    }

    #[test]
    fn the_form_is_the_derived_one() {
        same_form(String::from("NVIDIA \u{fffd}"));
        same_form(u64::MAX);
        same_form(i64::MIN);
        same_form(0.1);
        same_form(());
        same_form(None::<u32>);
        same_form(Some(true));
        same_form(vec![Fact::known("/a", 1_u8), Fact::not_read("x")]);
        same_form(BTreeMap::from([("b".to_owned(), Fact::known("/b", vec![0_u32; 3]))]));
        same_form(Fact::known("inner", Fact::<u32>::default()));
    }

    #[test]
    fn fields_stand_in_any_order_and_unknown_ones_are_ignored() {
        let text = r#"{"value": 7, "new": {"a": [1]}, "from": "/x", "state": "known"}"#;
        assert_eq!(serde_json::from_str::<Fact<u8>>(text).unwrap(), Fact::known("/x", 7));
        let absent = r#"{"from": "/x", "state": "known"}"#;
        assert_eq!(serde_json::from_str::<Fact<Option<u8>>>(absent).unwrap(), Fact::known("/x", None));
    }

    #[test]
    fn what_is_no_fact_is_refused_as_the_derived_form_refuses_it() {
        let refused = [
            json!({}),
            json!(null),
            json!("known"),
            json!({"from": "/x", "value": 1}),
            json!({"state": "known", "value": 1}),
            json!({"state": "known", "from": "/x"}),
            json!({"state": "known", "from": "/x", "value": "1"}),
            json!({"state": "known", "from": "/x", "value": 256}),
            json!({"state": "known", "from": 1, "value": 1}),
            json!({"state": "Known", "from": "/x", "value": 1}),
            json!({"state": "missing"}),
            json!({"state": "failed", "from": "/x"}),
            json!({"state": "malformed", "why": "x"}),
            json!({"state": "not-read"}),
        ];
        for value in refused {
            assert!(serde_json::from_value::<Derived<u8>>(value.clone()).is_err(), "{value}");
            assert!(serde_json::from_value::<Fact<u8>>(value.clone()).is_err(), "{value}");
        }
        let twice = r#"{"state": "known", "from": "/x", "value": 1, "value": 2}"#;
        assert!(serde_json::from_str::<Fact<u8>>(twice).is_err());
    }
}
