//! What is planned for machines of many kinds.

use super::*;

const TIB: u64 = 1 << 40;

fn wish(thoroughness: Thoroughness) -> Wish {
    Wish { thoroughness, own: vec![], seconds: None, cpus: 16, seed: 1, gdsio: false, workloads: vec![] }
}

fn space(bytes: u64, writable: bool) -> Space {
    Space { name: "x".into(), bytes, block: 512, writable }
}

fn plan(wish: &Wish, drives: &[Space], ranks: &Ranks) -> Plan {
    let gpus: Vec<String> = (0..ranks.len()).map(|gpu| format!("0000:0{gpu}:00.0")).collect();
    Plan::new(wish, drives, &gpus, ranks)
}

fn words(jobs: &[Job]) -> Vec<String> {
    jobs.iter().map(Job::to_string).collect()
}

#[test]
fn a_quick_plan_for_one_pair_takes_less_than_a_minute() {
    for writable in [false, true] {
        let plan = plan(&wish(Thoroughness::Quick), &[space(TIB, writable)], &[vec![0]]);
        // A file of the default size.
        let fill = if writable { 4.0 - TIB as f64 * 0.75 / SLOW_WRITES } else { 0.0 };
        let seconds = plan.seconds() + fill;
        assert!((30.0..60.0).contains(&seconds), "{seconds}: {plan:#?}");
    }
}

#[test]
fn drives_are_written_only_where_they_may_be_and_never_where_they_are_read() {
    let jobs = wish(Thoroughness::Quick).jobs(&space(TIB, false)).jobs;
    assert_eq!(words(&jobs), ["read sequential 1 MiB, 4 x 16", "read random 4 KiB, 4 x 32"]);
    for bytes in [1 << 20, 100 << 20, 1 << 30, TIB] {
        let plan = plan(&wish(Thoroughness::Full), &[space(bytes, true)], &[vec![0]]);
        let (mut read, mut written, mut filled) = (0..0, 0..0, 0..0);
        let all = plan.steps.iter().flat_map(|step| match &step.part {
            Part::Fill { job, .. } => {
                filled = job.range.clone();
                vec![]
            }
            Part::Storage { jobs, .. } | Part::Route { jobs, .. } => jobs.clone(),
            Part::Figures { jobs, load, .. } => {
                jobs.iter().chain(load.iter().map(|load| &load.job)).cloned().collect()
            }
            _ => vec![],
        });
        for job in all {
            assert_eq!(job.check(), Ok(()));
            assert!(job.range.end <= bytes, "{job:?}");
            match job.direction {
                Direction::Read => read.end = read.end.max(job.range.end),
                Direction::Write => written = job.range.start..job.range.end.max(written.end),
            }
        }
        assert!(read.end <= filled.end, "{bytes}: {read:?} of {filled:?}");
        assert!(filled.end <= written.start || written.is_empty(), "{bytes}: {filled:?} and {written:?}");
    }
}

#[test]
fn a_full_plan_has_every_size_with_few_and_many_threads() {
    let jobs = wish(Thoroughness::Full).jobs(&space(TIB, false)).jobs;
    assert_eq!(jobs.len(), 12);
    assert_eq!(jobs[2].to_string(), "read sequential 16 MiB, 1 x 2");
    assert_eq!(jobs[11].to_string(), "read random 4 KiB, 16 x 32");
}

#[test]
fn what_does_not_fit_a_small_drive_is_named() {
    for bytes in [0, 4095, 4096, 1 << 20, 20 << 20] {
        let plan = plan(&wish(Thoroughness::Full), &[space(bytes, true)], &[vec![0]]);
        assert!(plan.left_out.iter().all(|not| not.cause == Cause::Size));
        assert!(!plan.left_out.is_empty(), "{bytes}");
    }
    let plan = plan(&wish(Thoroughness::Quick), &[space(1 << 20, false)], &[vec![0]]);
    assert_eq!(plan.left_out[0].what, "read sequential 1 MiB, 4 x 16");
    assert_eq!(plan.left_out[0].why, "1048576 bytes are too few for 4 threads of 1048576 bytes");
    assert!(matches!(&plan.steps[0].part, Part::Storage { jobs, .. } if jobs.len() == 1));
}

#[test]
fn blocks_are_multiples_of_the_drive_s_own() {
    let large = Space { block: 16384, ..space(TIB, false) };
    let jobs = wish(Thoroughness::Quick).jobs(&large);
    assert_eq!(words(&jobs.jobs), ["read sequential 1 MiB, 4 x 16"]);
    assert_eq!(words(&jobs.too_large), ["read random 4 KiB, 4 x 32"]);
}

/// The pairs whose route is tried, the measured ones, and those that run together.
type Chosen = (Vec<(usize, usize)>, Vec<(usize, usize)>, Vec<(usize, usize)>);

