//! What `gdsboot-dma probe` answers: one JSON line about NVIDIA's user-space libraries. Both ends use these types.

use serde::{Deserialize, Serialize};

/// The version of [`DmaProbe`]'s form.
pub const VERSION: u32 = 1;

/// NVIDIA's user-space libraries as the dynamic loader finds them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DmaProbe {
    /// [`VERSION`].
    pub v: u32,
    /// One entry per library, in the order in which they were tried.
    pub libraries: Vec<Library>,
}

/// One library.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Library {
    /// The name that was asked for, such as `libcuda.so.1`.
    pub name: String,
    /// Where the loader found it.
    pub path: Option<String>,
    /// The loader's words where it could not be loaded.
    pub error: Option<String>,
    /// Does it only imitate NVIDIA's? Then nothing that comes from it says anything about a machine.
    #[serde(default)]
    pub simulated: bool,
    /// Its calls that were made, in order.
    pub calls: Vec<Call>,
}

/// A call into a library.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Call {
    /// The function.
    pub function: String,
    /// What it returned; `None` where the library has no such function, so that it was not called.
    pub status: Option<i64>,
    /// What it handed out, where it succeeded.
    pub value: Option<String>,
}

impl Library {
    /// Was it loaded?
    pub fn is_loaded(&self) -> bool {
        self.error.is_none()
    }

    /// What `function` handed out.
    pub fn value_of(&self, function: &str) -> Option<&str> {
        self.calls.iter().find(|call| call.function == function)?.value.as_deref()
    }
}

impl DmaProbe {
    /// Reads the worker's answer: the last line that is a JSON object, because libraries may print what they like.
    pub fn parse(stdout: &str) -> Result<Self, String> {
        let line = stdout.lines().rev().find(|line| line.starts_with('{'));
        let line = line.ok_or("the worker printed no JSON object")?;
        // By way of a tree, as facts are read, so that the code for it exists once.
        let tree = serde_json::from_slice(line.as_bytes()).map_err(|e| e.to_string())?;
        let probe: Self = serde_json::from_value(tree).map_err(|e| e.to_string())?;
        if probe.v > VERSION {
            return Err(format!("its version {} is newer than {VERSION}", probe.v));
        }
        Ok(probe)
    }

    /// The entry of a library.
    pub fn library(&self, name: &str) -> Option<&Library> {
        self.libraries.iter().find(|library| library.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_found_among_what_libraries_print() {
        let text = "libcufile: hello\n{\"v\":1,\"libraries\":[{\"name\":\"libcuda.so.1\",\"path\":null,\"error\":\"gone\",\"calls\":[]}]}\nbye\n";
        let probe = DmaProbe::parse(text).unwrap();
        assert!(!probe.library("libcuda.so.1").unwrap().is_loaded());
        assert!(probe.library("libnvidia-ml.so.1").is_none());
        assert!(DmaProbe::parse("").is_err());
        assert!(DmaProbe::parse("{\"v\":2,\"libraries\":[]}").is_err());
        assert!(DmaProbe::parse("{\"v\":1").is_err());
    }
}
