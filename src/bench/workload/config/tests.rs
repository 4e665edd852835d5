use super::*;
use proptest::prelude::*;

fn read(text: &str) -> (Vec<Workload>, Vec<String>) {
    parse(&text.parse().unwrap())
}

#[test]
fn a_workload_is_read_whole_and_says_little_where_little_is_needed() {
    let (workloads, complaints) = read(
        "[[workload]]\nname = \"wake\"\ncommand = [\"wake-model\", \"{file}\"]\ntimeout_s = 300\nstatus = 3\n\
         expect = \"ready\"\nfigure = 'in ([0-9.]+) s'\nat_least = 1\nat_most = 2.5\nunit = \"s\"\n\
         [[workload]]\nname = \"short\"\ncommand = \"/bin/echo 'a  b' \\\"\\\" c'd'\\\"e\\\"\"\n",
    );
    assert_eq!(complaints, Vec::<String>::new());
    let [wake, short] = workloads.as_slice() else { panic!("{workloads:?}") };
    assert_eq!((wake.name.as_str(), wake.timeout.as_secs(), wake.rule.status), ("wake", 300, 3));
    assert_eq!(wake.command, ["wake-model", "{file}"]);
    let figure = wake.rule.figure.as_ref().unwrap();
    assert_eq!((figure.at_least, figure.at_most), (Some(1.0), Some(2.5)));
    assert_eq!((figure.unit.as_deref(), figure.pattern.as_str()), (Some("s"), "in ([0-9.]+) s"));
    assert_eq!(short.command, ["/bin/echo", "a  b", "", "cde"]);
    assert_eq!((short.timeout.as_secs(), short.rule.status), (120, 0));
    assert!(short.rule.expect.is_none() && short.rule.figure.is_none());
    assert!(read("other = 1").0.is_empty());
}

