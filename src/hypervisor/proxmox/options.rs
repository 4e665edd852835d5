//! A line's value: properties after commas (PVE::JSONSchema, `parse_property_string`).

/// `a,b=c`: the implied key's value `a`, and `b` = `c`.
pub(super) fn pairs(text: &str, implied: &str) -> Vec<(String, String)> {
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    parts
        .map(|part| match part.trim().split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (implied.to_owned(), part.trim().to_owned()),
        })
        .collect()
}

pub(super) fn value<'a>(options: &'a [(String, String)], key: &str) -> Option<&'a str> {
    options.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

pub(super) fn is_on(word: Option<&str>) -> bool {
    matches!(word, Some("1" | "on" | "yes" | "true"))
}
