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
        let run = fs.root_dir().create_dir("reports").unwrap().create_dir("x").unwrap();
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
        "captured_machine" => captured_machines(),
        "captured_text" => vec![
            b" GDS release version: 1.16.1.26\n DRIVER CONFIGURATION:\n NVMe : nvfs, compat\n GPU index 0 X bar:1 bar size (MiB):256 supports GDS\n".to_vec(),
            br#"{ // c
                "properties": {"use_pci_p2pdma": true, "max_direct_io_size_kb": 16384,}, /* x */ "logging": {"dir": "/tmp"}}"#.to_vec(),
            repository("tests/words/switch/run/gdsboot/commands/gdscheck-2/stdout"),
            repository("tests/words/no-gpu/run/gdsboot/commands/nvidia-smi-0/stdout"),
            b"Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 590.44\n    Fabric\n State : Completed\n".to_vec(),
            b"export CUFILE_NVTX=1\nEnvironment=\"CUFILE_LOGGING_LEVEL=TRACE\" A=b\n".to_vec(),
            b"[[waive]]\nid = \"gpu.present\"\nuntil = \"2027-01-31\"\nby = \"A\"\nwhy = \"B\"\n".to_vec(),
            b"[[workload]]\nname = \"a\"\ncommand = \"/x 'y z' {file}\"\nfigure = '([0-9.]+) s'\nat_most = 2\nunit = 's'\n".to_vec(),
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
        "disk" => [u64::MAX, 64 << 10, 0].map(|size| [&size.to_le_bytes()[..], &disks().1].concat()).to_vec(),
        "domain_xml" => vec![repository("tests/vm/broken.xml"), repository("tests/vm/good.xml")],
        "proxmox_conf" => vec![
            repository("tests/vm/100.conf"),
            b"fast\n\tmap id=144d:a80a,node=pve,path=0000:42:00.0;0000:43:00\n".to_vec(),
        ],
        "qemu_command_line" => vec![
            repository("tests/vm/start.sh"),
            b"/usr/bin/kvm\0-id\x00100\0-readconfig\0/usr/share/qemu-server/pve-q35-4.0.cfg\0-device\0\
              {\"driver\":\"vfio-pci\",\"host\":\"41:00.0\",\"bus\":\"ich9-pcie-port-1\"}\0".to_vec(),
        ],
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
        "gdsio_verify_output" => ["success", "mismatch", "read-only", "short-file"]
            .map(|name| repository(&format!("tests/gdsio/verify-{name}.txt")))
            .to_vec(),
        "gpt" => vec![disks().1],
        "guest_lines" => vec![
            b"6,339,5140900,-;NVRM: loading\n SUBSYSTEM=pci".to_vec(),
            repository("image/templates/grub.cfg"),
            br#"gdsboot-event: {"v":1,"stage":"checks","seconds":1.5}"#.to_vec(),
        ],
        "http_answer" => vec![
            b"HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\nContent-Range: bytes 3-5/6\r\n\r\ndef".to_vec(),
            b"http://10.0.2.2:8080/gdsboot/root.squashfs".to_vec(),
            b"quiet gdsboot.report_url=\"https://me:word@s3/b/k?X-Amz-Signature=1\" panic=30\n".to_vec(),
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
        "qcow2" => {
            let file = zstd::Decoder::new(std::fs::File::open("tests/qcow2/images.tar.zst").unwrap()).unwrap();
            let mut archive = tar::Archive::new(file);
            let mut seeds = Vec::new();
            for entry in archive.entries().unwrap() {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().into_owned();
                if ["small-clusters.qcow2", "zstd.qcow2"].iter().any(|name| path == Path::new(name)) {
                    let mut bytes = Vec::new();
                    std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
                    seeds.push(bytes);
                }
            }
            seeds
        }
        "report" => vec![
            br#"{"version":1,"run":{"id":"x"},"verdict":"INCOMPLETE","route":"none","findings":[],"facts":{}}"#.to_vec(),
        ],
        "row" => {
            let machine = tempfile::tempdir().unwrap();
            let facts = gdsboot::facts::Facts::read(&gdsboot::facts::Root::at(machine.path()));
            let judgement = gdsboot::checks::judge::judge(&facts, gdsboot::checks::check::Side::Guest, None, &[], "2026-11-28");
            let now = gdsboot::report::utc::Utc(0);
            let report = gdsboot::report::model::Report::of_check(facts, None, judgement, "aaaaaaaa".into(), now);
            vec![serde_json::to_vec(&report).unwrap()]
        }
        "samples" => {
            let line = |number: u32| {
                let bytes: Vec<u64> = (0..30).map(|n| 100_000_000 + n * 1000).collect();
                format!("{{\"number\":{number},\"ran\":{{\"samples\":{{\"seconds\":3.0,\"bytes\":{bytes:?}}}}}}}\n")
            };
            vec![(1..=3).map(line).collect::<String>().into_bytes()]
        }
        "write_log" => {
            let sector = |words: &[u64]| {
                let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                bytes.resize(512, 7);
                bytes
            };
            let magic = 0x006a_7366_7773_6872;
            vec![[sector(&[magic, 1, 3, 512]), sector(&[3, 1, 0, 0]), vec![1; 512], sector(&[0, 0, 1, 0])].concat()]
        }
        _ => panic!("{target} has no seeds"),
    }
}

