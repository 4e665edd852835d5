//! Where NVIDIA's tools are, and the exact commands. Pure but for looking whether a file is there.

use crate::bench::transfer::job::{Direction, Order};
use crate::facts::Root;
use crate::pasteable::with_environment;
use crate::program::ENVIRONMENT;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Where the archives of Debian and Ubuntu put them.
const ARCHIVE: &str = "/usr/libexec/gds/tools";
/// Below which folder NVIDIA's own packages put them: `cuda` leads to one of `cuda-12.8`, `cuda-13.1`, ...
const CUDA: &str = "/usr/local";

/// The tools that a machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tools {
    /// gdsio's path.
    pub gdsio: Option<String>,
    /// gdsio_verify's path.
    pub gdsio_verify: Option<String>,
    /// Where they were looked for.
    pub folders: Vec<String>,
}

impl Tools {
    /// Looks for them: the archive's first, then NVIDIA's with the newest first, then where any program may be.
    pub fn find(root: &Root) -> Self {
        let folders = folders(root);
        let find = |name: &str| {
            let mut paths = folders.iter().map(|folder| format!("{folder}/{name}"));
            paths.find(|path| is_program(root, path))
        };
        Self { gdsio: find("gdsio"), gdsio_verify: find("gdsio_verify"), folders }
    }
}

fn folders(root: &Root) -> Vec<String> {
    let names = root.list(CUDA);
    let mut versions: Vec<(Vec<u32>, &str)> = names
        .value()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter_map(|name| {
            let version = name.strip_prefix("cuda-")?.split('.').map(str::parse).collect::<Result<_, _>>();
            Some((version.ok()?, name.as_str()))
        })
        .collect();
    versions.sort_unstable();
    let cuda = std::iter::once("cuda").chain(versions.iter().rev().map(|(_, name)| *name));
    let path = ENVIRONMENT.iter().find(|(name, _)| *name == "PATH").map_or("", |(_, path)| *path);
    std::iter::once(ARCHIVE.to_owned())
        .chain(cuda.map(|name| format!("{CUDA}/{name}/gds/tools")))
        .chain(path.split(':').map(str::to_owned))
        .collect()
}

fn is_program(root: &Root, path: &str) -> bool {
    let metadata = root.locate(path).and_then(std::fs::metadata);
    metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Which way bytes go in gdsio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// cuFile between the drive and the GPU.
    Gpud,
    /// The drive and the CPU's memory.
    CpuOnly,
    /// The drive, the CPU's memory and the GPU.
    CpuGpu,
}

impl Way {
    /// Its number after `-x`.
    fn number(self) -> u32 {
        match self {
            Self::Gpud => 0,
            Self::CpuOnly => 1,
            Self::CpuGpu => 2,
        }
    }

    /// What gdsio calls it.
    pub fn xfer_type(self) -> &'static str {
        match self {
            Self::Gpud => "GPUD",
            Self::CpuOnly => "CPUONLY",
            Self::CpuGpu => "CPU_GPU",
        }
    }
}

/// What gdsio is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Which way.
    pub way: Way,
    /// Reads or writes. Writes leave nothing but the letter A.
    pub direction: Direction,
    /// In which order.
    pub order: Order,
    /// Bytes from the file's beginning that are touched.
    pub bytes: u64,
    /// Bytes of each transfer.
    pub block: u32,
    /// Threads, each with one transfer under way.
    pub threads: u32,
    /// How long.
    pub seconds: u32,
}

impl Shape {
    /// What gdsio calls the direction and the order.
    pub fn io_type(&self) -> &'static str {
        match (self.order, self.direction) {
            (Order::Sequential, Direction::Read) => "READ",
            (Order::Sequential, Direction::Write) => "WRITE",
            (Order::Random, Direction::Read) => "RANDREAD",
            (Order::Random, Direction::Write) => "RANDWRITE",
        }
    }

    fn io_number(&self) -> u32 {
        match (self.order, self.direction) {
            (Order::Sequential, Direction::Read) => 0,
            (Order::Sequential, Direction::Write) => 1,
            (Order::Random, Direction::Read) => 2,
            (Order::Random, Direction::Write) => 3,
        }
    }
}

