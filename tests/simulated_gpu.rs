//! The simulated GPU in a real QEMU, without a guest: the test is the machine's CPU, by QEMU's qtest protocol.

mod common;

use simulated_gpu::{Fault, Model, Options, Server, capabilities, functions, qemu, serve};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
/// Where the test puts the GPU's windows and those of QEMU's `edu`, which copies memory for whoever asks it.
const REGISTERS: u64 = 0xe100_0000;
const BAR1: u64 = 0x80_0000_0000;
const EDU: u64 = 0xe000_0000;
const GPU_SLOT: u32 = 5;
const EDU_SLOT: u32 = 6;

struct Machine {
    qemu: Child,
    answers: BufReader<UnixStream>,
    servers: Vec<Server>,
    _folder: tempfile::TempDir,
}

impl Machine {
    fn with(model: &str, options: &Options) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let (memory, property) = qemu::shared_memory(64);
        let qtest = folder.path().join("qtest");
        let listener = UnixListener::bind(&qtest).unwrap();
        let qemu =
            std::env::var_os("GDSBOOT_TEST_QEMU").map_or_else(|| common::qemu().to_owned(), PathBuf::from);
        let mut command = Command::new(qemu);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-m", "64M", "-accel", "qtest"]);
        command.args(memory).arg("-machine").arg(format!("q35,{property}"));
        command.arg("-qtest").arg(format!("unix:{}", qtest.display())).args(["-qtest-log", "/dev/null"]);
        command.args(["-device", "edu,bus=pcie.0,addr=6,dma_mask=0xffffffffffffffff"]);
        let mut servers = Vec::new();
        for function in functions(&Model::named(model).unwrap(), options).unwrap() {
            let socket = folder.path().join(format!("gpu.{}", function.number));
            let device = qemu::device(&function, function.number == 0, "pcie.0", GPU_SLOT as u8, &socket);
            command.arg("-device").arg(device);
            servers.push(serve(&socket, function).unwrap());
        }
        let mut qemu =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stream = accept(&listener, &mut qemu);
        stream.set_read_timeout(Some(SOON)).unwrap();
        Machine { qemu, answers: BufReader::new(stream), servers, _folder: folder }
    }

    /// One command and what is said to it.
    fn ask(&mut self, command: &str) -> String {
        self.answers.get_mut().write_all(format!("{command}\n").as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            self.answers.read_line(&mut line).unwrap();
            if !line.starts_with("IRQ") {
                let answer = line.trim_end().strip_prefix("OK");
                return answer.unwrap_or_else(|| panic!("{command}: {line}")).trim().to_owned();
            }
        }
    }

    fn number(&mut self, command: &str) -> u64 {
        let answer = self.ask(command);
        u64::from_str_radix(answer.trim_start_matches("0x"), 16).unwrap()
    }

    fn choose(&mut self, slot: u32, function: u32, at: u32) {
        self.ask(&format!("outl 0xcf8 {:#x}", 1 << 31 | slot << 11 | function << 8 | at & !3));
    }

    fn config(&mut self, slot: u32, function: u32, at: u32) -> u32 {
        self.choose(slot, function, at);
        self.number("inl 0xcfc") as u32
    }

    fn set_config(&mut self, slot: u32, at: u32, value: u32) {
        self.choose(slot, 0, at);
        self.ask(&format!("outl 0xcfc {value:#x}"));
    }

    /// Gives the windows addresses and switches them on, bus mastering too.
    fn place_windows(&mut self) {
        for (slot, at, value) in [
            (GPU_SLOT, 0x10, REGISTERS as u32),
            (GPU_SLOT, 0x14, BAR1 as u32),
            (GPU_SLOT, 0x18, (BAR1 >> 32) as u32),
            (GPU_SLOT, 0x04, 6),
            (EDU_SLOT, 0x10, EDU as u32),
            (EDU_SLOT, 0x04, 6),
        ] {
            self.set_config(slot, at, value);
        }
    }

    fn read(&mut self, address: u64, length: usize) -> Vec<u8> {
        let answer = self.ask(&format!("read {address:#x} {length}"));
        hex::decode(answer.trim_start_matches("0x")).unwrap()
    }

    fn write(&mut self, address: u64, data: &[u8]) {
        self.ask(&format!("write {address:#x} {} 0x{}", data.len(), hex::encode(data)));
    }

    /// `edu` copies: from one address to its buffer, and from there to another.
    fn copy(&mut self, from: u64, to: u64, length: usize) {
        const BUFFER: u64 = 0x4_0000;
        for (source, target, command) in [(from, BUFFER, 1), (BUFFER, to, 3)] {
            for (register, value) in [(0x80, source), (0x88, target), (0x90, length as u64), (0x98, command)]
            {
                self.ask(&format!("writeq {:#x} {value:#x}", EDU + register));
            }
            self.ask("clock_step 200000000");
            let state = self.number(&format!("readl {:#x}", EDU + 0x98));
            assert_eq!(state & 1, 0, "the copy has not ended");
        }
    }

    /// Ends QEMU; what it said.
    fn end(mut self) -> String {
        self.qemu.kill().unwrap();
        self.qemu.wait().unwrap();
        for server in &mut self.servers {
            assert!(server.wait(SOON).unwrap());
        }
        let mut said = String::new();
        self.qemu.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// QEMU's connection; a QEMU that ends first shows why.
fn accept(listener: &UnixListener, qemu: &mut Child) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let end = std::time::Instant::now() + SOON;
    while std::time::Instant::now() < end && qemu.try_wait().unwrap().is_none() {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            return stream;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    qemu.kill().unwrap();
    let mut said = String::new();
    qemu.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    panic!("QEMU did not start: {said}");
}

#[test]
fn qemu_shows_both_functions_with_their_marks() {
    let mut machine = Machine::with("rtx-6000-ada", &Options { clique: Some(5), ..Options::default() });
    assert_eq!(machine.config(GPU_SLOT, 0, 0), 0x26b1_10de);
    assert_eq!(machine.config(GPU_SLOT, 1, 0), 0x22ba_10de);
    assert_eq!(machine.config(GPU_SLOT, 0, 0x0c) >> 16 & 0xff, 0x80, "there are several functions");
    // The window's size, 64 GiB.
    machine.set_config(GPU_SLOT, 0x14, u32::MAX);
    machine.set_config(GPU_SLOT, 0x18, u32::MAX);
    assert_eq!((machine.config(GPU_SLOT, 0, 0x14), machine.config(GPU_SLOT, 0, 0x18)), (0xc, 0xffff_fff0));
    let mut mark = Vec::new();
    for at in [0xb8, 0xbc, 0xc0] {
        mark.extend(machine.config(GPU_SLOT, 0, at).to_le_bytes());
    }
    assert_eq!(&mark[3..11], capabilities::MARK);
    // NVIDIA's clique 5, as QEMU's own vfio-pci writes it.
    assert_eq!(
        (machine.config(GPU_SLOT, 0, 0xc8), machine.config(GPU_SLOT, 0, 0xcc)),
        (0x5008_0009, 0x0028_5032)
    );
    assert!(machine.servers.iter().all(|server| server.seen().talked));
    assert_eq!(machine.end(), "");
}

#[test]
fn registers_answer_and_dma_reaches_bar1() {
    let mut machine = Machine::with("l40s", &Options::default());
    machine.place_windows();
    assert_eq!(machine.number(&format!("readl {REGISTERS:#x}")), 0x1920_00a1);
    assert_eq!(machine.number(&format!("readl {:#x}", REGISTERS + 0xa00)), 0x192a_1000);

    let (data, far) = (*b"from RAM to BAR1, and back again", BAR1 + (63 << 30));
    machine.write(0x10_0000, &data);
    machine.copy(0x10_0000, far, data.len());
    assert_eq!(machine.read(far, data.len()), data, "as the CPU sees it");
    machine.copy(far, 0x20_0000, data.len());
    assert_eq!(machine.read(0x20_0000, data.len()), data);
    assert_eq!(machine.end(), "");
}

#[test]
fn a_gpu_falls_off_the_bus_of_qemu() {
    let faults = vec![Fault::FallenOffTheBus { after_reads: 1 }];
    let mut machine = Machine::with("l40s", &Options { faults, ..Options::default() });
    machine.place_windows();
    machine.write(BAR1, &[1, 2, 3, 4]);
    assert_eq!(machine.read(BAR1, 4), [1, 2, 3, 4]);
    assert_eq!(machine.number(&format!("readl {REGISTERS:#x}")), 0x1920_00a1);
    assert_eq!(machine.number(&format!("readl {REGISTERS:#x}")), 0xffff_ffff);
    assert_eq!(machine.config(GPU_SLOT, 0, 0), u32::MAX);
    assert_eq!(machine.read(BAR1, 4), [0xff; 4]);
    assert_eq!(machine.end(), "");
}

#[test]
fn qemu_is_refused_a_reset() {
    // It resets all devices when it starts, before it answers.
    let mut machine = Machine::with("l40s", &Options::default());
    assert_eq!(machine.config(GPU_SLOT, 0, 0), 0x26b9_10de);
    assert!(machine.servers[0].seen().resets > 0);
    assert_eq!(machine.end(), "");
    let faults = vec![Fault::RefusesReset];
    let mut machine = Machine::with("l40s", &Options { faults, ..Options::default() });
    assert_eq!(machine.config(GPU_SLOT, 0, 0), 0x26b9_10de);
    assert!(machine.servers[0].seen().refused_resets > 0);
    assert_eq!(machine.end(), "reset reply error 0\n");
}
