//! An option's value: properties after commas, or JSON (QEMU: util/qemu-option.c, util/keyval.c).

/// `a,b=c,,d` has the implied key's value `a` and `b` = `c,d`. A word alone is a switch that is on.
pub(super) fn options(text: &str, implied: &str) -> Vec<(String, String)> {
    let mut parts = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            ',' if letters.peek() == Some(&',') => {
                letters.next();
                parts.last_mut().unwrap_or(&mut String::new()).push(',');
            }
            ',' => parts.push(String::new()),
            other => {
                if let Some(part) = parts.last_mut() {
                    part.push(other);
                }
            }
        }
    }
    let parts = parts.into_iter().enumerate().filter(|(_, part)| !part.is_empty());
    parts
        .map(|(at, part)| match part.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None if at == 0 && !implied.is_empty() => (implied.to_owned(), part),
            None => (part, "on".to_owned()),
        })
        .collect()
}

pub(super) fn get<'a>(options: &'a [(String, String)], key: &str) -> Option<&'a str> {
    options.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

pub(super) fn is_on(word: &str) -> bool {
    matches!(word, "on" | "yes" | "true" | "1")
}

/// Options as pairs, or as a JSON object.
pub(super) fn keyed(value: &str, implied: &str) -> Vec<(String, String)> {
    if !value.trim_start().starts_with('{') {
        return options(value, implied);
    }
    let Ok(serde_json::Value::Object(map)) = serde_json::from_str(value) else { return Vec::new() };
    let mut pairs = Vec::new();
    for (key, value) in map {
        match value {
            serde_json::Value::String(text) => pairs.push((key, text)),
            serde_json::Value::Bool(on) => pairs.push((key, if on { "on" } else { "off" }.into())),
            serde_json::Value::Object(inner) => {
                for (name, value) in inner {
                    pairs.push((format!("{key}.{name}"), value.as_str().unwrap_or("").to_owned()));
                }
            }
            // A number is slot and function in one.
            serde_json::Value::Number(number) if key == "addr" => {
                let devfn = number.as_u64().unwrap_or(0);
                pairs.push((key, format!("{:x}.{:x}", devfn >> 3, devfn & 7)));
            }
            // An option that may be repeated.
            serde_json::Value::Array(items) => {
                let text =
                    |item: serde_json::Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                pairs.extend(items.into_iter().map(|item| (key.clone(), text(item))));
            }
            other => pairs.push((key, other.to_string())),
        }
    }
    pairs
}

/// `0x1c.0` is `1c.0`, and so is `1c`: QEMU reads hexadecimal numbers (`set_pci_devfn`).
pub(super) fn slot(text: &str) -> String {
    let (device, function) = text.split_once('.').unwrap_or((text, "0"));
    let function = function.trim_start_matches("0x");
    let device = match device.strip_prefix("0x") {
        Some(hex) => u8::from_str_radix(hex, 16).ok(),
        None => u8::from_str_radix(device, 16).ok(),
    };
    device.map_or(String::new(), |device| format!("{device:02x}.{function}"))
}
