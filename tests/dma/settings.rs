//! Where the imitation is told how to behave.

use crate::machine::{LIMIT, machine};
use crate::simulated::{self, libraries};
use gdsboot::bench::worker::process::WorkerProcess;
use gdsboot::bench::worker::{Engine, Gpu};
use std::path::Path;

/// The GPUs where the libraries' folder holds this file, and the environment this variable.
fn gpus(text: Option<&str>, variable: Option<&str>) -> Vec<Gpu> {
    let folder = tempfile::tempdir().unwrap();
    simulated::link(&libraries(false).join(simulated::LIBRARY), folder.path());
    if let Some(text) = text {
        fs_err::write(folder.path().join("gdsboot-simulated.conf"), text).unwrap();
    }
    let program = Path::new(env!("CARGO_BIN_EXE_gdsboot-dma"));
    let mut environment = vec![("LD_LIBRARY_PATH", folder.path().to_str().unwrap())];
    environment.extend(variable.map(|value| ("GDSBOOT_SIMULATED", value)));
    let settings = machine("").settings;
    let mut worker = WorkerProcess::start(program, settings, None, &environment).unwrap();
    worker.list_gpus(LIMIT).unwrap()
}

#[test]
fn a_file_beside_the_libraries_says_how_they_behave() {
    let text = "# two GPUs in a switch\nroute=p2pdma, gpus=2\npci=0000:17:00.0/0000:18:00.0 # both\r\n\n";
    let addresses = |gpus: Vec<Gpu>| gpus.into_iter().map(|gpu| gpu.pci).collect::<Vec<_>>();
    assert_eq!(addresses(gpus(Some(text), None)), ["0000:17:00.0", "0000:18:00.0"]);
    // What the environment says comes first, even where it says nothing.
    assert_eq!(addresses(gpus(Some(text), Some("pci=0000:05:00.0"))), ["0000:05:00.0"]);
    assert_eq!(addresses(gpus(Some(text), Some(""))), ["0000:c1:00.0"]);
    assert_eq!(addresses(gpus(None, None)), ["0000:c1:00.0"]);
}

/// A test whose machine is not the one it was meant for proves nothing.
#[test]
fn words_that_are_none_end_the_worker() {
    for (behaviour, said) in [
        ("rout=nvfs", "rout=nvfs: no word of the table"),
        ("route=nvfs,hurry", "hurry: no name=value"),
        ("route=pcie", "route=pcie: not a value of route"),
        ("corrupt=0", "corrupt=0: not a value of corrupt"),
        ("error=cuInit", "error=cuInit: not a value of error"),
        ("slow=cuInit:long", "slow=cuInit:long: not a value of slow"),
        ("pci=c1:00.0", "pci=c1:00.0: not a value of pci"),
        ("slowed=0xg", "slowed=0xg: not a value of slowed"),
        ("gpus=17", "17 GPUs: at most 16"),
        ("gpus=2,pci=0000:c1:00.0", "2 GPUs at 1 addresses"),
        ("route=nvfs,route=compat", "route=compat: route stands there twice"),
    ] {
        let error = machine(behaviour).run().unwrap_err().to_string();
        assert!(error.starts_with("the DMA worker ended in cuInit: exit status: 64"), "{error}");
        assert!(error.contains(&format!("error: GDSBOOT_SIMULATED: {said}")), "{error}");
    }
}

#[test]
fn functions_can_be_slow_and_several_can_fail() {
    let slow = machine("slow=cuMemcpyHtoDAsync_v2:20000,slow=cuMemcpyDtoH_v2:1").with(|m| {
        m.task.engine = Engine::HostCopy;
        m.task.job.range.end = 8 * u64::from(m.task.job.block);
    });
    let (ran, _) = slow.run().unwrap();
    let figures = ran.samples.figures();
    assert!(figures.p50_us >= 20_000.0 && ran.samples.transfers() == 8, "{figures:?}");
    let both = machine("route=nvfs,error=nvmlInit_v2:9,error=cuFileRead:5044");
    let file = both.file();
    let (_worker, gpu, _) = both.open(&file).unwrap();
    assert_eq!(gpu.failures[0].to_string(), "nvmlInit_v2: status 9");
    let (ran, _) = both.run().unwrap();
    assert_eq!(ran.samples.errors[0].what, "cuFileRead: CU_FILE_IO_ERROR (5044)");
}

/// What benches/worker.rs measures by.
#[test]
fn the_time_between_transfers_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("between");
    let behaviour = format!("route=nvfs,between={}", path.display());
    let machine = machine(behaviour.leak()).with(|m| (m.task.job.threads, m.task.job.depth) = (1, 1));
    machine.run().unwrap();
    let said = fs_err::read_to_string(path).unwrap();
    let numbers: Vec<u64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [outside, all, calls] = numbers[..] else { panic!("{said}") };
    assert!(outside > 0 && outside < all && calls == 64, "{said}");
}
