use super::*;
use crate::report::model::Verdict;

fn row(n: usize) -> Row {
    Row {
        machine: format!("m{n:02}"),
        complete: true,
        verdict: Some(Verdict::Pass),
        product: Some("P".into()),
        gpu_ids: vec!["10de:2330".into(), "10de:2330".into()],
        gpu_models: vec!["G".into(), "G".into()],
        thoroughness: Some(Thoroughness::Quick),
        driver: Some("580".into()),
        nvidia_fs: Some("2.27".into()),
        direct_gib_s: Some(10.0 + 0.05 * (n % 4) as f64),
        ..Row::default()
    }
}

fn found(rows: &[Row]) -> Vec<String> {
    find(rows).1.iter().map(|deviation| format!("{}: {}", deviation.machine, deviation.words())).collect()
}

#[test]
fn the_majority_of_like_machines_is_usual() {
    let mut rows: Vec<Row> = (0..8).map(row).collect();
    assert_eq!(found(&rows), Vec::<String>::new());
    rows[2].driver = Some("550".into());
    rows[5].nvidia_fs = None;
    rows[5].verdict = Some(Verdict::Fail);
    // Another kind of machine is not compared with these, nor is what was cut off.
    rows.push(Row {
        gpu_ids: vec!["10de:27b8".into()],
        gpu_models: vec!["H".into()],
        driver: Some("1".into()),
        ..row(9)
    });
    rows.push(Row { complete: false, driver: Some("2".into()), ..row(10) });
    assert_eq!(
        found(&rows),
        [
            "m02: driver is 550; usual is 580 (7 of 8)",
            "m05: verdict is FAIL; usual is PASS (7 of 8)",
            "m05: nvidia_fs is none; usual is 2.27 (7 of 8)",
        ]
    );
    let (groups, _) = find(&rows);
    let words: Vec<_> = groups.iter().map(|g| (g.name.as_str(), g.machines, g.deviating)).collect();
    assert_eq!(words, [("P, 2 x G", 8, 2), ("P, 1 x H", 1, 0)]);
}

#[test]
fn a_machine_whose_gpus_are_not_seen_is_compared_with_the_others() {
    let mut rows: Vec<Row> = (0..50).map(row).collect();
    // Its driver did not load; one of its GPUs is gone; all of them are.
    rows[1].gpu_models = rows[1].gpu_ids.clone();
    rows[1].driver = None;
    rows[2].gpu_ids.pop();
    rows[2].gpu_models.pop();
    rows[3].gpu_ids.clear();
    rows[3].gpu_models.clear();
    assert_eq!(
        found(&rows),
        [
            "m01: gpu_models is 2 10de:2330; usual is 2 G (47 of 50)",
            "m01: driver is none; usual is 580 (49 of 50)",
            "m02: gpu_models is 1 G; usual is 2 G (47 of 50)",
            "m03: gpu_models is none; usual is 2 G (47 of 50)",
        ]
    );
    let (groups, _) = find(&rows);
    assert_eq!(groups, [Group { name: "P, 2 x G".into(), machines: 50, deviating: 3 }]);
}

#[test]
fn the_order_of_drives_is_the_kernel_s() {
    let drives = |models: &[&str]| models.iter().map(|model| (*model).to_owned()).collect::<Vec<_>>();
    let mut rows: Vec<Row> =
        (0..5).map(|n| Row { nvme_models: drives(&["A", "B", "B"]), ..row(n) }).collect();
    rows[2].nvme_models = drives(&["B", "A", "B"]);
    assert_eq!(found(&rows), Vec::<String>::new());
    rows[2].nvme_models = drives(&["A", "A", "B"]);
    assert_eq!(found(&rows), ["m02: nvme_models is 2 A; 1 B; usual is 1 A; 2 B (4 of 5)"]);
}

#[test]
fn what_is_simulated_does_not_vote() {
    let mut rows: Vec<Row> = (0..3).map(row).collect();
    rows.extend((3..9).map(|n| Row { simulated: true, driver: Some("imitated".into()), ..row(n) }));
    assert_eq!(found(&rows), Vec::<String>::new());
    assert_eq!(find(&rows).0[0].machines, 3);
}

#[test]
fn figures_are_compared_among_equals() {
    let mut rows: Vec<Row> = (0..12).map(row).collect();
    // A full benchmark tries more, and finds faster ones.
    for row in &mut rows[6..] {
        row.thoroughness = Some(Thoroughness::Full);
        row.direct_gib_s = row.direct_gib_s.map(|figure| figure + 3.0);
    }
    assert_eq!(found(&rows), Vec::<String>::new());
    rows[7].direct_gib_s = Some(10.0);
    assert_eq!(found(&rows).len(), 1);
    // Less CPU time than is told apart, however many percent that is.
    let mut rows: Vec<Row> = (0..9).map(|n| Row { direct_cpu_s_per_gib: Some(0.002), ..row(n) }).collect();
    rows[4].direct_cpu_s_per_gib = Some(0.006);
    assert_eq!(found(&rows), Vec::<String>::new());
    rows[4].direct_cpu_s_per_gib = Some(0.008);
    assert_eq!(found(&rows), ["m04: direct_cpu_s_per_gib is 0.008, +300 %; usual is 0.002, the median"]);
}

#[test]
fn without_a_majority_nobody_deviates() {
    let mut rows: Vec<Row> = (0..4).map(row).collect();
    rows[0].driver = Some("550".into());
    rows[1].driver = Some("550".into());
    assert_eq!(found(&rows), Vec::<String>::new());
    assert_eq!(
        found(&[row(0), Row { driver: Some("550".into()), ..row(1) }]),
        Vec::<String>::new(),
        "two are no majority"
    );
}

#[test]
fn figures_are_compared_with_the_median() {
    let mut rows: Vec<Row> = (0..9).map(row).collect();
    rows[3].direct_gib_s = Some(5.0);
    rows[4].direct_gib_s = Some(5.2);
    let said = found(&rows);
    assert_eq!(said.len(), 2, "two outliers do not hide each other: {said:?}");
    assert!(said[0].starts_with("m03: direct_gib_s is 5, -50 %; usual is 10."), "{said:?}");
    // All alike: a difference of less than 5 % is none.
    let mut rows: Vec<Row> = (0..9).map(|n| Row { direct_gib_s: Some(10.0), ..row(n) }).collect();
    rows[0].direct_gib_s = Some(9.6);
    assert_eq!(found(&rows), Vec::<String>::new());
    rows[0].direct_gib_s = Some(9.4);
    assert_eq!(found(&rows).len(), 1);
    rows[0].simulated = true;
    assert_eq!(found(&rows), Vec::<String>::new());
    assert_eq!(median(vec![3.0, 1.0, 2.0, 10.0]), 2.5);
}

#[test]
fn everything_that_is_compared_is_a_column() {
    for name in WORDS.into_iter().chain(FIGURES.map(|(name, ..)| name)).chain(OF_DEVICES) {
        assert!(column(name).is_some(), "{name}");
    }
}