/// A server as its files, and a guest as what programs printed there.
fn captured_machines() -> Vec<Vec<u8>> {
    let gpu = "sys/bus/pci/devices/0000:41:00.0";
    let nvme = "sys/bus/pci/devices/0000:42:00.0";
    let server = [
        (format!("{gpu}/vendor"), "0x10de\n"),
        (format!("{gpu}/device"), "0x2331\n"),
        (format!("{gpu}/class"), "0x030200\n"),
        (format!("{gpu}/numa_node"), "1\n"),
        (
            format!("{gpu}/resource"),
            "0x81000000 0x81ffffff 0x40200\n0x0 0x0 0x0\n0x2000000000 0x3fffffffff 0x14220c\n",
        ),
        (format!("{gpu}/resource1_resize"), "00000000000fffc0\n"),
        (format!("{gpu}/current_link_speed"), "16.0 GT/s PCIe\n"),
        (format!("{gpu}/max_link_speed"), "32.0 GT/s PCIe\n"),
        (format!("{gpu}/aer_dev_fatal"), "Undefined 0\nDLP 3\nTOTAL_ERR_FATAL 3\n"),
        (format!("{gpu}/reset_method"), "flr bus\n"),
        (format!("{gpu}/power_state"), "D3cold\n"),
        (format!("{nvme}/vendor"), "0x144d\n"),
        (format!("{nvme}/class"), "0x010802\n"),
        ("sys/class/nvme/nvme0/state".into(), "live\n"),
        ("sys/class/nvme/nvme0/transport".into(), "pcie\n"),
        ("sys/class/nvme/nvme0/address".into(), "0000:42:00.0\n"),
        ("sys/block/nvme0n1/size".into(), "7501476528\n"),
        ("sys/block/nvme0n1/nvme0n1p1/partition".into(), "1\n"),
        ("sys/block/nvme0n1/nvme0n1p1/start".into(), "2048\n"),
        ("sys/kernel/iommu_groups/12/type".into(), "DMA-FQ\n"),
        ("sys/firmware/acpi/tables/DMAR".into(), "DMAR\u{50}\0\0\0\u{1}x"),
        ("proc/cpuinfo".into(), "processor : 0\nvendor_id : GenuineIntel\ncpu family : 6\nflags : vmx\n"),
        ("proc/cmdline".into(), "root=/dev/nvme1n1p2 intel_iommu=on iommu=pt\n"),
        ("proc/meminfo".into(), "MemTotal: 2113929216 kB\nHugePages_Total: 8\n"),
        ("proc/modules".into(), "nvidia_fs 1 0 - Live 0x0 (OE)\nnvidia 1 1 nvidia_fs, Live 0x0 (OE)\n"),
        ("proc/kallsyms".into(), "0 T nvme_v1_register_nvfs_dma_ops [nvme]\n"),
        ("proc/self/mountinfo".into(), "30 1 259:1 / /data\\040x rw - ext4 /dev/nvme0n1p1 rw,data=ordered\n"),
        ("proc/sys/kernel/osrelease".into(), "6.8.0-79-generic\n"),
        ("proc/sys/kernel/tainted".into(), "12288\n"),
        (
            "proc/driver/nvidia/version".into(),
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release\n",
        ),
        ("proc/driver/nvidia/params".into(), "RegistryDwords: \"RMForceStaticBar1=1;\"\n"),
        (
            "proc/driver/nvidia/gpus/0000:41:00.0/information".into(),
            "Model: \t NVIDIA H100\nDevice Minor: \t 0\n",
        ),
        ("proc/driver/nvidia-fs/version".into(), "version: 2.27\n"),
        (
            "proc/driver/nvidia-fs/peer_distance".into(),
            "gpu\t\tpeer\t\tpeerrank\tp2pdist\tlink\tgen\tclass\n0000:41:00.0\t0000:42:00.0\t0x0082\t0x0082\tx4\tgen4\tnvme\n",
        ),
        ("proc/driver/nvidia-fs/stats".into(), "GDS Version: 1.15\nReads: n=5 ok=5 err=0 readMiB=2\n"),
        (
            "etc/cufile.json".into(),
            "{ // c\n\"properties\": {\"use_pci_p2pdma\": true,}, \"denylist\": {\"drivers\": []} }\n",
        ),
        ("var/lib/dkms/nvidia/580.95.05/6.8.0-79-generic/x86_64/x".into(), ""),
        (
            "dev/kmsg".into(),
            "6,0,0,-;Linux version 6.8.0\n3,1,9,-;NVRM: Xid (PCI:0000:41:00): 79, GPU has fallen off\n SUBSYSTEM=pci\n",
        ),
    ];
    let printed = |program: &str| format!("run/gdsboot/commands/{program}/stdout");
    let guest = [
        (
            printed("lspci-1"),
            "01:00.0 3D controller [0302]: NVIDIA Corporation GH100 [10de:2331] (rev a1)\n\tControl: I/O- Mem+\n\tNUMA node: 0\n\t\
             Region 1: Memory at 2000000000 (64-bit, prefetchable) [size=128G]\n\tCapabilities: [78] Express (v2) Endpoint\n\t\t\
             LnkCap:\tPort #0, Speed 32GT/s, Width x16\n\t\tLnkSta:\tSpeed 16GT/s (downgraded), Width x8 (downgraded)\n\t\
             Kernel driver in use: nvidia\n00: de 10 31 23 06 04 10 00 a1 00 02 03 00 00 00 00\n",
        ),
        (
            printed("dmidecode-1"),
            "Handle 0x0100\nSystem Information\n\tManufacturer: QEMU\n\tProduct Name: Standard PC (Q35 + ICH9, 2009)\n",
        ),
        (printed("lscpu-1"), "Vendor ID: AuthenticAMD\nModel name: AMD EPYC\nHypervisor vendor: KVM\n"),
        (printed("systemd-detect-virt-1"), "kvm\n"),
        (printed("lsmod-1"), "Module Size Used by\nnvidia 1 1 nvidia_uvm\n"),
        (printed("uname-1"), "Linux vm 6.8.0-79-generic #79-Ubuntu SMP x86_64\n"),
        (
            printed("modinfo-1"),
            "filename: /lib/modules/x/nvidia.ko\nlicense: Dual MIT/GPL\nversion: 580.95.05\n",
        ),
        (
            printed("nvidia-smi-1"),
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
        ),
        (
            printed("dmesg-1"),
            "[    1.0] pci 0000:01:00.0: BAR 1: no space for [mem size 0x2000000000 64bit pref]\n",
        ),
        ("run/gdsboot/commands/dmesg-1/argv".into(), "dmesg\n-T\n"),
        ("run/gdsboot/commands/dmesg-1/status".into(), "0\n"),
        ("etc/environment".into(), "CUFILE_FORCE_COMPAT_MODE=\"true\"\n"),
        ("var/log/cufile.log".into(), " 24-11-2026 [pid=1] ERROR cufio:1 fd direct IO not set\n"),
    ];
    let framed = |files: &[(String, &str)]| {
        files.iter().map(|(path, text)| format!("== {path}\n{text}")).collect::<String>().into_bytes()
    };
    vec![framed(&server), framed(&guest)]
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
