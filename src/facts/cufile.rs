//! cuFile's settings, `/etc/cufile.json`: JSON with comments. What the environment sets instead is in
//! [`super::cufile_env`].

use super::{Fact, Root};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where libcufile looks, unless `CUFILE_ENV_PATH_JSON` names another file.
pub const USUAL: &str = "/etc/cufile.json";

/// The settings that decide routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct CufileConfig {
    /// `properties.allow_compat_mode`: fall back to copies by the CPU in silence. On where it is not set.
    pub allow_compat_mode: Option<bool>,
    /// `properties.force_compat_mode`: never use a direct route.
    pub force_compat_mode: Option<bool>,
    /// `properties.use_pci_p2pdma`.
    pub use_pci_p2pdma: Option<bool>,
    /// `block.nvme.use_pci_p2pdma`, which libcufile asks for as well from 1.16 on.
    pub nvme_use_pci_p2pdma: Option<bool>,
    /// `properties.max_direct_io_size_kb`, in KiB.
    pub max_direct_io_size_kb: Option<u64>,
    /// `properties.max_device_cache_size_kb`, in KiB.
    pub max_device_cache_size_kb: Option<u64>,
    /// `properties.max_device_pinned_mem_size_kb`, in KiB.
    pub max_device_pinned_mem_size_kb: Option<u64>,
    /// `logging.dir`.
    pub logging_dir: Option<String>,
    /// `logging.level`.
    pub logging_level: Option<String>,
    /// `denylist`: what is never transferred directly.
    pub denylist: Denylist,
}

/// What cuFile is told to leave to the CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Denylist {
    /// Drivers, such as `nvme`.
    pub drivers: Vec<String>,
    /// Block devices.
    pub devices: Vec<String>,
    /// Mount points.
    pub mounts: Vec<String>,
    /// Types of filesystems.
    pub filesystems: Vec<String>,
}

impl Denylist {
    /// Is nothing on it?
    pub fn is_empty(&self) -> bool {
        self.words().is_empty()
    }

    /// All that is on it, in a few words.
    pub fn words(&self) -> String {
        let all = [&self.drivers, &self.devices, &self.mounts, &self.filesystems];
        all.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    fn parse(value: &Value) -> Self {
        let list = |name: &str| {
            // Releases before 1.0 called it otherwise.
            let of = |list: &str| value.get(list)?.get(name)?.as_array();
            let entries = of("denylist").or_else(|| of("blacklist")).into_iter().flatten();
            entries.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            drivers: list("drivers"),
            devices: list("devices"),
            mounts: list("mounts"),
            filesystems: list("filesystems"),
        }
    }
}

impl CufileConfig {
    /// Reads the file at `path`.
    pub fn read(root: &Root, path: &str) -> Fact<Self> {
        root.parse(path, Self::parse)
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = without_comments(text);
        let value: Value = serde_json::from_slice(text.as_bytes()).map_err(|e| e.to_string())?;
        if !value.is_object() {
            return Err("it is not an object".into());
        }
        let at = |path: &str| value.pointer(path);
        let switch = |path: &str| at(path).and_then(as_switch);
        let size = |name: &str| at(&format!("/properties/{name}")).and_then(Value::as_u64);
        let word = |path: &str| at(path).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            allow_compat_mode: switch("/properties/allow_compat_mode"),
            force_compat_mode: switch("/properties/force_compat_mode"),
            use_pci_p2pdma: switch("/properties/use_pci_p2pdma"),
            nvme_use_pci_p2pdma: switch("/block/nvme/use_pci_p2pdma"),
            max_direct_io_size_kb: size("max_direct_io_size_kb"),
            max_device_cache_size_kb: size("max_device_cache_size_kb"),
            max_device_pinned_mem_size_kb: size("max_device_pinned_mem_size_kb"),
            logging_dir: word("/logging/dir"),
            logging_level: word("/logging/level"),
            denylist: Denylist::parse(&value),
        })
    }
}

/// libcufile takes `true`, `"true"` and 1.
fn as_switch(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(on) => Some(*on),
        Value::String(word) => word.parse().ok(),
        Value::Number(number) => number.as_u64().map(|n| n != 0),
        _ => None,
    }
}

/// The text without `//` and `/* */` comments and without commas before a closing bracket; what stands in strings stays.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut in_string = false;
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            match c {
                '\\' => out.extend(chars.next()),
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match (c, chars.peek()) {
            ('/', Some('/')) => while chars.next_if(|c| *c != '\n').is_some() {},
            ('/', Some('*')) => {
                chars.next();
                let mut last = ' ';
                for c in chars.by_ref() {
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
                out.push(' ');
            }
            ('}' | ']', _) => {
                if out.trim_end().ends_with(',') {
                    out.truncate(out.trim_end().len() - 1);
                }
                out.push(c);
            }
            _ => {
                in_string = c == '"';
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn comments_are_not_settings() {
        let text = "// NOTE: see \"x\"\n{ \"logging\": { \"dir\": \"/home//x/*y*/\", /* level */ \"level\": \"ERROR\", },\n\
                    \"properties\": { // \"allow_compat_mode\": true,\n \"allow_compat_mode\": false, \
                    \"use_pci_p2pdma\": \"true\", \"max_direct_io_size_kb\": 16384 },\n\
                    \"block\": {\"nvme\": {\"use_pci_p2pdma\": true}} }";
        let config = CufileConfig::parse(text).unwrap();
        assert_eq!(config.allow_compat_mode, Some(false));
        assert_eq!(config.force_compat_mode, None);
        assert_eq!((config.use_pci_p2pdma, config.nvme_use_pci_p2pdma), (Some(true), Some(true)));
        assert_eq!(config.logging_dir.as_deref(), Some("/home//x/*y*/"));
        assert_eq!(config.max_direct_io_size_kb, Some(16384));
    }

    #[test]
    fn what_is_excluded() {
        let text = r#"{"denylist": {"drivers": ["nvme", 3], "devices": "x", "mounts": [], "filesystems": ["lustre"]}}"#;
        let list = CufileConfig::parse(text).unwrap().denylist;
        assert_eq!((list.words().as_str(), list.is_empty()), ("nvme, lustre", false));
        let old = CufileConfig::parse(r#"{"blacklist": {"mounts": ["/mnt"]}, "denylist": 3}"#).unwrap();
        assert_eq!(old.denylist.mounts, ["/mnt"]);
        assert!(CufileConfig::parse("{}").unwrap().denylist.is_empty());
    }

    #[test]
    fn damaged_settings_are_errors() {
        for text in ["", "[]", "{", "{\"a\": /*", "{\"properties\": {\"x\": \"\\"] {
            assert!(CufileConfig::parse(text).is_err(), "{text}");
        }
        assert_eq!(CufileConfig::parse("{\"properties\": 3}"), Ok(CufileConfig::default()));
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in "[\"\\\\/*{},\n a-c]{0,40}") {
            let _ = CufileConfig::parse(&text);
        }

        #[test]
        fn json_without_comments_stays_as_it_is(word in "[a-z/* ]{0,10}") {
            let text = serde_json::json!({"logging": {"dir": word}}).to_string();
            prop_assert_eq!(CufileConfig::parse(&text).unwrap().logging_dir, Some(word));
        }
    }
}
