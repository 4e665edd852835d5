//! A served function as a client of vfio-user sees it.

use simulated_gpu::{Fault, Function, Model, Options, Server, functions, serve};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_AUTOMASKED, VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_MASKABLE, VFIO_REGION_INFO_FLAG_MMAP,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE,
};
use vfio_user::Client;

const CONFIG: u32 = 7;
const SOON: Duration = Duration::from_secs(5);

struct Served {
    /// Goes away before its server, which would wait for it.
    client: Client,
    server: Server,
    socket: PathBuf,
    /// Removed at the end.
    _folder: tempfile::TempDir,
}

fn gpu(model: &str, options: &Options) -> Function {
    functions(&Model::named(model).unwrap(), options).unwrap().swap_remove(0)
}

fn with_faults(faults: &[Fault]) -> Options {
    Options { faults: faults.to_vec(), ..Options::default() }
}

fn served(function: Function) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gpu.sock");
    let server = serve(&socket, function).unwrap();
    let client = Client::new(&socket).unwrap();
    Served { client, server, socket, _folder: folder }
}

impl Served {
    fn long(&mut self, region: u32, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.client.region_read(region, offset, &mut data).unwrap();
        u32::from_le_bytes(data)
    }

    fn write(&mut self, region: u32, offset: u64, value: u32) {
        self.client.region_write(region, offset, &value.to_le_bytes()).unwrap();
    }
}

#[test]
fn regions_are_the_windows_and_the_configuration_space() {
    for (model, expected) in [
        ("l40s", [16 << 20, 64 << 30, 0, 32 << 20, 0, 0, 0, 4096, 0]),
        ("h200", [16 << 20, 0, 256 << 30, 0, 32 << 20, 0, 0, 4096, 0]),
    ] {
        let served = served(gpu(model, &Options::default()));
        let both = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
        for (index, size) in (0..).zip(expected) {
            let region = served.client.region(index).unwrap();
            assert_eq!(region.size, size, "{model} {index}");
            assert_eq!(region.flags & both, if size > 0 { both } else { 0 });
            // What remembers can be mapped.
            let mapped = size > 16 << 20;
            assert_eq!(region.flags & VFIO_REGION_INFO_FLAG_MMAP != 0, mapped, "{model} {index}");
            assert_eq!(region.file_offset.is_some(), mapped);
            assert_eq!(
                region.sparse_areas.first().map(|area| (area.offset, area.size)),
                mapped.then_some((0, size))
            );
        }
    }
}

#[test]
fn interrupts_are_told_of() {
    let mut served = served(gpu("h100-pcie", &Options::default()));
    let intx = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
    let event = VFIO_IRQ_INFO_EVENTFD;
    for (index, expected) in (0..).zip([(1, intx), (1, event), (0, 0), (1, event), (1, event)]) {
        let told = served.client.get_irq_info(index).unwrap();
        assert_eq!((told.count, told.flags), expected, "{index}");
    }
}

#[test]
fn registers_name_the_chip_and_keep_nothing() {
    let mut served = served(gpu("h100-pcie", &Options::default()));
    assert_eq!(served.long(0, 0), 0x1800_00a1);
    assert_eq!(served.long(0, 0xa00), 0x180a_1000);
    served.write(0, 0, 0);
    served.write(0, 0x1000, 7);
    assert_eq!((served.long(0, 0), served.long(0, 0x1000)), (0x1800_00a1, 0));
    // Parts of a register, and reads across its edge.
    let mut data = [0; 8];
    served.client.region_read(0, 0x9fe, &mut data).unwrap();
    assert_eq!(data, [0, 0, 0x00, 0x10, 0x0a, 0x18, 0, 0]);
    served.client.region_read(0, 3, &mut data[..1]).unwrap();
    assert_eq!(data[0], 0x18);
    assert_eq!(served.long(0, 16 << 20), u32::MAX, "there is nothing beyond the window");
    assert_eq!(served.server.seen().register_reads, 7);
}

