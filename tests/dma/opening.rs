//! What is said of GPUs and libraries before anything is transferred.

use crate::machine::{LIMIT, machine};
use crate::simulated::libraries;
use gdsboot::bench::worker::process::{WorkerError, WorkerProcess};
use gdsboot::bench::worker::{Gpu, Task};
use gdsboot::facts::dma::DmaProbe;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

#[test]
fn the_gpu_and_cufile_say_what_they_are() {
    let machine = machine("route=p2pdma");
    let file = machine.file();
    let (worker, gpu, cufile) = machine.open(&file).unwrap();
    worker.close(LIMIT).unwrap();
    insta::assert_json_snapshot!(gpu, @r#"
    {
      "name": "Simulated GPU",
      "uuid": "GPU-5a1db007-7369-6d75-6c61-746564677075",
      "pci": "0000:c1:00.0",
      "memory": 51539607552,
      "bar1": 68719476736,
      "cuda_version": "13.1",
      "driver_version": "590.44.01",
      "failures": [],
      "simulated": true
    }
    "#);
    insta::assert_json_snapshot!(cufile, @r#"
    {
      "version": "1.16.1",
      "nvidia_fs": "2.27",
      "compat_allowed": true,
      "p2p_flags": [
        "PCI_P2PDMA"
      ],
      "counts": true,
      "failures": [],
      "simulated": true
    }
    "#);
}

#[test]
fn gpus_are_listed_in_the_order_of_their_addresses_and_opened_after() {
    let machine = machine("route=nvfs,pci=0000:c1:00.0/0000:41:00.0/0000:81:00.0");
    let file = machine.file();
    let mut worker = machine.start(&file);
    let gpus = worker.list_gpus(LIMIT).unwrap();
    let addresses: Vec<&str> = gpus.iter().map(|gpu| gpu.pci.as_str()).collect();
    assert_eq!(addresses, ["0000:41:00.0", "0000:81:00.0", "0000:c1:00.0"]);
    let uuids: BTreeSet<&str> = gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
    assert_eq!(uuids.len(), 3);
    let complete = |gpu: &Gpu| gpu.bar1.is_some() && gpu.driver_version.is_some() && gpu.failures.is_empty();
    assert!(gpus.iter().all(complete), "{gpus:?}");
    // Nothing was opened by that, and a place in the list is the number to open.
    assert_eq!(worker.open_cufile(LIMIT).unwrap_err().to_string(), "no GPU was opened");
    assert_eq!(worker.open_gpu(3, LIMIT).unwrap_err().to_string(), "there is no GPU 3: 3 in all");
    assert_eq!(worker.open_gpu(1, LIMIT).unwrap(), gpus[1]);
    assert_eq!(worker.list_gpus(LIMIT).unwrap(), gpus);
    assert_eq!(worker.open_gpu(2, LIMIT).unwrap_err().to_string(), "a GPU is open already");
    worker.open_cufile(LIMIT).unwrap();
    let ran = worker.run(Task { file: worker.file(), ..machine.task.clone() }, LIMIT).unwrap();
    worker.close(LIMIT).unwrap();
    // The transfers are counted for that GPU, and for none of the others.
    let counted = ran.after.unwrap().gpus;
    for (index, gpu) in gpus.iter().enumerate() {
        let digits = gpu.uuid.strip_prefix("GPU-").unwrap().replace('-', "");
        assert_eq!(counted[&digits].reads.nvfs, if index == 1 { 64 } else { 0 }, "{index}");
    }
}

#[test]
fn a_list_opens_nothing_and_may_be_empty() {
    let listed = |behaviour: &'static str| -> Result<Vec<Gpu>, WorkerError> {
        let machine = machine(behaviour);
        machine.start(&machine.file()).list_gpus(LIMIT)
    };
    assert_eq!(listed("gpus=0").unwrap(), []);
    let retained = "gpus=16,crash=cuDevicePrimaryCtxRetain,crash=cuCtxSetCurrent,crash=cuFileDriverOpen";
    assert_eq!(listed(retained).unwrap().len(), 16);
    let error = listed("error=cuInit:100").unwrap_err();
    assert!(matches!(&error, WorkerError::Failed(failure) if failure.status == Some(100)), "{error:?}");
    let error = listed("gpus=2,error=cuDeviceGetUuid:1").unwrap_err().to_string();
    assert_eq!(error, "cuDeviceGetUuid: CUDA_ERROR_INVALID_VALUE (1)");
    let error = listed("crash=nvmlInit_v2").unwrap_err().to_string();
    assert!(error.contains("crashed in libnvidia-ml.so.1: "), "{error}");
    for gpu in listed("gpus=2,error=nvmlInit_v2:9").unwrap() {
        assert_eq!((gpu.bar1, gpu.failures[0].to_string()), (None, "nvmlInit_v2: status 9".to_owned()));
    }
}

#[test]
fn functions_that_a_library_lacks_are_facts() {
    let machine = machine("route=nvfs").with(|m| m.old = true);
    let file = machine.file();
    let (_worker, _, cufile) = machine.open(&file).unwrap();
    let missing: Vec<_> = cufile.failures.iter().filter_map(|failure| failure.function.as_deref()).collect();
    assert_eq!(missing, ["cuFileGetVersion", "cuFileDriverGetP2PFlags", "cuFileSetStatsLevel"]);
    assert!(cufile.failures.iter().all(|failure| failure.missing));
    assert_eq!((cufile.version, cufile.p2p_flags, cufile.counts), (None, None, false));
}

#[test]
fn libraries_that_are_not_there_are_an_error_with_the_loader_s_words() {
    let file = machine("").file();
    let program = Path::new(env!("CARGO_BIN_EXE_gdsboot-dma"));
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("libcuda.so.1"), "not a library").unwrap();
    let path = [("LD_LIBRARY_PATH", dir.path().to_str().unwrap())];
    let mut worker = WorkerProcess::start(program, machine("").settings, Some(&file), &path).unwrap();
    let error = worker.open_gpu(0, LIMIT).unwrap_err().to_string();
    assert!(error.starts_with("libcuda.so.1: ") && error.contains("libcuda.so.1: file too short"), "{error}");
    // It goes on, and knows what it lacks.
    let error = worker.open_cufile(LIMIT).unwrap_err().to_string();
    assert_eq!(error, "no GPU was opened");
    let task = Task { file: worker.file(), ..machine("").task };
    assert_eq!(worker.run(task, LIMIT).unwrap_err().to_string(), "no GPU was opened");
    worker.close(LIMIT).unwrap();
}

/// So that a report can say it where nothing was transferred.
#[test]
fn a_probe_says_that_libraries_are_imitations() {
    let mut probe = Command::new(env!("CARGO_BIN_EXE_gdsboot-dma"));
    let output = probe.args(["probe", "--init"]).env("LD_LIBRARY_PATH", libraries(false)).output().unwrap();
    let probe = DmaProbe::parse(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
    assert!(
        probe.libraries.len() == 3 && probe.libraries.iter().all(|library| library.simulated),
        "{probe:?}"
    );
    assert_eq!(probe.library("libcuda.so.1").unwrap().value_of("cuDriverGetVersion"), Some("13.1"));
}
