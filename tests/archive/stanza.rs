//! A paragraph of `Field: value` lines, in order, as in `control`, `Packages` and `Release`.

use std::fmt;

/// Fields in the order in which they are written. A value may hold newlines; each further line then starts with a space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stanza {
    fields: Vec<(String, String)>,
}

impl Stanza {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads one paragraph; what follows an empty line is not looked at.
    pub fn parse(text: &str) -> Self {
        let mut stanza = Self::new();
        for line in text.lines().take_while(|line| !line.trim().is_empty()) {
            if line.starts_with([' ', '\t']) {
                let (_, value) = stanza.fields.last_mut().expect("a paragraph starts with a field");
                value.push('\n');
                value.push_str(line);
            } else {
                let (name, value) = line.split_once(':').expect("a field has a colon");
                stanza.fields.push((name.to_owned(), value.trim().to_owned()));
            }
        }
        stanza
    }

    /// Sets a field where it stands, or at the end. `None` removes it.
    pub fn set<'a>(&mut self, name: &str, value: impl Into<Option<&'a str>>) -> &mut Self {
        let at = self.fields.iter().position(|(n, _)| n.eq_ignore_ascii_case(name));
        match (at, value.into()) {
            (Some(at), Some(value)) => self.fields[at].1 = value.to_owned(),
            (Some(at), None) => {
                self.fields.remove(at);
            }
            (None, Some(value)) => self.fields.push((name.to_owned(), value.to_owned())),
            (None, None) => {}
        }
        self
    }

    /// A field's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// A field that every package has.
    pub fn need(&self, name: &str) -> &str {
        self.get(name).unwrap_or_else(|| panic!("the stanza has no {name}:\n{self}"))
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| name.as_str())
    }

    /// The same fields, those that `order` names first and in its order.
    pub fn ordered(&self, order: &[&str]) -> Self {
        let rank =
            |name: &str| order.iter().position(|o| o.eq_ignore_ascii_case(name)).unwrap_or(order.len());
        let mut fields = self.fields.clone();
        fields.sort_by_key(|(name, _)| rank(name));
        Self { fields }
    }
}

impl fmt::Display for Stanza {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.fields {
            if value.starts_with('\n') {
                writeln!(f, "{name}:{value}")?;
            } else {
                writeln!(f, "{name}: {value}")?;
            }
        }
        Ok(())
    }
}