#[test]
fn the_configuration_space_is_read_and_sized() {
    let mut served = served(gpu("l40s", &Options::default()));
    assert_eq!(served.long(CONFIG, 0), 0x26b9_10de);
    served.write(CONFIG, 0x14, u32::MAX);
    served.write(CONFIG, 0x18, u32::MAX);
    assert_eq!((served.long(CONFIG, 0x14), served.long(CONFIG, 0x18)), (0xc, 0xffff_fff0));
    let mut all = [0; 4096];
    served.client.region_read(CONFIG, 0, &mut all).unwrap();
    assert_eq!(all[0x100..0x104], [0x03, 0x00, 0x01, 0x11]);
}

#[test]
fn bar1_remembers_at_its_end_and_takes_no_memory() {
    let mut served = served(gpu("h200", &Options::default()));
    let (near, far) = (4096, 255 << 30);
    let before = resident();
    served.write(2, near, 0x1234_5678);
    served.write(2, far, 0x8765_4321);
    assert_eq!(
        (served.long(2, near), served.long(2, far), served.long(2, 128 << 30)),
        (0x1234_5678, 0x8765_4321, 0)
    );
    let file = served.client.region(2).unwrap().file_offset.as_ref().unwrap();
    let metadata = file.file().metadata().unwrap();
    assert_eq!(metadata.len(), 256 << 30);
    use std::os::unix::fs::MetadataExt as _;
    assert!(metadata.blocks() * 512 <= 4 << 20, "{} blocks", metadata.blocks());
    assert!(resident() - before < 16 << 10, "{} KiB", resident() - before);
    // What a client maps is what it writes to.
    use std::os::unix::fs::FileExt as _;
    file.file().write_all_at(b"ABCD", file.start() + far).unwrap();
    assert_eq!(served.long(2, far).to_le_bytes(), *b"ABCD");
}

/// Resident memory of this process in KiB.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_reset_undoes_what_was_written() {
    let mut served = served(gpu("l40s", &Options::default()));
    served.write(CONFIG, 4, 6);
    served.client.reset().unwrap();
    assert_eq!(served.long(CONFIG, 4) & 0xffff, 0);
    // And so does one by Device Control.
    served.write(CONFIG, 4, 6);
    served.client.region_write(CONFIG, 0x80, &[0x10, 0xa9]).unwrap();
    assert_eq!(served.long(CONFIG, 4) & 0xffff, 0);
    assert_eq!((served.server.seen().resets, served.server.seen().refused_resets), (2, 0));
}

