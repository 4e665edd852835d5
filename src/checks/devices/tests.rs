use super::super::check::Answer::{self, Fail, NotApplicable, Note, Pass, Unknown};
use super::super::testing::*;
use super::links::tenths;
use super::*;
use crate::facts::nvidia::NvidiaGpu;
use crate::facts::pci::{Class, Id, PciPath, Sriov};
use crate::facts::pci_config::{PciConfig, ResizableBar};
use crate::facts::{Facts, Root};

const GUEST: Side = Side::Guest;
const HOST: Side = Side::Host;
const METAL: Side = Side::BareMetal;

/// What a check answers after one device was changed.
fn after(id: &str, side: Side, address: &str, change: impl FnOnce(&mut PciDevice)) -> Answer {
    let mut facts = good(side);
    edit(&mut facts, address, change);
    answer(id, &facts, side)
}

fn set_config(device: &mut PciDevice, change: impl FnOnce(&mut PciConfig)) {
    let mut config = device.config.value().unwrap().clone();
    change(&mut config);
    device.config = Fact::known("config", config);
}

#[test]
fn present_or_not_or_not_to_be_seen() {
    for (id, address) in [("gpu.present", GPU_AT), ("nvme.present", NVME_AT)] {
        assert_eq!(answer(id, &good(GUEST), GUEST), Pass);
        let gone = after(id, GUEST, address, |device| device.class = Fact::known("class", Class(0x02_0000)));
        assert_eq!(gone, Fail);
        let hidden = after(id, GUEST, address, |d| d.class = Fact::Denied { from: "class".into() });
        assert_eq!(hidden, Unknown);
    }
}

#[test]
fn a_device_that_reads_as_ones_has_fallen_off_the_bus() {
    for (id, address) in [("gpu.responds", GPU_AT), ("nvme.responds", NVME_AT)] {
        let ones = |device: &mut PciDevice| set_config(device, |config| config.all_ones = true);
        assert_eq!(after(id, METAL, address, ones), Fail);
        assert_eq!(after(id, METAL, address, |d| d.config = Fact::Denied { from: "c".into() }), Unknown);
    }
}

#[test]
fn generations_before_turing_have_no_open_driver() {
    let with =
        |id: u16| after("gpu.generation", METAL, GPU_AT, |gpu| gpu.device = Fact::known("device", Id(id)));
    assert_eq!(with(0x1db4), Fail, "V100");
    assert_eq!(with(0x1b06), Fail, "GTX 1080 Ti");
    for id in [0x1e30, 0x1eb8, 0x20b2, 0x2331, 0x26b9, 0x2901] {
        assert_eq!(with(id), Pass);
    }
}

#[test]
fn a_geforce_is_refused_by_the_driver() {
    let with = |model: Fact<String>| {
        let mut facts = good(METAL);
        let gpu = NvidiaGpu { address: GPU_AT.into(), model, ..NvidiaGpu::default() };
        facts.nvidia.gpus = Fact::known("gpus", vec![gpu]);
        answer("gpu.product", &facts, METAL)
    };
    assert_eq!(with(Fact::known("m", "NVIDIA GeForce RTX 3090".into())), Fail);
    assert_eq!(with(Fact::known("m", "NVIDIA L40S".into())), Pass);
    assert_eq!(with(Fact::Missing { from: "m".into() }), Unknown);
}

#[test]
fn windows_without_an_address() {
    let bar = |index, start, flags| Bar { index, start, size: 32 << 30, flags };
    let with =
        |bars: Vec<Bar>| after("gpu.bars", GUEST, GPU_AT, |gpu| gpu.bars = Fact::known("resource", bars));
    assert_eq!(with(vec![bar(0, 1 << 30, 0x200), bar(1, 1 << 40, 0x20_0200)]), Pass);
    assert_eq!(with(vec![bar(0, 1 << 30, 0x200), bar(1, 0, 0x200)]), Fail);
    assert_eq!(with(vec![bar(0, 1 << 30, 0x200), bar(1, 1 << 40, 0x2000_0200)]), Fail);
    assert_eq!(with(vec![bar(0, 1 << 30, 0x200)]), Fail);
    assert_eq!(with(vec![]), Fail);
    assert_eq!(after("gpu.bars", GUEST, GPU_AT, |gpu| gpu.bars = Fact::default()), Unknown);
}

