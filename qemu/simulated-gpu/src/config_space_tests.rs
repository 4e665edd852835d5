use super::*;
use crate::{Fault, Model, Options, Size, functions};
use proptest::prelude::*;

fn all(model: &str, options: &Options) -> Vec<Function> {
    functions(&Model::named(model).unwrap(), options).unwrap()
}

fn gpu(model: &str) -> Function {
    all(model, &Options::default()).swap_remove(0)
}

fn everything() -> Options {
    Options { clique: Some(3), acs: true, ats: true, serial: 0x1234, ..Options::default() }
}

fn long(space: &ConfigSpace, at: u64) -> u32 {
    let mut data = [0; 4];
    space.read(at, &mut data);
    u32::from_le_bytes(data)
}

/// The offsets of the capabilities by id, of both lists, as a driver finds them.
fn listed(space: &ConfigSpace) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    let mut at = u64::from(long(space, 0x34) & 0xff);
    while at != 0 && found.len() < 48 {
        found.push((long(space, at) & 0xff, at));
        at = u64::from(long(space, at) >> 8 & 0xff);
    }
    at = 0x100;
    while at != 0 && found.len() < 96 {
        found.push((long(space, at) & 0xffff, at));
        at = u64::from(long(space, at) >> 20);
    }
    found
}

#[test]
fn every_byte_of_a_gpu_and_its_audio() {
    let text: String = all("rtx-6000-ada", &everything())
        .iter()
        .map(|function| ConfigSpace::new(function).lspci(&format!("01:00.{}", function.number)))
        .collect();
    insta::assert_snapshot!(text);
}

#[test]
fn a_gpu_whose_registers_are_64_bits_wide_and_whose_link_has_trained_down() {
    let options = Options {
        faults: vec![Fault::LinkTrainedDown, Fault::SmallBar1, Fault::RefusesReset],
        ..Options::default()
    };
    insta::assert_snapshot!(ConfigSpace::new(&all("h100-pcie", &options)[0]).lspci("01:00.0"));
}

#[test]
fn capabilities_are_those_that_were_asked_for() {
    let plain = Options { resizable: false, ..Options::default() };
    let ids = |options: &Options| -> Vec<u32> {
        listed(&ConfigSpace::new(&all("l40s", options)[0])).into_iter().map(|(id, _)| id).collect()
    };
    assert_eq!(ids(&plain), [0x01, 0x05, 0x10, 0x09, 0x03]);
    assert_eq!(ids(&everything()), [0x01, 0x05, 0x10, 0x09, 0x09, 0x03, 0x15, 0x0d, 0x0f]);
}

#[test]
fn sizes_of_windows_are_found_by_writing_ones() {
    for (model, bar0, bar1) in [("l40s", 0x10, 0x14), ("h200", 0x10, 0x18)] {
        let function = gpu(model);
        let mut space = ConfigSpace::new(&function);
        space.write(0x10, &[0xff; 24]);
        for (at, bar) in [(bar0, &function.bars[0]), (bar1, &function.bars[1])] {
            let low = long(&space, at);
            let high = if bar.is_64bit { long(&space, at + 4) } else { u32::MAX };
            let mask = u64::from(high) << 32 | u64::from(low & !0xf);
            assert_eq!(!mask + 1, bar.size.bytes(), "{model} {at:x}");
            assert_eq!((low & 4 != 0, low & 8 != 0), (bar.is_64bit, bar.prefetchable));
        }
        // An address below the window's size cannot be written.
        space.write(bar1, &0x1234_5678_u32.to_le_bytes());
        space.write(bar1 + 4, &0x1234_5678_u32.to_le_bytes());
        let size = function.bars[1].size.bytes();
        assert_eq!(u64::from(long(&space, bar1 + 4)) << 32, 0x1234_5678_u64 << 32 & !(size - 1));
        assert_eq!(long(&space, bar1), 0xc);
    }
    // What is no window stays zero.
    let mut space = ConfigSpace::new(&gpu("l40s"));
    space.write(0x24, &[0xff; 4]);
    space.write(0x30, &[0xff; 4]);
    assert_eq!((long(&space, 0x24), long(&space, 0x30)), (0, 0));
}

#[test]
fn registers_take_what_can_be_written() {
    // Offset, what is written, what is read then.
    for (what, at, written, read) in [
        ("ids", 0x00, u32::MAX, 0x26b9_10de),
        ("command and status", 0x04, u32::MAX, 0x0010_0546),
        ("revision and class", 0x08, 0, 0x0302_00a1),
        ("cache line, latency timer, header type", 0x0c, u32::MAX, 0xff),
        ("subsystem", 0x2c, 0, 0x1851_10de),
        ("interrupt line and pin", 0x3c, 0xffff_ff0b, 0x010b),
        ("power state D3hot, PME enabled", 0x64, 0x0103, 0x010b),
        ("power state D1, which is not there", 0x64, 1, 8),
        ("MSI control: on, and one vector is all there is", 0x68, u32::MAX, 0x0081_7805),
        ("MSI address", 0x6c, u32::MAX, 0xffff_fffc),
        ("MSI address, high", 0x70, 0x1234_5678, 0x1234_5678),
        ("MSI data", 0x74, u32::MAX, 0xffff),
        ("device capabilities", 0x7c, 0, 0x1000_8c21),
        ("device control", 0x80, 0x0000_5fff, 0x5fff),
        ("link capabilities", 0x84, 0, 0x0040_0904),
        ("link control and status", 0x88, u32::MAX, 0x1104_0fdb),
        ("link control 2", 0xa8, 3, 3),
        ("serial number", 0x104, 0, 0x5055_0001),
        ("sizes to resize to", 0x114, 0, 0x001f_fc00),
        ("size of BAR1", 0x118, 0, 0x0000_1021),
    ] {
        let mut space = ConfigSpace::new(&gpu("l40s"));
        assert_eq!(space.write(at, &u32::to_le_bytes(written)), Effect::None, "{what}");
        assert_eq!(long(&space, at), read, "{what}: {:08x}", long(&space, at));
    }
}