/// The flags of the reply to DEVICE_RESET: `vfio_user`'s client does not look at them.
fn reset_reply(function: Function) -> u32 {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gpu.sock");
    let server = serve(&socket, function).unwrap();
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    // Message 1, command 13, 16 bytes, a command, no error.
    let mut message = [1u8, 0, 13, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    stream.write_all(&message).unwrap();
    stream.read_exact(&mut message).unwrap();
    assert_eq!(message[..4], [1, 0, 13, 0]);
    drop(stream);
    server.stop(SOON).unwrap();
    u32::from_le_bytes(message[8..12].try_into().unwrap())
}

#[test]
fn a_reset_can_be_refused() {
    const REPLY: u32 = 1;
    const ERROR: u32 = 1 << 5;
    assert_eq!(reset_reply(gpu("l40s", &Options::default())), REPLY);
    assert_eq!(reset_reply(gpu("l40s", &with_faults(&[Fault::RefusesReset]))), REPLY | ERROR);

    let mut served = served(gpu("l40s", &with_faults(&[Fault::RefusesReset])));
    served.write(CONFIG, 4, 6);
    served.client.reset().unwrap();
    assert_eq!(served.long(CONFIG, 4) & 0xffff, 6);
    assert_eq!((served.server.seen().resets, served.server.seen().refused_resets), (0, 1));
}

#[test]
fn a_gpu_falls_off_the_bus_once_its_registers_have_been_read() {
    let mut served = served(gpu("l40s", &with_faults(&[Fault::FallenOffTheBus { after_reads: 2 }])));
    // Nothing is mapped: all reads have to come here.
    assert!((0..9).all(|index| served.client.region(index).unwrap().file_offset.is_none()));
    served.write(1, 0, 1);
    assert_eq!((served.long(1, 0), served.long(CONFIG, 0)), (1, 0x26b9_10de));
    assert_eq!((served.long(0, 0), served.long(0, 0)), (0x1920_00a1, 0x1920_00a1));
    assert_eq!(served.long(0, 0), u32::MAX);
    served.write(CONFIG, 4, 6);
    for (region, offset) in [(CONFIG, 0), (CONFIG, 0x100), (0, 0xa00), (1, 0), (3, 0)] {
        assert_eq!(served.long(region, offset), u32::MAX, "{region} {offset:x}");
    }
    served.client.reset().unwrap();
    assert_eq!((served.long(0, 0), served.long(CONFIG, 4) & 0xffff), (0x1920_00a1, 0));
}

#[test]
fn the_end_of_the_client_is_the_end_of_the_server() {
    let Served { client, mut server, socket, _folder } = served(gpu("l40s", &Options::default()));
    assert!(!server.wait(Duration::from_millis(50)).unwrap());
    assert!(socket.exists() && server.socket() == socket);
    drop(client);
    assert!(server.wait(SOON).unwrap());
    assert!(server.wait(SOON).unwrap(), "it can be asked again");
    assert!(!socket.exists());
}

#[test]
fn a_server_without_a_client_stops_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gpu.sock");
    let started = Instant::now();
    serve(&socket, gpu("h200", &Options::default())).unwrap().stop(SOON).unwrap();
    assert!(!socket.exists());
    drop(serve(&socket, gpu("h200", &Options::default())).unwrap());
    assert!(!socket.exists());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn a_client_that_stays_is_told_of() {
    let Served { client, server, .. } = served(gpu("l40s", &Options::default()));
    let error = server.stop(Duration::from_millis(100)).unwrap_err();
    assert!(error.to_string().ends_with("is still connected"), "{error}");
    assert!(error.hint().contains("QEMU"), "{}", error.hint());
    drop(client);
}

#[test]
fn a_socket_that_cannot_be_made_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let function = || gpu("l40s", &Options::default());
    let taken = folder.path().join("taken");
    std::fs::write(&taken, "").unwrap();
    let error = serve(&taken, function()).unwrap_err();
    assert_eq!(error.to_string(), format!("listening on {}", taken.display()));
    assert!(error.hint().contains("remove it"), "{}", error.hint());
    assert!(taken.exists(), "it is somebody else's");
    assert!(serve(&folder.path().join("no/folder"), function()).unwrap_err().hint().contains("folder"));
    let long = folder.path().join("x".repeat(120));
    assert!(serve(&long, function()).unwrap_err().hint().contains("107 bytes"));
}

#[test]
fn what_does_not_speak_vfio_user_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gpu.sock");
    let mut server = serve(&socket, gpu("l40s", &Options::default())).unwrap();
    let mut stream = UnixStream::connect(&socket).unwrap();
    // A message of DEVICE_GET_IRQ_INFO that ends too early.
    stream.write_all(&[1u8, 0, 7, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    drop(stream);
    let error = server.wait(SOON).unwrap_err();
    assert!(error.hint().contains("vfio-user"), "{error}");
    assert!(!socket.exists());

    // A version whose text does not end: `vfio_user` panics at it.
    let mut server = serve(&socket, gpu("l40s", &Options::default())).unwrap();
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(&[1u8, 0, 1, 0, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, b'{', b'}']).unwrap();
    let error = server.wait(SOON).unwrap_err();
    assert!(error.to_string().ends_with("has panicked"), "{error}");
    assert!(!socket.exists());
}

#[test]
fn both_functions_are_served_side_by_side() {
    let both = functions(&Model::named("rtx-6000-ada").unwrap(), &Options::default()).unwrap();
    let mut served: Vec<Served> = both.into_iter().map(served).collect();
    let ids: Vec<u32> = served.iter_mut().map(|served| served.long(CONFIG, 0)).collect();
    assert_eq!(ids, [0x26b1_10de, 0x22ba_10de]);
    assert_eq!(served[1].long(0, 0), 0, "no registers of a GPU");
}
