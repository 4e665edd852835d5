//! What a GPU says of itself while a job runs.

use crate::machine::{LIMIT, Machine, machine};
use gdsboot::bench::transfer::job::Until;
use gdsboot::bench::worker::Task;
use gdsboot::bench::worker::gpu_state::GpuState;
use std::time::{Duration, Instant};

/// A job of so many seconds.
fn timed(behaviour: &'static str, seconds: f64) -> Machine {
    machine(behaviour).with(|m| (m.task.job.until, m.task.job.verify) = (Until::Seconds(seconds), false))
}

#[test]
fn a_gpu_is_asked_once_a_second_and_at_the_end() {
    let (ran, _) = timed("route=nvfs,celsius=83,slowed=0x25", 2.4).run().unwrap();
    let at: Vec<u64> = ran.gpu_states.iter().map(|state| state.at_ms).collect();
    assert!(at.len() >= 3 && at[0] >= 1000 && at[1] >= 2000 && *at.last().unwrap() >= 2400, "{at:?}");
    assert!(at.is_sorted(), "{at:?}");
    for state in ran.gpu_states {
        // Bit 0 is idleness.
        let slowed = ["sw_power_cap", "sw_thermal_slowdown"].map(str::to_owned).to_vec();
        assert_eq!(state, GpuState { at_ms: state.at_ms, celsius: Some(83), slowed });
    }
}

#[test]
fn what_nvml_cannot_say_is_left_out() {
    let states = |behaviour, old| {
        let (ran, _) = timed(behaviour, 0.1).with(|m| m.old = old).run().unwrap();
        let said = ran.gpu_states.into_iter().map(|state| (state.celsius, state.slowed));
        said.collect::<Vec<_>>()
    };
    let slowed = || vec!["hw_slowdown".to_owned()];
    // The older library knows the reasons by their older name.
    assert_eq!(states("slowed=8", true), [(Some(45), slowed())]);
    assert_eq!(states("slowed=8,error=nvmlDeviceGetTemperature:3", false), [(None, slowed())]);
    assert_eq!(
        states("slowed=8,error=nvmlDeviceGetCurrentClocksEventReasons:3", false),
        [(Some(45), vec![])]
    );
    for mute in [
        "error=nvmlInit_v2:9",
        "error=nvmlDeviceGetHandleByPciBusId_v2:15",
        "error=nvmlDeviceGetTemperature:15,error=nvmlDeviceGetCurrentClocksEventReasons:15",
    ] {
        assert_eq!(states(mute, false), []);
    }
}

#[test]
fn nvml_that_hangs_does_not_hold_up_the_job() {
    let machine = timed("route=nvfs,hang=nvmlDeviceGetTemperature", 0.2);
    let file = machine.file();
    let (mut worker, ..) = machine.open(&file).unwrap();
    // The first job waits a little for the last answer; later ones know better.
    for limit in [10.0, 0.9] {
        let begun = Instant::now();
        let ran = worker.run(Task { file: worker.file(), ..machine.task.clone() }, LIMIT).unwrap();
        assert!(ran.samples.transfers() > 0 && ran.gpu_states.is_empty());
        assert!(begun.elapsed() < Duration::from_secs_f64(limit), "{:?}", begun.elapsed());
    }
    worker.close(LIMIT).unwrap();
}

#[test]
fn an_answer_that_comes_late_is_still_one() {
    let (ran, _) = timed("route=nvfs,slow=nvmlDeviceGetTemperature:300000", 0.1).run().unwrap();
    assert_eq!(ran.gpu_states.len(), 1);
    assert!(ran.samples.seconds < 0.3, "{}", ran.samples.seconds);
}