#[test]
fn the_size_of_bar1_stands_in_its_capability() {
    let options = Options { bar1: "32G".parse().ok(), ..Options::default() };
    let space = ConfigSpace::new(&all("l40s", &options)[0]);
    assert_eq!(long(&space, 0x118) >> 8 & 0x3f, 15, "32 GiB are 2^15 MiB");
    // A size beyond the model's is one that it can have.
    let options = Options { bar1: "256G".parse().ok(), ..Options::default() };
    let space = ConfigSpace::new(&all("l40s", &options)[0]);
    assert_eq!((long(&space, 0x118) >> 8 & 0x3f, long(&space, 0x114) >> 22), (18, 1));
}

#[test]
fn a_function_level_reset_undoes_what_was_written() {
    let mut space = ConfigSpace::new(&gpu("l40s"));
    let before = *space.bytes();
    space.write(0x04, &[6, 0]);
    space.write(0x14, &[0xff; 8]);
    assert_ne!(before, *space.bytes());
    // Device Control, as a word and by its high byte.
    assert_eq!(space.clone().write(0x80, &[0x10, 0xa9]), Effect::Reset);
    assert_eq!(space.write(0x81, &[0x80]), Effect::Reset);
    assert_eq!(before, *space.bytes());

    let options = Options { faults: vec![Fault::RefusesReset], ..Options::default() };
    let mut space = ConfigSpace::new(&all("l40s", &options)[0]);
    assert_eq!(long(&space, 0x7c) >> 28 & 1, 0, "it is not offered");
    space.write(0x04, &[6, 0]);
    assert_eq!(space.write(0x80, &[0x10, 0xa9]), Effect::None);
    assert_eq!((long(&space, 0x04) & 0xffff, long(&space, 0x80) & 0xffff), (6, 0x2910));
}

#[test]
fn nothing_is_beyond_the_end() {
    let mut space = ConfigSpace::new(&gpu("l40s"));
    let mut data = [0; 8];
    space.read(LENGTH as u64 - 4, &mut data);
    assert_eq!(data, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    space.read(u64::MAX, &mut data);
    assert_eq!(data, [0xff; 8]);
    space.write(LENGTH as u64 - 4, &data);
    space.write(u64::MAX, &data);
}

fn any_function() -> impl Strategy<Value = Function> {
    let models = Model::all();
    let options = (any::<[bool; 5]>(), 26..39u32, any::<u16>(), proptest::option::of(0..16u8));
    (0..models.len(), options).prop_flat_map(
        move |(model, ([acs, ats, resizable, reset, down], size, serial, clique))| {
            let mut faults = Vec::new();
            faults.extend(reset.then_some(Fault::RefusesReset));
            faults.extend(down.then_some(Fault::LinkTrainedDown));
            let bar1 = Some(Size::new(1 << size).unwrap());
            let options = Options { bar1, link: None, serial, clique, resizable, acs, ats, faults };
            proptest::sample::select(functions(&models[model], &options).unwrap())
        },
    )
}

proptest! {
    #[test]
    fn writes_change_nothing_else(
        function in any_function(),
        writes in proptest::collection::vec((0..LENGTH as u64, proptest::collection::vec(any::<u8>(), 1..9)), 1..20),
    ) {
        let mut space = ConfigSpace::new(&function);
        let (before, list) = (*space.bytes(), listed(&space));
        for (at, data) in &writes {
            space.write(*at, data);
        }
        for (at, (old, new)) in before.iter().zip(space.bytes()).enumerate() {
            prop_assert_eq!((old ^ new) & !space.writable[at], 0, "{:x}", at);
        }
        // The lists lead to the same places whatever was written.
        prop_assert_eq!(listed(&space), list);
    }

    #[test]
    fn pieces_of_a_write_are_the_write(function in any_function(), at in 0..LENGTH as u64 - 8, data in any::<[u8; 8]>()) {
        // States that are not there are refused as a whole; a reset takes back what else was written with it.
        prop_assume!(!(at..at + 8).contains(&0x64) && !(at..at + 8).contains(&0x81));
        let (mut whole, mut bytes) = (ConfigSpace::new(&function), ConfigSpace::new(&function));
        whole.write(at, &data);
        for (n, byte) in data.iter().enumerate() {
            bytes.write(at + n as u64, &[*byte]);
        }
        prop_assert_eq!(whole.bytes(), bytes.bytes());
    }
}