fn chosen(thoroughness: Thoroughness, ranks: &Ranks) -> Chosen {
    let drives: Vec<_> = ranks[0].iter().map(|_| space(TIB, false)).collect();
    let plan = plan(&wish(thoroughness), &drives, ranks);
    let (mut tried, mut measured, mut together) = (vec![], vec![], vec![]);
    for step in plan.steps {
        match step.part {
            Part::Route { gpu, drive, .. } => tried.push((gpu, drive)),
            Part::Figures { gpu, drive, .. } => measured.push((gpu, drive)),
            Part::Together { pairs, .. } => together = pairs,
            _ => {}
        }
    }
    (tried, measured, together)
}

#[test]
fn each_gpu_is_measured_with_its_nearest_drive_and_one_with_the_farthest() {
    // Two sockets with a GPU and two drives each.
    let ranks = [vec![0, 0, 4, 4], vec![4, 4, 0, 0]];
    let (tried, measured, together) = chosen(Thoroughness::Quick, &ranks);
    assert_eq!(measured, [(0, 0), (1, 2), (0, 3)]);
    assert_eq!(tried, [(0, 0), (1, 2), (0, 3), (1, 1)]);
    assert_eq!(together, [(0, 0), (0, 1), (1, 2), (1, 3)]);
    let (tried, measured, _) = chosen(Thoroughness::Full, &ranks);
    assert_eq!((tried.len(), measured.len()), (8, 4));
}

#[test]
fn equal_drives_are_shared_out() {
    let ranks = vec![vec![2; 4]; 4];
    let (tried, measured, together) = chosen(Thoroughness::Quick, &ranks);
    assert_eq!(measured, [(0, 0), (1, 1), (2, 2), (3, 3)]);
    assert_eq!((tried, together.len()), (measured, 4));
    // More GPUs than drives.
    let (.., together) = chosen(Thoroughness::Quick, &vec![vec![2]; 3]);
    assert_eq!(together, [(0, 0), (1, 0), (2, 0)]);
    // One of each is no crowd.
    assert_eq!(chosen(Thoroughness::Quick, &[vec![0]]).2, []);
}

#[test]
fn a_large_machine_is_done_in_minutes_and_says_what_it_left_out() {
    let ranks: Vec<Vec<u8>> =
        (0..8).map(|gpu| (0..16).map(|drive| if gpu / 4 == drive / 8 { 0 } else { 4 }).collect()).collect();
    let drives: Vec<_> = (0..16).map(|_| space(TIB, false)).collect();
    let plan = plan(&wish(Thoroughness::Quick), &drives, &ranks);
    assert!((120.0..600.0).contains(&plan.seconds()), "{}", plan.seconds());
    let tried: Vec<_> = plan.steps.iter().filter(|step| matches!(step.part, Part::Route { .. })).collect();
    assert_eq!(tried.len() + plan.left_out.len(), 128);
    assert!(plan.left_out.iter().all(|not| not.cause == Cause::Time && not.gpu.is_some()));
}

#[test]
fn without_a_gpu_there_are_the_drives_and_without_drives_the_gpus() {
    let drives_only = plan(&wish(Thoroughness::Quick), &[space(TIB, false)], &[]);
    assert!(matches!(drives_only.steps[..], [Step { part: Part::Storage { .. }, .. }]));
    let gpus_only = plan(&wish(Thoroughness::Quick), &[], &[vec![]]);
    assert!(matches!(gpus_only.steps[..], [Step { part: Part::Link { .. }, .. }]));
    assert_eq!(plan(&wish(Thoroughness::None), &[space(TIB, true)], &[vec![0]]), Plan::default());
}

#[test]
fn nvidia_s_tools_are_run_where_something_may_be_written() {
    let wish = Wish { gdsio: true, ..wish(Thoroughness::Quick) };
    let of = |bytes, writable| plan(&wish, &[space(bytes, writable)], &[vec![0]]);
    let steps = of(TIB, true).steps;
    let run: Vec<_> = steps.iter().filter(|step| matches!(step.part, Part::Gdsio { .. })).collect();
    let [Step { part: Part::Gdsio { job, .. }, seconds }] = run[..] else { panic!("{steps:#?}") };
    assert_eq!((job.to_string().as_str(), *seconds), ("read sequential 1 MiB, 64 x 1", 18.0));
    for (bytes, writable, cause) in [(TIB, false, Cause::Refused), (32 << 20, true, Cause::Size)] {
        let plan = of(bytes, writable);
        assert!(!plan.steps.iter().any(|step| matches!(step.part, Part::Gdsio { .. })));
        let not = plan.left_out.iter().find(|not| not.what == "gdsio").unwrap();
        assert_eq!(not.cause, cause);
    }
}

#[test]
fn workloads_come_last_and_need_no_drive() {
    let table = "[[workload]]\nname = \"wake\"\ncommand = \"/x\"\ntimeout_s = 9\n".parse().unwrap();
    let (workloads, complaints) = crate::bench::workload::config::parse(&table);
    assert_eq!(complaints, [""; 0]);
    let wish = Wish { workloads, ..wish(Thoroughness::Quick) };
    let expected = Step { part: Part::Workload { number: 0, name: "wake".into() }, seconds: 9.0 };
    assert_eq!(plan(&wish, &[], &[]).steps, std::slice::from_ref(&expected));
    assert_eq!(plan(&wish, &[space(TIB, false)], &[vec![0]]).steps.last(), Some(&expected));
}