#[test]
fn a_small_bar1_is_worse_for_p2pdma_than_for_nvidia_fs() {
    let small = |size: u64| {
        let mut facts = good(METAL);
        edit(&mut facts, GPU_AT, |gpu| {
            let bar = |index, size| Bar { index, start: 1 << 40, size, flags: 0x14_220c };
            gpu.bars = Fact::known("resource", vec![bar(0, 16 << 20), bar(1, size)]);
        });
        facts
    };
    let facts = small(256 << 20);
    assert_eq!(answer("gpu.bar1-size", &facts, METAL), Fail);
    assert_eq!(answer("gpu.bar1-p2pdma", &facts, METAL), Fail);
    let mut hooked = facts.clone();
    hooked.nvme_module_hooks = Fact::known("nvme.ko", vec!["nvme_v1_register_nvfs_dma_ops".into()]);
    assert_eq!(answer("gpu.bar1-p2pdma", &hooked, METAL), Note);
    // Large, and could be larger.
    let mut facts = small(32 << 30);
    assert_eq!(answer("gpu.bar1-size", &facts, METAL), Pass);
    assert_eq!(answer("gpu.bar1-p2pdma", &facts, METAL), Pass);
    let bar = ResizableBar { index: 1, current: 32 << 30, sizes: vec![32 << 30, 64 << 30] };
    edit(&mut facts, GPU_AT, |gpu| set_config(gpu, |config| config.resizable_bars = vec![bar]));
    let outcome = ask("gpu.bar1-size", &facts, METAL);
    assert!(outcome.answer == Fail && outcome.why.contains("32 GiB, and could be 64 GiB"), "{outcome:?}");
}

#[test]
fn a_gpu_on_a_conventional_bus() {
    for (id, address) in [("gpu.pcie", GPU_AT), ("nvme.pcie", NVME_AT)] {
        let no_express = |device: &mut PciDevice| {
            set_config(device, |config| {
                config.length = 256;
                config.express = None;
            });
        };
        assert_eq!(after(id, GUEST, address, no_express), Fail);
        let cut = |device: &mut PciDevice| set_config(device, |config| config.length = 256);
        assert_eq!(after(id, GUEST, address, cut), Fail);
        let mut facts = good(GUEST);
        add(&mut facts, 0x06_0400, "1b36:0001", "0000:00:1e.0");
        let path = PciPath { root: "pci0000:00".into(), bridges: vec!["0000:00:1e.0".into()] };
        edit(&mut facts, address, |device| device.path = Fact::known("path", path));
        let outcome = ask(id, &facts, GUEST);
        assert!(outcome.answer == Fail && outcome.why.contains("1b36:0001"), "{outcome:?}");
        // A capture without paths and configuration spaces.
        let mut lost = facts.clone();
        let Fact::Known { value, .. } = &mut lost.pci else { panic!("devices") };
        for device in value.iter_mut() {
            (device.path, device.config) = (Fact::default(), Fact::default());
        }
        assert_eq!(answer(id, &lost, GUEST), Unknown);
        edit(&mut lost, address, |device| device.address = "0000:06:10.0".into());
        assert_eq!(answer(id, &lost, GUEST), Fail);
        // A user who is not root still sees the root port above it.
        let user = |device: &mut PciDevice| set_config(device, |config| config.length = 64);
        assert_eq!(after(id, GUEST, address, user), Pass);
    }
}

#[test]
fn the_right_driver_inverts_by_side() {
    let with = |side, driver: &str| {
        after("gpu.driver", side, GPU_AT, |gpu| gpu.driver = Fact::known("driver", driver.into()))
    };
    for side in [GUEST, METAL] {
        assert_eq!(with(side, "nvidia"), Pass);
        for other in ["vfio-pci", "nouveau", "nova_core"] {
            assert_eq!(with(side, other), Fail);
        }
    }
    assert_eq!(with(HOST, "vfio-pci"), Pass);
    assert_eq!(with(HOST, "nvgrace_gpu_vfio_pci"), Pass);
    assert_eq!(with(HOST, "nvidia"), Fail);
    // It keeps one and gives another away.
    let mut facts = good(HOST);
    add(&mut facts, 0x03_0200, "10de:2331", "0000:00:1d.0/0000:09:00.0");
    edit(&mut facts, "0000:09:00.0", |gpu| gpu.driver = Fact::known("driver", "nvidia".into()));
    assert_eq!(answer("gpu.driver", &facts, HOST), Note);
    edit(&mut facts, "0000:09:00.0", |gpu| gpu.driver = Fact::known("driver", "nouveau".into()));
    assert_eq!(answer("gpu.driver", &facts, HOST), Fail);
    let unbound =
        |side| after("gpu.driver", side, GPU_AT, |gpu| gpu.driver = Fact::Missing { from: "driver".into() });
    assert_eq!((unbound(GUEST), unbound(HOST)), (Note, Note));
    assert_eq!(after("gpu.driver", METAL, GPU_AT, |gpu| gpu.driver = Fact::default()), Unknown);
}

