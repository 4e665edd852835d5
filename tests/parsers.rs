//! No parser of bytes that come from elsewhere panics, hangs or takes all memory: real inputs, damaged in many ways. The
//! same functions are fuzzed with coverage in `fuzz/`.

mod archive;
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use archive::artefacts::{self, Module};
use archive::deb::{Compression, Deb};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::io::{Cursor, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// Damaged variants of each input.
const VARIANTS: usize = 400;

fn repository(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A filesystem and the disk it lies on, made by other implementations.
fn disks() -> (Vec<u8>, Vec<u8>) {
    let mut fat = vec![0; 1 << 20];
    fatfs::format_volume(Cursor::new(&mut fat), fatfs::FormatVolumeOptions::new()).unwrap();
    {
        let fs = fatfs::FileSystem::new(Cursor::new(&mut fat), fatfs::FsOptions::new()).unwrap();
        let run = fs.root_dir().create_dir("runs").unwrap().create_dir("x").unwrap();
        run.create_file("report.json").unwrap().write_all(b"{}").unwrap();
        fs.root_dir().create_file("a longer name.txt").unwrap().write_all(&[7; 5000]).unwrap();
    }
    let mut disk = Cursor::new(vec![0_u8; 64 << 10]);
    let mut gpt = gptman::GPT::new_from(&mut disk, 512, [7; 16]).unwrap();
    gpt[1] = gptman::GPTPartitionEntry {
        partition_type_guid: [1; 16],
        unique_partition_guid: [2; 16],
        starting_lba: 40,
        ending_lba: 60,
        attribute_bits: 0,
        partition_name: "GDSREPORT".into(),
    };
    gpt.write_into(&mut disk).unwrap();
    (fat, disk.into_inner())
}

/// Inputs that each parser accepts.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let module = || Module { name: "nvidia", depends: &["i2c-core"], ..Module::default() }.bytes();
    match target {
        "apt_output" => vec![
            b"'http://h.invalid/debian/pool/a_1%3a2_amd64.deb' a_1%3a2_amd64.deb 123 SHA256:00\n".to_vec(),
            b"Types: deb\nURIs: http://h.invalid/debian\nSuites: a b\n\nTypes: deb-src\n".to_vec(),
            b"deb [arch=amd64 signed-by=/x] http://h.invalid/debian trixie main # c\n".to_vec(),
            b"Package: a\nVersion: 1:2-3\nDescription: x\n y\nReplaces: b (<< 2), c\n".to_vec(),
            b"Sat, 22 Nov 2026 13:26:06 UTC".to_vec(),
        ],
        "captured_text" => vec![
            b" GDS release version: 1.16.1.26\n DRIVER CONFIGURATION:\n NVMe : nvfs, compat\n GPU index 0 X bar:1 bar size (MiB):256 supports GDS\n".to_vec(),
            br#"{ // c
                "properties": {"use_pci_p2pdma": true, "max_direct_io_size_kb": 16384,}, /* x */ "logging": {"dir": "/tmp"}}"#.to_vec(),
            b"Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 590.44\n    Fabric\n State : Completed\n".to_vec(),
            b"export CUFILE_NVTX=1\nEnvironment=\"CUFILE_LOGGING_LEVEL=TRACE\" A=b\n".to_vec(),
            b"[[waive]]\nid = \"gpu.present\"\nuntil = \"2027-01-31\"\nby = \"A\"\nwhy = \"B\"\n".to_vec(),
        ],
        "config_space" => {
            let mut config = vec![0; 4096];
            config[6] = 0x10;
            config[0x34] = 0x78;
            config[0x78..0x7c].copy_from_slice(&[0x10, 0xc8, 0x42, 0]);
            config[0xc8..0xd0].copy_from_slice(&[0x09, 0, 8, b'P', b'2', b'P', 0, 0]);
            config[0x100..0x104].copy_from_slice(&0x1401_000d_u32.to_le_bytes());
            config[0x140..0x144].copy_from_slice(&0x0001_0003_u32.to_le_bytes());
            vec![config.clone(), config[..256].to_vec(), config[..64].to_vec()]
        }
        "deb" => [Compression::None, Compression::Gzip, Compression::Xz, Compression::Zstd]
            .map(|c| Deb::new("a", "1").file("usr/bin/a", vec![5; 3000]).symlink("l", "usr").compress(c).bytes())
            .to_vec(),
        "elf" => vec![module(), artefacts::loader(&["sbat,1,x,y,1,z", "grub,5,x,y,1,z"])],
        "fat" => vec![disks().0],
        "gdsio_output" => vec![
            b"IoType: READ XferType: GPUD Threads: 8 DataSetSize: 67814400/8388608(KiB) IOSize: 1024(KiB) Throughput: 6.803043 \
              GiB/sec, Avg_Latency: 1148.187468 usecs ops: 66225 total_time 9.506460 secs\n"
                .to_vec(),
            b"IoType: READ XferType: GPUD Threads: 16 DataSetSize: 1073442816/1073741824 IOSize: 4(KiB),Throughput: 0.167347 \
              GiB/sec, Avg_Latency: 45.588810 usecs ops: 071 total_latency 5973939.000000\nfile register error: x\n"
                .to_vec(),
        ],
        "gpt" => vec![disks().1],
        "guest_lines" => vec![
            b"6,339,5140900,-;NVRM: loading\n SUBSYSTEM=pci".to_vec(),
            repository("image/templates/grub.cfg"),
            br#"gdsboot-event: {"v":1,"stage":"checks","seconds":1.5}"#.to_vec(),
        ],
        "kernel_module" => {
            vec![module(), artefacts::sign_module(&module()), b"a/b.ko.xz: c.ko d.ko\n".to_vec()]
        }
        "lock" => vec![
            format!(
                "version = 1\nprofile = \"x\"\nresolve_key = \"k\"\nepoch = 1\nkernel = \"6\"\n\n[[package]]\n\
                 name = \"a\"\nversion = \"1\"\narch = \"all\"\nsource = \"s\"\npath = \"p\"\nsize = 1\n\
                 sha256 = \"{}\"\nsets = [\"image\"]\n",
                "0".repeat(64)
            )
            .into_bytes(),
        ],
        "machine_file" => vec![repository("qemu/machines/no-gpu.toml")],
        "packed_log" => {
            let log = b"[ 1.0] NVRM: loading\n[ 2.0] nvme nvme0: x\n".repeat(20);
            [(0, Compression::None), (1, Compression::Xz), (2, Compression::Zstd), (3, Compression::Gzip)]
                .map(|(n, c)| [&[n], &c.compress(&log)[..]].concat())
                .to_vec()
        }
        "packed_module" => {
            [(0, Compression::None), (1, Compression::Xz), (2, Compression::Zstd), (3, Compression::Gzip)]
                .map(|(n, c)| [&[n], &c.compress(&module())[..]].concat())
                .to_vec()
        }
        "profile" => vec![repository("image/profiles/debian-12.toml"), repository("image/profiles/ubuntu-24.04.toml")],
        "report" => vec![
            br#"{"version":1,"run":{"id":"x"},"verdict":"INCOMPLETE","route":"none","findings":[],"facts":{}}"#.to_vec(),
        ],
        _ => panic!("{target} has no seeds"),
    }
}

