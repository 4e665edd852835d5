//! What NVIDIA's programs say on the lab's machines, as captures have it and as `tests/words` keeps it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is kept: paths below a machine's `/`, and what stands there.
pub type Words = BTreeMap<String, Vec<u8>>;

/// The lab's machines whose words are kept: no GPU, modules that the kernel refuses, a GPU that the driver refuses, and GPUs
/// that it takes and cannot start.
pub const MACHINES: [&str; 4] = ["no-gpu", "secure-boot", "bare-metal-like", "switch"];

/// The folder of one machine's words, which the validator reads like any capture.
pub fn folder(machine: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/words").join(machine)
}

/// Is a file of a capture one of NVIDIA's programs' words, or cuFile's log?
fn is_word(path: &str) -> bool {
    let programs = ["run/gdsboot/commands/nvidia-smi-", "run/gdsboot/commands/gdscheck-"];
    programs.iter().any(|program| path.starts_with(program)) || path == "tmp/cufile.log"
}

/// Those of a capture.
pub fn captured(capture: &Path) -> Words {
    let bytes = zstd::decode_all(fs_err::File::open(capture).unwrap()).unwrap();
    let mut words = Words::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        if is_word(&path) {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            words.insert(path, content);
        }
    }
    words
}

/// Those that are kept of a machine; none where nothing is kept of it.
pub fn kept(machine: &str) -> Words {
    let top = folder(machine);
    let mut words = Words::new();
    let mut folders = vec![top.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let below = path.strip_prefix(&top).unwrap().to_str().unwrap().to_owned();
                words.insert(below, fs_err::read(&path).unwrap());
            }
        }
    }
    words
}

/// Keeps a machine's words in place of those that were kept.
pub fn keep(machine: &str, words: &Words) {
    let folder = folder(machine);
    let _ = std::fs::remove_dir_all(&folder);
    for (path, bytes) in words {
        let path = folder.join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes).unwrap();
    }
}

/// The same words as text, without what differs from boot to boot.
pub fn steady(words: &Words) -> BTreeMap<&str, String> {
    words
        .iter()
        .map(|(path, bytes)| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            // cuFile's log begins each line with the time and the numbers of process and thread.
            let text = match path.as_str() {
                "tmp/cufile.log" => {
                    text.lines().map(|line| format!("{}\n", line.split_once("] ").unwrap().1)).collect()
                }
                _ => text,
            };
            (path.as_str(), text)
        })
        .collect()
}
