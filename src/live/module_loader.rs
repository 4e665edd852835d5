//! Loading kernel modules with finit_module(2): what the kernel answered, how long it took, and what it logged.

use super::kernel_log::KernelLog;
use crate::facts::Root;
use crate::facts::module_tree::{self, ModuleTree};
use crate::facts::modules::{LoadOutcome, ModuleLoad};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module, init_module};
use std::time::Instant;

/// Loads modules and remembers what came of each.
#[derive(Debug)]
pub struct ModuleLoader {
    log: KernelLog,
    /// Every attempt, in order.
    pub loads: Vec<ModuleLoad>,
}

impl ModuleLoader {
    /// A loader that has loaded nothing.
    pub fn new() -> Self {
        Self { log: KernelLog::open(), loads: Vec::new() }
    }

    /// Loads one file.
    pub fn load_file(&mut self, root: &Root, path: &str) -> LoadOutcome {
        self.log.skip();
        let start = Instant::now();
        let outcome = insert(root, path);
        let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let load = ModuleLoad {
            name: module_tree::module_name(path),
            path: Some(path.to_owned()),
            outcome: outcome.clone(),
            ms,
            kernel_lines: self.log.lines(),
        };
        self.loads.push(load);
        outcome
    }

    /// Loads a module by name, what it needs first. Nothing is tried that was tried before.
    pub fn load(&mut self, root: &Root, tree: &ModuleTree, name: &str) -> LoadOutcome {
        let files = match tree.load_order(name) {
            Some(files) => files,
            None => {
                let outcome = if tree.is_builtin(name) {
                    LoadOutcome::BuiltIn
                } else {
                    LoadOutcome::NotFound { searched: tree.folder().to_owned() }
                };
                return self.note(name, None, outcome);
            }
        };
        let (last, needs) = files.split_last().map_or(("", &[][..]), |(last, needs)| (last.as_str(), needs));
        for path in needs {
            let need = module_tree::module_name(path);
            let outcome = self.tried(&need).unwrap_or_else(|| self.load_file(root, path));
            if !outcome.is_in() {
                return self.note(name, Some(last), LoadOutcome::Dependency { needs: need });
            }
        }
        self.tried(&module_tree::module_name(last)).unwrap_or_else(|| self.load_file(root, last))
    }

    fn tried(&self, name: &str) -> Option<LoadOutcome> {
        self.loads.iter().find(|load| load.name == name).map(|load| load.outcome.clone())
    }

    fn note(&mut self, name: &str, path: Option<&str>, outcome: LoadOutcome) -> LoadOutcome {
        self.loads.push(ModuleLoad {
            name: module_tree::module_name(name),
            path: path.map(str::to_owned),
            outcome: outcome.clone(),
            ms: 0,
            kernel_lines: Vec::new(),
        });
        outcome
    }
}

impl Default for ModuleLoader {
    fn default() -> Self {
        Self::new()
    }
}

fn insert(root: &Root, path: &str) -> LoadOutcome {
    // Unpacking a module in vain is dear.
    if root.exists(&format!("/sys/module/{}/initstate", module_tree::module_name(path))) {
        return LoadOutcome::Already;
    }
    let file = match root.open(path) {
        Ok(file) => file,
        Err(error) => return LoadOutcome::Unreadable { why: error.to_string() },
    };
    let answer = if path.ends_with(".ko") {
        finit_module(&file, c"", ModuleInitFlags::empty())
    } else {
        // Not every kernel unpacks modules itself, and none unpacks every kind.
        match module_tree::unpack(path, file) {
            Ok(bytes) => init_module(&bytes, c""),
            Err(error) => return LoadOutcome::Unreadable { why: crate::error::one_line(&error) },
        }
    };
    match answer {
        Ok(()) => LoadOutcome::Loaded,
        Err(Errno::EEXIST) => LoadOutcome::Already,
        Err(errno) => {
            LoadOutcome::Refused { errno: errno as i32, name: format!("{errno:?}"), text: words(errno) }
        }
    }
}

/// The C library's words, which are those that people search for.
fn words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_in_the_words_of_the_c_library() {
        assert_eq!(words(Errno::ENODEV), "No such device");
        assert_eq!(words(Errno::EOPNOTSUPP), "Operation not supported");
    }

    #[test]
    fn what_is_needed_and_cannot_be_read_stops_what_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("usr/lib/modules/1.0");
        fs_err::create_dir_all(&folder).unwrap();
        let dep = "a.ko: b.ko\nb.ko:\nc.ko: b.ko\n";
        fs_err::write(folder.join("modules.dep"), dep).unwrap();
        fs_err::write(folder.join("modules.builtin"), "kernel/virtio_pci.ko\n").unwrap();
        let root = Root::at(dir.path());
        let tree = ModuleTree::read(&root, "1.0").value().unwrap().clone();
        let mut loader = ModuleLoader { log: KernelLog::open(), loads: vec![] };
        for name in ["a", "c", "virtio-pci", "zfs"] {
            loader.load(&root, &tree, name);
        }
        let words: Vec<String> =
            loader.loads.iter().map(|load| format!("{} {}", load.name, load.outcome.words())).collect();
        assert_eq!(words.len(), 5, "b is tried once: {words:?}");
        assert!(words[0].starts_with("b unreadable: "), "{words:?}");
        assert_eq!(words[1], "a needs b, which is not loaded");
        assert_eq!(words[2], "c needs b, which is not loaded");
        assert_eq!(words[3], "virtio_pci built into the kernel");
        assert_eq!(words[4], "zfs not found in /usr/lib/modules/1.0");
    }
}
