//! What the programs say of their own command lines: help, man pages and shell completions.

mod common;

use common::{run, run_with_status, stderr, stdout};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const PROGRAMS: [(&str, &str); 2] = [
    ("gdsboot", env!("CARGO_BIN_EXE_gdsboot")),
    ("gdsboot-validator", env!("CARGO_BIN_EXE_gdsboot-validator")),
];

fn help(program: &str, command: &[String], option: &str) -> String {
    let mut help = Command::new(program);
    stdout(&run_with_status(help.env_remove("GDSBOOT_CACHE").args(command).arg(option), 0))
}

/// All commands that the program's help names, with those below them; the program itself is the empty one.
fn commands(program: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(command) = open.pop() {
        let text = help(program, &command, "-h");
        let listed = text.lines().skip_while(|line| *line != "Commands:").skip(1);
        for line in listed.take_while(|line| !line.is_empty()) {
            // What is described in a second line is indented further.
            let Some(name) = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')) else { continue };
            let name = name.split(' ').next().unwrap();
            if name != "help" {
                open.push([command.clone(), vec![name.to_owned()]].concat());
            }
        }
        found.push(command);
    }
    found
}

#[test]
fn every_help_fits_a_terminal() {
    for (_, program) in PROGRAMS {
        let commands = commands(program);
        assert!(commands.len() > 5, "{commands:?}");
        for command in commands {
            for option in ["-h", "--help"] {
                for line in help(program, &command, option).lines() {
                    assert!(line.chars().count() <= 80, "{command:?} {option}: {line}");
                }
            }
        }
    }
}

#[test]
fn every_command_has_a_man_page_that_is_the_same_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let read = |folder: &Path| -> Vec<(String, String)> {
        let mut pages: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), std::fs::read_to_string(e.path()).unwrap()))
            .collect();
        pages.sort();
        pages
    };
    for (name, program) in PROGRAMS {
        let (one, two) = (dir.path().join(format!("{name}/one")), dir.path().join(format!("{name}/two")));
        for folder in [&one, &two, &two] {
            run_with_status(Command::new(program).arg("man").arg(folder), 0);
        }
        assert_eq!(read(&one), read(&two));
        let names: BTreeSet<_> = read(&one).into_iter().map(|(name, _)| name).collect();
        let expected = commands(program).into_iter();
        let expected =
            expected.map(|words| format!("{}.1", [vec![name.to_owned()], words].concat().join("-")));
        assert_eq!(names, expected.collect());
        for (file, text) in read(&one) {
            let title = file.trim_end_matches(".1").to_uppercase();
            let source = format!("\"{name} {}\"", env!("CARGO_PKG_VERSION"));
            assert!(text.contains(&format!(".TH {title} 1  {source} ")), "{file}: {text}");
            assert!(text.contains("\n.SH SYNOPSIS\n"), "{file}: {text}");
        }
    }
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = run(Command::new(PROGRAMS[0].1).arg("man").arg(&file));
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("is not a folder\nhint: "), "{}", stderr(&output));
}

/// By a real bash, as it does it when the tab key is pressed.
#[test]
fn bash_completes_commands_options_and_values() {
    let complete = |words: &[&str]| -> Vec<String> {
        let script = stdout(&run_with_status(Command::new(PROGRAMS[0].1).args(["completions", "bash"]), 0));
        let last = words.len() - 1;
        let call = format!(
            "{script}\nCOMP_WORDS=({})\nCOMP_CWORD={last}\n_gdsboot gdsboot '{}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words[last],
            words[last - 1],
        );
        let output = run_with_status(Command::new("bash").args(["--norc", "-c", &call]), 0);
        stdout(&output).lines().map(str::to_owned).collect()
    };
    assert_eq!(complete(&["gdsboot", "fla"]), ["flash"]);
    assert_eq!(complete(&["gdsboot", "flash", "--keep"]), ["--keep-reports"]);
    assert_eq!(complete(&["gdsboot", "smoke", "x.img", "--firmware", "b"]), ["bios", "both"]);
}

/// Does a script offer a command of just this name? A description may have the word in it.
fn offers(shell: &str, script: &str, word: &str) -> bool {
    let mut lines = script.lines().map(str::trim);
    match shell {
        "bash" => {
            let lists = lines.filter_map(|line| line.strip_prefix("opts=\"")?.strip_suffix('"'));
            lists.flat_map(str::split_whitespace).any(|offered| offered == word)
        }
        "zsh" => lines.any(|line| line.starts_with(&format!("'{word}:")) && line.ends_with('\\')),
        "fish" => script.contains(&format!(" -a \"{word}\" ")),
        "powershell" => {
            script.contains(&format!("::new('{word}', '{word}', [CompletionResultType]::ParameterValue"))
        }
        "elvish" => lines.any(|line| line.starts_with(&format!("cand {word} '"))),
        other => panic!("{other}"),
    }
}

#[test]
fn every_shell_gets_a_script_with_every_command() {
    for (name, program) in PROGRAMS {
        let known = commands(program);
        for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
            let output = run_with_status(Command::new(program).args(["completions", shell]), 0);
            let script = stdout(&output);
            for word in known.iter().flatten() {
                assert!(offers(shell, &script, word), "{name}, {shell}: {word}");
            }
            for word in ["vmm", "ma", "mans", "pages"] {
                assert!(!offers(shell, &script, word), "{name}, {shell}: {word:?}");
            }
        }
        let help = help(program, &["completions".to_owned()], "--help");
        for shell in ["bash", "fish", "powershell", "elvish"] {
            assert!(
                help.contains(&format!("PROGRAM completions {shell}")),
                "it is for each of the programs: {help}"
            );
        }
    }
    let output = run(Command::new(PROGRAMS[0].1).args(["completions", "dos"]));
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("possible values: bash"), "{}", stderr(&output));
}