#[test]
fn every_complaint_says_which_workload_which_key_and_what_is_allowed() {
    const COMMAND: &str = "name = \"a\"\ncommand = \"/bin/true\"\n";
    for (text, complaint) in [
        (
            "name = \"a\"",
            "workload 1 \"a\": command is missing: a list of texts or one text: the program, then its arguments",
        ),
        ("command = \"x\"", "workload 1: name is missing: what it is called in the report"),
        ("name = 1\ncommand = \"x\"", "workload 1: name = 1 is not a text of 1 to 60 characters"),
        ("name = \" \"\ncommand = \"x\"", "workload 1: name = \" \" is not a text of 1 to 60 characters"),
        (
            "name = \"a\"\ncommand = 1",
            "workload 1 \"a\": command = 1 is not a list of texts or one text: the program, then its arguments",
        ),
        (
            "name = \"a\"\ncommand = []",
            "workload 1 \"a\": command = [] is not a list of texts or one text: the program, then its arguments",
        ),
        (
            "name = \"a\"\ncommand = \" \"",
            "workload 1 \"a\": command = \" \" is not a list of texts or one text: the program, then its arguments",
        ),
        (
            "name = \"a\"\ncommand = [\"x\", 1]",
            "workload 1 \"a\": command = [\"x\", 1] is not a list of texts or one text: the program, then its arguments",
        ),
        (
            "name = \"a\"\ncommand = [\"x\", \"\\u0000\"]",
            "workload 1 \"a\": command = [\"x\", \"\\u0000\"] is not without a byte of 0",
        ),
        ("name = \"a\"\ncommand = \"x 'y\"", "workload 1 \"a\": command: the quote ' is not closed"),
        (
            "name = \"a\"\ncommand = \"x | y\"",
            "workload 1 \"a\": command: | means something to a shell, and there is none: quote it, or write [\"/bin/sh\", \"-c\", \"...\"]",
        ),
        (
            "name = \"a\"\ncommand = \"../x\"",
            "workload 1 \"a\": command: \"../x\" leads out of the folder of programs; name it by its absolute path",
        ),
        ("timeout_s = 0", "timeout_s = 0 is not a whole number from 1 to 3600, seconds"),
        ("timeout_s = 3601", "timeout_s = 3601 is not a whole number from 1 to 3600, seconds"),
        ("timeout_s = \"5\"", "timeout_s = \"5\" is not a whole number from 1 to 3600, seconds"),
        ("status = 256", "status = 256 is not a whole number from 0 to 255, a program's status"),
        ("status = -1", "status = -1 is not a whole number from 0 to 255, a program's status"),
        ("expect = \"\"", "expect = \"\" is not a pattern (a text that is not empty)"),
        ("expect = 5", "expect = 5 is not a pattern (a text that is not empty)"),
        ("expect = \"a(\"", "expect = \"a(\" is not a pattern: found open group without closing ')'"),
        (
            "figure = \"[0-9]+\"",
            "figure = \"[0-9]+\" has 0 groups, not the one in ( ) that is a number; (?: ) is none",
        ),
        (
            "figure = \"(a)(b)\"",
            "figure = \"(a)(b)\" has 2 groups, not the one in ( ) that is a number; (?: ) is none",
        ),
        ("at_least = 5", "at_least says something of a figure, and there is no key figure"),
        ("unit = \"s\"", "unit says something of a figure, and there is no key figure"),
        ("figure = \"(a)\"\nat_least = 5\nat_most = 4.5", "at_least = 5 is more than at_most = 4.5"),
        ("figure = \"(a)\"\nat_most = nan", "at_most = nan is not a number"),
        ("figure = \"(a)\"\nat_most = \"5\"", "at_most = \"5\" is not a number"),
        ("figure = \"(a)\"\nunit = \"\"", "unit = \"\" is not a text of 1 to 60 characters"),
        (
            "timeout = 5",
            "there is no key \"timeout\"; there are name, command, timeout_s, status, expect, figure, at_least, at_most, unit",
        ),
    ] {
        let is_whole = complaint.starts_with("workload");
        let complaint =
            if is_whole { complaint.to_owned() } else { format!("workload 1 \"a\": {complaint}") };
        let table = format!("[[workload]]\n{}{text}", if is_whole { "" } else { COMMAND });
        let (workloads, complaints) = read(&table);
        assert_eq!((workloads.len(), complaints), (0, vec![complaint]), "{text}");
    }
}

#[test]
fn one_workload_s_mistakes_do_not_cost_another_and_are_all_told() {
    let (workloads, complaints) = read(
        "[[workload]]\nname = \"a\"\ncommand = \"x\"\nstatus = true\nexpect = 1\n\
         [[workload]]\nname = \"b\"\ncommand = \"x\"\n[[workload]]\nname = \"b\"\ncommand = \"y\"\n",
    );
    assert_eq!(workloads.len(), 1);
    assert_eq!(workloads[0].name, "b");
    assert_eq!(complaints.len(), 3);
    assert_eq!(complaints[2], "workload 3 \"b\": name = \"b\" is another workload's");
    for text in ["workload = 1", "[workload]\nname = \"a\"", "workload = [1]"] {
        let (workloads, complaints) = read(text);
        assert!(workloads.is_empty() && complaints[0].ends_with("is not written as [[workload]]"));
    }
}

proptest! {
    #[test]
    fn any_document_is_taken(
        text in "(name|command|timeout_s|status|expect|figure|at_least|at_most|unit| = |\"|'|\\[|\\]|\\(|\\)|\n|[a-z0-9.$*+{}|]){0,60}",
    ) {
        if let Ok(table) = format!("[[workload]]\n{text}").parse() {
            let (workloads, complaints) = parse(&table);
            prop_assert_eq!(workloads.is_empty(), !complaints.is_empty());
        }
    }

    #[test]
    fn quoted_words_are_split_as_they_were_put_together(words in prop::collection::vec("[a-z |$\"]{0,6}", 0..5)) {
        let text: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        prop_assert_eq!(split(&text.join(" ")).unwrap(), words);
    }
}
