//! Results of a benchmark on which all is well, for tests to break.

use super::plan::Thoroughness;
use super::results::{
    Attempt, Drive, GpuSeen, Kind, Level, LinkState, Measurement, Pair, Purpose, Results, State,
};
use super::route::{Outcome, Proof, Route, Share};
use super::transfer::job::{Direction, Job, Order, Until};
use super::transfer::measurement::Figures;
use super::worker::settings::{CufileSettings, Wanted};
use super::worker::{Cufile, Gpu, Verified};

/// What the drives and the GPU of [`healthy`] do, in GiB/s.
const DRIVE: f64 = 6.5;
const LINK: f64 = 52.0;

/// A job that reads: 1 MiB in order, or 4 KiB at random.
pub(crate) fn job(block: u32) -> Job {
    let (order, depth) = if block == 4096 { (Order::Random, 32) } else { (Order::Sequential, 16) };
    let until = Until::Seconds(1.5);
    Job {
        direction: Direction::Read,
        order,
        block,
        depth,
        threads: 4,
        range: 0..1 << 40,
        until,
        seed: 1,
        verify: false,
    }
}

fn figures(rate: f64, block: u32, cpu: f64) -> Figures {
    let iops = rate * f64::from(1 << 30) / f64::from(block);
    let p50_us = 64.0 / iops * 1e6;
    let (p99_us, p999_us, max_us) = (p50_us * 1.3, p50_us * 2.0, p50_us * 5.0);
    Figures { gib_per_second: rate, iops, p50_us, p99_us, p999_us, max_us, cpu_seconds_per_gib: cpu }
}

fn proof(route: Route) -> Proof {
    Proof {
        outcome: Outcome::Direct,
        route: Some(route),
        shares: vec![Share { route, transfers: 6500, bytes: 6500 << 20 }],
        bounced: Some(0.0),
        evidence: vec![
            "cuFile counted 6500 transfers of 6815744000 bytes: 6500 nvfs, 0 p2pdma, 0 posix".into(),
        ],
        ..Proof::default()
    }
}

/// nvidia-fs alone, copies by the CPU forbidden.
pub(crate) const STRICT: CufileSettings = CufileSettings { wanted: Wanted::Nvfs, compat: false };

/// A measurement.
pub(crate) fn measurement(
    kind: Kind,
    gpu: Option<&str>,
    drive: Option<&str>,
    block: u32,
    rate: f64,
) -> Measurement {
    let cpu = match kind {
        Kind::Bounce => 0.061,
        _ => 0.006,
    };
    let speed = LinkState { speed: 32.0, width: 16, speed_max: 32.0, width_max: 16 };
    let is_cufile = kind.engine().is_some_and(super::worker::Engine::is_cufile);
    Measurement {
        gpu: gpu.map(str::to_owned),
        drive: drive.map(str::to_owned),
        settings: is_cufile.then_some(STRICT),
        bytes: (rate * 1.5 * f64::from(1 << 30)) as u64,
        seconds: 1.5,
        figures: figures(rate, block, cpu),
        verified: gpu.map(|_| Verified { blocks: 16, ..Verified::default() }),
        proof: is_cufile.then(|| proof(Route::Nvfs)),
        state: State {
            gpu_celsius: gpu.map(|_| 41.0),
            gpu_link: gpu.map(|_| speed),
            drive_celsius: drive.map(|_| 38.0),
            drive_limit_celsius: drive.map(|_| 70.0),
            drive_link: drive.map(|_| LinkState { width: 4, width_max: 4, ..speed }),
            ..State::default()
        },
        ..Measurement::new(0, kind, Purpose::Figures, job(block))
    }
}

/// A GPU with a near drive, `nvme0n1`, and a far one, `nvme1n1`, all of them as good as they can be. The GPU and the near
/// drive have these PCI addresses.
pub(crate) fn healthy(gpu: &str, near: &str) -> Results {
    let cufile = Cufile {
        version: Some("1.16.1".into()),
        nvidia_fs: Some("2.27".into()),
        compat_allowed: Some(false),
        p2p_flags: Some(vec!["NVFS".into()]),
        counts: true,
        ..Cufile::default()
    };
    let opened = Gpu {
        name: "NVIDIA H100 PCIe".into(),
        uuid: "GPU-5a1db007-7369-6d75-6c61-746564677075".into(),
        pci: gpu.into(),
        memory: 80 << 30,
        bar1: Some(128 << 30),
        cuda_version: Some("13.1".into()),
        driver_version: Some("590.44.01".into()),
        ..Gpu::default()
    };
    let drive = |name: &str, pci: &str| Drive {
        name: name.into(),
        model: Some("KIOXIA KCD61LUL3T84".into()),
        pci: Some(pci.into()),
        bytes: 3_840_755_982_336,
        block: 512,
        level: Level::ReadOnly,
        blank: Some(0.0),
    };
    let mut measurements = vec![
        measurement(Kind::HostCopy, Some(gpu), None, 16 << 20, LINK),
        Measurement {
            job: Job { direction: Direction::Write, ..job(16 << 20) },
            ..measurement(Kind::HostCopy, Some(gpu), None, 16 << 20, LINK - 1.0)
        },
    ];
    let mut pairs = Vec::new();
    for (name, distance, rate) in [("nvme0n1", "PIX", DRIVE - 0.1), ("nvme1n1", "SYS", DRIVE - 0.3)] {
        let drive = Some(name);
        let pair = [(1 << 20, DRIVE, rate - 0.2, rate), (4096, 4.0, 1.5, 1.9)];
        for (block, alone, bounce, direct) in pair {
            measurements.push(measurement(Kind::Storage, None, drive, block, alone));
            measurements.push(measurement(Kind::Bounce, Some(gpu), drive, block, bounce));
            measurements.push(measurement(Kind::Cufile, Some(gpu), drive, block, direct));
        }
        measurements.push(Measurement {
            purpose: Purpose::Load,
            job: Job { range: 0..16 << 30, until: Until::Once, ..job(4 << 20) },
            bytes: 16 << 30,
            seconds: 16.0 / rate,
            ..measurement(Kind::Cufile, Some(gpu), drive, 4 << 20, rate)
        });
        pairs.push(Pair {
            gpu: gpu.into(),
            drive: name.into(),
            distance: Some(distance.into()),
            near: distance == "PIX",
            attempts: vec![Attempt {
                settings: STRICT,
                measurements: vec![],
                proof: proof(Route::Nvfs),
                error: None,
            }],
        });
    }
    for (number, measurement) in (1..).zip(&mut measurements) {
        measurement.number = number;
    }
    Results {
        thoroughness: Thoroughness::Quick,
        planned_seconds: 51.0,
        seconds: 47.2,
        gpus: vec![GpuSeen { index: 0, gpu: opened, cufile: Some(cufile) }],
        drives: vec![drive("nvme0n1", near), drive("nvme1n1", "0000:99:00.0")],
        pairs,
        measurements,
        ..Results::default()
    }
}
