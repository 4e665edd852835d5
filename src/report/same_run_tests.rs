use super::*;
use crate::report::model::tests::sample;
use crate::report::model::{Delivery, Problem, Report, Stage};

fn bytes(report: &Report) -> Vec<u8> {
    let mut bytes = Vec::new();
    crate::report::json::write(report, &mut bytes).unwrap();
    bytes
}

/// What is written of a run after its report was sent, as the validator does it.
pub(crate) fn written(sent: &Report) -> Report {
    let mut report = sent.clone();
    let delivery = Delivery {
        url: "http://127.0.0.1/x".into(),
        sent: true,
        tries: 2,
        seconds: 1.5,
        status: Some(201),
        error: None,
    };
    report.delivery = Some(delivery);
    report.stages.push(Stage { name: "send-report".into(), seconds: 1.5, ok: true });
    report.problems.push(Problem { stage: "send-report".into(), what: "slow".into(), panic: false });
    report.finished = Utc(sent.finished.0 + 2);
    report
}

fn fates_of(reports: &[(&Report, Vec<u8>)]) -> Vec<Fate> {
    let known = reports.iter().map(|(report, _)| Known {
        run_id: &report.run_id,
        started: report.started,
        complete: report.complete,
    });
    fates(&known.collect::<Vec<_>>(), &|index| Ok(reports[index].1.clone())).unwrap()
}

fn fates_as_written(reports: &[&Report]) -> Vec<Fate> {
    fates_of(&reports.iter().map(|report| (*report, bytes(report))).collect::<Vec<_>>())
}

#[test]
fn what_was_sent_and_what_was_written_are_one_run() {
    let sent = sample();
    let written = written(&sent);
    assert_eq!(fates_as_written(&[&sent, &written]), [Fate::EarlierThan(1), Fate::Kept]);
    assert_eq!(fates_as_written(&[&written, &sent]), [Fate::Kept, Fate::EarlierThan(0)]);
    // Neither tells of its delivery: the later one.
    let later = Report { finished: Utc(sent.finished.0 + 9), ..sent.clone() };
    assert_eq!(fates_as_written(&[&later, &sent]), [Fate::Kept, Fate::EarlierThan(0)]);
    // Whoever received it may have laid it out anew.
    let compact = serde_json::to_vec(&sent).unwrap();
    assert_eq!(
        fates_of(&[(&sent, compact), (&written, bytes(&written))]),
        [Fate::EarlierThan(1), Fate::Kept]
    );
    // Anything else that differs is another report.
    let mut other = written.clone();
    other.why.push("x".into());
    assert_eq!(fates_as_written(&[&sent, &other]), [Fate::Kept, Fate::ConflictsWith(0)]);
    let begun = Report { started: Utc(7), ..written };
    assert_eq!(fates_as_written(&[&sent, &begun]), [Fate::Kept, Fate::ConflictsWith(0)]);
}

#[test]
fn what_is_unfinished_is_an_earlier_state_wherever_it_lies() {
    let whole = sample();
    let early = |stages: usize| {
        let mut report = Report { complete: false, ..whole.clone() };
        report.stages.truncate(stages);
        report.finished = Utc(whole.started.0 + stages as u64);
        report
    };
    let (one, two) = (early(0), early(1));
    let (first, last) = (Fate::EarlierThan(0), Fate::EarlierThan(2));
    assert_eq!(fates_as_written(&[&one, &two, &whole]), [last, last, Fate::Kept]);
    assert_eq!(fates_as_written(&[&whole, &two, &one]), [Fate::Kept, first, first]);
    assert_eq!(fates_as_written(&[&one, &two]), [Fate::EarlierThan(1), Fate::Kept]);
    assert_eq!(fates_as_written(&[&two, &one, &two]), [Fate::Kept, first, Fate::CopyOf(0)]);
    // A copy behind another state.
    let written = written(&whole);
    assert_eq!(fates_as_written(&[&written, &whole, &written]), [Fate::Kept, first, Fate::CopyOf(0)]);
}

#[test]
fn what_cannot_be_read_is_like_no_other() {
    let report = sample();
    let known = [Known { run_id: "x", started: report.started, complete: true }; 2];
    let found = fates(&known, &|index| match index {
        0 => Ok(bytes(&report)),
        _ => anyhow::bail!("gone"),
    });
    assert_eq!(found.unwrap(), [Fate::Kept, Fate::ConflictsWith(0)]);
}

#[test]
fn fields_are_found_as_they_are_written() {
    let text = br#" {"a\"}": [1, {"x": ",}"}], "b" : null,"c":{} , "d":"x:y" } "#;
    let found: Vec<(&str, &str)> = fields(text)
        .unwrap()
        .into_iter()
        .map(|(name, value)| (std::str::from_utf8(name).unwrap(), std::str::from_utf8(value).unwrap()))
        .collect();
    assert_eq!(found, [("a\\\"}", r#"[1, {"x": ",}"}]"#), ("b", "null"), ("c", "{}"), ("d", r#""x:y""#)]);
    assert_eq!(fields(b"{}").unwrap().len(), 0);
    assert_eq!(fields(b"{\"a"), None);
    assert_eq!(fields(b"]"), None);
    let report = sample();
    let whole: serde_json::Map<String, Value> = serde_json::from_slice(&bytes(&report)).unwrap();
    let text = bytes(&report);
    for ((name, value), (other, expected)) in fields(&text).unwrap().into_iter().zip(&whole) {
        assert_eq!(name, other.as_bytes());
        assert_eq!(&serde_json::from_slice::<Value>(value).unwrap(), expected, "{other}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(text in proptest::collection::vec(proptest::sample::select(b"{}[]\",:\\ax ".to_vec()), 0..40)) {
        let _ = content(&text);
    }
}