#[test]
fn one_nvme_in_the_right_hands_is_enough() {
    let with = |side, driver: &str| {
        after("nvme.driver", side, NVME_AT, |nvme| nvme.driver = Fact::known("driver", driver.into()))
    };
    assert_eq!((with(GUEST, "nvme"), with(METAL, "nvme")), (Pass, Pass));
    assert_eq!((with(GUEST, "vfio-pci"), with(METAL, "uio_pci_generic")), (Fail, Fail));
    assert_eq!((with(HOST, "vfio-pci"), with(HOST, "nvme")), (Pass, Note));
    let mut facts = good(METAL);
    add(&mut facts, 0x01_0802, "144d:a80a", "0000:00:1d.0/0000:09:00.0");
    edit(&mut facts, "0000:09:00.0", |nvme| nvme.driver = Fact::known("driver", "vfio-pci".into()));
    assert_eq!(answer("nvme.driver", &facts, METAL), Pass);
}

#[test]
fn emulated_controllers_copy() {
    let with = |change: fn(&mut PciDevice)| after("nvme.real", GUEST, NVME_AT, change);
    let ids = |nvme: &mut PciDevice, vendor, device| {
        nvme.vendor = Fact::known("vendor", Id(vendor));
        nvme.device = Fact::known("device", Id(device));
    };
    assert_eq!(after("nvme.real", GUEST, NVME_AT, |nvme| ids(nvme, 0x1b36, 0x0010)), Fail);
    assert_eq!(after("nvme.real", GUEST, NVME_AT, |nvme| ids(nvme, 0x8086, 0x5845)), Fail);
    assert_eq!(after("nvme.real", GUEST, NVME_AT, |nvme| ids(nvme, 0x1d0f, 0x8061)), Note);
    let card = |nvme: &mut PciDevice| {
        nvme.subsystem_vendor = Fact::known("s", Id(0x1af4));
        nvme.subsystem_device = Fact::known("s", Id(0x1100));
    };
    assert_eq!(with(card), Fail);
    let mut facts = good(GUEST);
    facts.nvme = Fact::known("nvme", vec![controller(NVME_AT, "QEMU NVMe Ctrl")]);
    assert_eq!(answer("nvme.real", &facts, GUEST), Fail);
    // One real controller is enough.
    add(&mut facts, 0x01_0802, "144d:a80a", "0000:00:1d.0/0000:09:00.0");
    assert_eq!(answer("nvme.real", &facts, GUEST), Pass);
}

#[test]
fn width_counts_for_gpus_and_speed_for_nvme() {
    let width = |side, id, address, now: u32| {
        after(id, side, address, |device| device.link_width = Fact::known("width", now))
    };
    let slow = |side, id, address| {
        after(id, side, address, |d| d.link_speed = Fact::known("speed", "2.5 GT/s PCIe".into()))
    };
    for side in [GUEST, HOST, METAL] {
        assert_eq!(width(side, "gpu.link", GPU_AT, 8), Fail);
        assert_eq!(width(side, "nvme.link", NVME_AT, 1), Fail);
        assert_eq!(slow(side, "gpu.link", GPU_AT), Note);
        for nonsense in [0, 255] {
            assert_eq!(width(side, "gpu.link", GPU_AT, nonsense), Unknown);
        }
    }
    assert_eq!(slow(METAL, "nvme.link", NVME_AT), Fail);
    assert_eq!(slow(GUEST, "nvme.link", NVME_AT), Note);
}

#[test]
fn a_port_is_a_measure_on_real_hardware_only() {
    let with = |side| {
        let mut facts = good(side);
        edit(&mut facts, "0000:05:00.0", |port| port.link_width_max = Fact::known("width", 8));
        edit(&mut facts, GPU_AT, |gpu| gpu.link_width = Fact::known("width", 8));
        answer("gpu.link", &facts, side)
    };
    // The slot has eight lanes: nothing is broken.
    assert_eq!((with(METAL), with(HOST)), (Note, Note));
    assert_eq!(with(GUEST), Fail);
    // A guest's port is slower than the device on paper.
    let mut facts = good(GUEST);
    edit(&mut facts, "0000:05:00.0", |port| {
        port.link_speed_max = Fact::known("speed", "16.0 GT/s PCIe".into())
    });
    assert_eq!(answer("gpu.link", &facts, GUEST), Pass);
}

