//! The boot menu on an image's ESP, as far as gdsboot writes it: `grub.cfg` with entries of one `linux` and one
//! `initrd` line each. GRUB's language has more; what is not understood is not an entry.

use serde::Serialize;

/// One entry of the menu.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MenuEntry {
    /// What the user sees.
    pub title: String,
    /// The kernel's path on the ESP, without a leading slash.
    pub kernel: String,
    /// The initial RAM disk's path on the ESP, without a leading slash.
    pub initrd: Option<String>,
    /// The kernel's command line.
    pub arguments: String,
}

/// Reads the entries of a `grub.cfg`.
pub fn parse(text: &str) -> Vec<MenuEntry> {
    let mut entries: Vec<MenuEntry> = Vec::new();
    let mut title = String::new();
    for line in text.lines() {
        let (command, rest) = split(line.trim());
        match command {
            "menuentry" => title = quoted(rest).to_owned(),
            "linux" | "linuxefi" => {
                let (kernel, arguments) = split(rest);
                entries.push(MenuEntry {
                    title: std::mem::take(&mut title),
                    kernel: path(kernel),
                    initrd: None,
                    arguments: arguments.to_owned(),
                });
            }
            "initrd" | "initrdefi" => {
                if let Some(entry) = entries.last_mut() {
                    entry.initrd = Some(path(split(rest).0));
                }
            }
            _ => {}
        }
    }
    entries
}

fn split(line: &str) -> (&str, &str) {
    line.split_once(char::is_whitespace).map_or((line, ""), |(word, rest)| (word, rest.trim()))
}

/// What stands between the first pair of quotes, or the first word.
fn quoted(text: &str) -> &str {
    match text.chars().next() {
        Some(quote @ ('\'' | '"')) => text[1..].split(quote).next().unwrap_or_default(),
        _ => split(text).0,
    }
}

/// The path without GRUB's device, `($root)` or `(hd0,gpt2)`, and without the leading slash.
fn path(word: &str) -> String {
    let path = if word.starts_with('(') { word.split_once(')').map_or(word, |(_, path)| path) } else { word };
    path.trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_kernel_initrd_and_arguments() {
        let text = r#"
            set timeout=3
            menuentry "Validate this machine" --id validate {
                echo 'gdsboot: loading the kernel'
                linux ($root)/gdsboot/vmlinuz console=ttyS0,115200  gdsboot.after=poweroff
                initrd ($root)/gdsboot/initrd.img
            }
            menuentry 'Shell' {
                linux /gdsboot/vmlinuz
            }
            menuentry 'Firmware setup' { fwsetup }
            initrd
        "#;
        let entries = parse(text);
        assert_eq!(entries.len(), 2);
        let first = &entries[0];
        assert_eq!(first.title, "Validate this machine");
        assert_eq!(
            (first.kernel.as_str(), first.initrd.as_deref()),
            ("gdsboot/vmlinuz", Some("gdsboot/initrd.img"))
        );
        assert_eq!(first.arguments, "console=ttyS0,115200  gdsboot.after=poweroff");
        assert_eq!((entries[1].title.as_str(), entries[1].arguments.as_str()), ("Shell", ""));
    }

    #[test]
    fn other_text_has_no_entries() {
        assert_eq!(parse(""), []);
        assert_eq!(parse("menuentry '\ninitrd /x\nlinuxx /y\n\u{0}"), []);
    }
}