/// A GPU as CUDA counts them, and the memory near it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near<'a> {
    /// Its number in the order of PCI addresses.
    pub index: u32,
    /// Its PCI address.
    pub pci: &'a str,
    /// Its NUMA node, where that is known; gdsio refuses one that the machine does not have.
    pub numa: Option<u32>,
}

/// A program with its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// What its environment has besides [`ENVIRONMENT`].
    pub environment: [(&'static str, String); 2],
    /// The program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
}

impl CommandLine {
    /// gdsio at `program`, on `file`, with cuFile's settings at `settings`.
    pub fn gdsio(program: &str, near: &Near<'_>, file: &str, shape: &Shape, settings: &Path) -> Self {
        let mut args = words(["-f", file, "-d", &near.index.to_string()]);
        if let Some(node) = near.numa {
            args.extend(words(["-n", &node.to_string()]));
        }
        args.extend(words(["-w", &shape.threads.to_string()]));
        args.extend(words(["-s", &kib(shape.bytes), "-i", &kib(u64::from(shape.block))]));
        args.extend(words(["-x", &shape.way.number().to_string(), "-I", &shape.io_number().to_string()]));
        args.extend(words(["-T", &shape.seconds.to_string()]));
        Self::new(program, args, settings)
    }

    /// gdsio_verify at `program`: the first `bytes` of `file` into the GPU, compared, written from there into a file beside
    /// it, compared; all by calls that wait (`-m 1`), in pieces of `chunk`, once.
    pub fn gdsio_verify(
        program: &str,
        near: &Near<'_>,
        file: &str,
        bytes: u64,
        chunk: u64,
        settings: &Path,
    ) -> Self {
        let mut args = words(["-f", file, "-d", &near.index.to_string(), "-o", "0"]);
        args.extend(words(["-s", &kib(bytes), "-c", &kib(chunk), "-n", "1", "-m", "1"]));
        Self::new(program, args, settings)
    }

    fn new(program: &str, args: Vec<String>, settings: &Path) -> Self {
        let environment = [
            ("CUDA_DEVICE_ORDER", "PCI_BUS_ID".to_owned()),
            ("CUFILE_ENV_PATH_JSON", settings.display().to_string()),
        ];
        Self { environment, program: program.to_owned(), args }
    }

    /// As it can be pasted into a shell.
    pub fn line(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args).map(String::as_str);
        with_environment(self.environment.iter().map(|(name, value)| (*name, value.as_str())), words)
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// Both tools read `K` as KiB.
fn kib(bytes: u64) -> String {
    format!("{}K", bytes / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        way: Way::Gpud,
        direction: Direction::Read,
        order: Order::Sequential,
        bytes: 1 << 30,
        block: 1 << 20,
        threads: 4,
        seconds: 10,
    };

    #[test]
    fn the_exact_commands() {
        let near = Near { index: 1, pci: "0000:81:00.0", numa: Some(1) };
        let settings = Path::new("/tmp/x y/cufile.json");
        let line = |near, shape| {
            CommandLine::gdsio("/usr/libexec/gds/tools/gdsio", near, "/proc/7/fd/3", shape, settings).line()
        };
        insta::assert_snapshot!(line(&near, &SHAPE), @"CUDA_DEVICE_ORDER=PCI_BUS_ID CUFILE_ENV_PATH_JSON='/tmp/x y/cufile.json' /usr/libexec/gds/tools/gdsio -f /proc/7/fd/3 -d 1 -n 1 -w 4 -s 1048576K -i 1024K -x 0 -I 0 -T 10");
        let random = Shape {
            way: Way::CpuGpu,
            direction: Direction::Write,
            order: Order::Random,
            block: 4096,
            ..SHAPE
        };
        insta::assert_snapshot!(line(&Near { numa: None, ..near }, &random), @"CUDA_DEVICE_ORDER=PCI_BUS_ID CUFILE_ENV_PATH_JSON='/tmp/x y/cufile.json' /usr/libexec/gds/tools/gdsio -f /proc/7/fd/3 -d 1 -w 4 -s 1048576K -i 4K -x 2 -I 3 -T 10");
        let verify = CommandLine::gdsio_verify(
            "/usr/local/cuda/gds/tools/gdsio_verify",
            &near,
            "/mnt/x/data",
            256 << 20,
            16 << 20,
            settings,
        );
        insta::assert_snapshot!(verify.line(), @"CUDA_DEVICE_ORDER=PCI_BUS_ID CUFILE_ENV_PATH_JSON='/tmp/x y/cufile.json' /usr/local/cuda/gds/tools/gdsio_verify -f /mnt/x/data -d 1 -o 0 -s 262144K -c 16384K -n 1 -m 1");
    }

    #[test]
    fn every_way_and_kind_has_gdsio_s_number_and_word() {
        let near = Near { index: 0, pci: "", numa: None };
        let after = |shape: &Shape, option: &str| {
            let args = CommandLine::gdsio("gdsio", &near, "x", shape, Path::new("y")).args;
            args[args.iter().position(|word| word == option).unwrap() + 1].clone()
        };
        for (way, number, word) in
            [(Way::Gpud, "0", "GPUD"), (Way::CpuOnly, "1", "CPUONLY"), (Way::CpuGpu, "2", "CPU_GPU")]
        {
            assert_eq!((after(&Shape { way, ..SHAPE }, "-x").as_str(), way.xfer_type()), (number, word));
        }
        for (direction, order, number, word) in [
            (Direction::Read, Order::Sequential, "0", "READ"),
            (Direction::Write, Order::Sequential, "1", "WRITE"),
            (Direction::Read, Order::Random, "2", "RANDREAD"),
            (Direction::Write, Order::Random, "3", "RANDWRITE"),
        ] {
            let shape = Shape { direction, order, ..SHAPE };
            assert_eq!((after(&shape, "-I").as_str(), shape.io_type()), (number, word));
        }
    }

    #[test]
    fn the_archive_s_tools_come_first_and_of_nvidia_s_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str, mode| {
            let path = dir.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(&path, "").unwrap();
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let root = Root::at(dir.path());
        assert_eq!(Tools::find(&root).gdsio, None);
        make("usr/bin/gdsio", 0o755);
        assert_eq!(Tools::find(&root).gdsio.as_deref(), Some("/usr/bin/gdsio"));
        for (version, newest) in [("9.2", "9.2"), ("12.8", "12.8"), ("12.10", "12.10"), ("12.9", "12.10")] {
            make(&format!("usr/local/cuda-{version}/gds/tools/gdsio"), 0o755);
            let expected = format!("/usr/local/cuda-{newest}/gds/tools/gdsio");
            assert_eq!(Tools::find(&root).gdsio, Some(expected));
        }
        std::os::unix::fs::symlink("cuda-12.8", dir.path().join("usr/local/cuda")).unwrap();
        assert_eq!(Tools::find(&root).gdsio.as_deref(), Some("/usr/local/cuda/gds/tools/gdsio"));
        // What cannot be executed is no program, and neither is a folder.
        make("usr/libexec/gds/tools/gdsio", 0o644);
        fs_err::create_dir(dir.path().join("usr/libexec/gds/tools/gdsio_verify")).unwrap();
        let tools = Tools::find(&root);
        assert_eq!(tools.gdsio.as_deref(), Some("/usr/local/cuda/gds/tools/gdsio"));
        assert_eq!(tools.gdsio_verify, None);
        make("usr/libexec/gds/tools/gdsio", 0o755);
        assert_eq!(Tools::find(&root).gdsio.as_deref(), Some("/usr/libexec/gds/tools/gdsio"));
    }
}