#[test]
fn speeds_are_words() {
    assert_eq!(tenths("32.0 GT/s PCIe"), Some(320));
    assert_eq!(tenths("2.5 GT/s PCIe"), Some(25));
    for text in ["", "Unknown", "32", "99999999999.0 GT/s", "4294967295.9 GT/s", "x.y"] {
        assert_eq!(tenths(text), None, "{text}");
    }
}

#[test]
fn errors_on_the_link() {
    use crate::facts::pci::Aer;
    let with = |aer: Fact<Aer>| after("aer.counters", METAL, NVME_AT, |nvme| nvme.aer = aer);
    assert_eq!(with(Fact::known("aer", Aer { nonfatal: 1, ..Aer::default() })), Fail);
    assert_eq!(with(Fact::known("aer", Aer { fatal: u64::MAX, nonfatal: 1, ..Aer::default() })), Fail);
    assert_eq!(with(Fact::known("aer", Aer { correctable: 9, ..Aer::default() })), Note);
    assert_eq!(with(Fact::Missing { from: "aer".into() }), Note, "the device does not report any");
    assert_eq!(with(Fact::Denied { from: "aer".into() }), Unknown);
}

#[test]
fn parts_of_a_gpu() {
    let is_part =
        |gpu: &mut PciDevice| gpu.physical_function = Fact::known("physfn", "0000:06:00.4".to_owned());
    assert_eq!(answer("gpu.virtual-function", &good(HOST), HOST), Pass);
    assert_eq!(after("gpu.virtual-function", HOST, GPU_AT, is_part), Note);
    let shared = |gpu: &mut PciDevice| gpu.sriov = Fact::known("sriov", Sriov { total: 16, in_use: 2 });
    assert_eq!(after("gpu.virtual-function", HOST, GPU_AT, shared), Note);
}

#[test]
fn a_gpu_with_video_outputs_has_an_audio_function() {
    let vga = |gpu: &mut PciDevice| gpu.class = Fact::known("class", Class(0x03_0000));
    assert_eq!(after("gpu.audio", GUEST, GPU_AT, vga), Note);
    let mut facts = good(GUEST);
    edit(&mut facts, GPU_AT, vga);
    add(&mut facts, 0x04_0300, "10de:22ba", "0000:00:1c.0/0000:06:00.1");
    assert_eq!(answer("gpu.audio", &facts, GUEST), Pass);
    assert_eq!(answer("gpu.audio", &good(GUEST), GUEST), Pass);
    assert_eq!(
        answer(
            "aer.counters",
            &crate::facts::Facts { pci: Fact::known("p", vec![]), ..Default::default() },
            METAL
        ),
        NotApplicable
    );
}

#[test]
fn vfio_is_told_the_functions_that_are_there() {
    let ids = |facts: &Facts| {
        let outcome = ask("gpu.driver", facts, HOST);
        outcome.remedies[0].commands[0].clone()
    };
    let mut facts = good(HOST);
    add(&mut facts, 0x04_0300, "10de:22bd", "0000:00:1d.0/0000:09:00.1");
    add(&mut facts, 0x03_0200, "10de:2331", "0000:00:1d.0/0000:09:00.0");
    add(&mut facts, 0x06_8000, "10de:22a3", "0000:00:1d.1/0000:0a:00.0");
    edit(&mut facts, "0000:09:00.0", |gpu| gpu.driver = Fact::known("driver", "nouveau".into()));
    let command = ids(&facts);
    assert!(command.contains("10de:22bd,10de:2331") && !command.contains("10de:22a3"), "{command}");
}

#[test]
fn where_no_device_is_seen_the_command_finds_them() {
    let dir = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(dir.path().join("var/log")).unwrap();
    let line = "vfio 0000:01:00.0: group 15 is not viable\nPlease ensure all devices within the iommu_group are bound\n";
    fs_err::write(dir.path().join("var/log/qemu.log"), line).unwrap();
    let facts = Facts::read(&Root::at(dir.path()));
    let outcome = ask("host.group-viable", &facts, HOST);
    assert_eq!(outcome.answer, Fail);
    let command = &outcome.remedies[0].commands[0];
    assert!(command.contains("$(lspci -n -d 10de: | awk '$2 !~ /^06/ {print $3}'"), "{command}");
}