/// Flips, cuts, repeats and overwrites, as bad media and bad people do.
fn damage(seed: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..rng.gen_range(1..=6) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = rng.gen_range(0..bytes.len());
        match rng.gen_range(0..7) {
            0 => bytes[at] ^= 1 << rng.gen_range(0..8),
            1 => bytes[at] = [0, 0xff, 0x7f, 0x80][rng.gen_range(0..4)],
            2 => bytes.truncate(at),
            3 => {
                let end = bytes.len().min(at + rng.gen_range(1..64));
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            4 => {
                let end = bytes.len().min(at + 8);
                bytes[at..end].fill(0xff);
            }
            5 => drop(bytes.drain(at..(at + rng.gen_range(1..32)).min(bytes.len()))),
            // Where the structure is.
            _ => {
                let at = rng.gen_range(0..bytes.len().min(128));
                bytes[at] = rng.r#gen();
            }
        }
    }
    bytes
}

#[test]
fn damaged_input_is_refused_or_read_but_never_fatal() {
    for (name, target) in fuzz::TARGETS {
        let mut rng = StdRng::seed_from_u64(0x9d5);
        for seed in seeds(name) {
            target(&seed);
            for variant in 0..VARIANTS {
                let bytes = damage(&seed, &mut rng);
                let started = Instant::now();
                let result = std::panic::catch_unwind(|| target(&bytes));
                let took = started.elapsed();
                if result.is_err() || took > Duration::from_secs(10) {
                    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{variant}"));
                    std::fs::write(&path, &bytes).unwrap();
                    panic!("{name} panicked or took {took:?} on {}", path.display());
                }
            }
        }
    }
}

#[test]
fn every_target_is_built_by_cargo_fuzz() {
    let manifest = String::from_utf8(repository("fuzz/Cargo.toml")).unwrap();
    for (name, _) in fuzz::TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml does not list {name}");
        let target = String::from_utf8(repository(&format!("fuzz/fuzz_targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("gdsboot_fuzz::{name}(")), "{target}");
    }
}
