//! cuFile itself: its settings, and what it and NVIDIA's own tools say. Their complaints follow from what the other checks
//! find, so they stand alone only where nothing else can be seen.

use super::check::{Check, Outcome, Remedy, Severity, Side, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::routes::{cufile_environment, cufile_version};
use super::said::{Line, at_least, find, heard_cufile, lines, with_lines};
use crate::facts::Fact;
use crate::facts::cufile::USUAL;
use crate::facts::cufile_env::CufileVariable;

/// What must be right before cuFile's own words mean anything of their own.
pub const CAUSES: &[&str] = &[
    "driver.loaded",
    "driver.open",
    "driver.branch",
    "driver.userland",
    "driver.uvm",
    "driver.fabric-manager",
    "driver.cuda",
    "driver.product",
    "route.possible",
    "nvidia-fs.symbols",
    "nvidia-fs.loaded",
    "nvidia-fs.version",
    "nvidia-fs.device-nodes",
    "nvme.hook-version",
    "nvme.patched",
    "p2pdma.kernel",
    "p2pdma.static-bar1",
    "p2pdma.registry-keys",
    "p2pdma.write-combining",
    "p2pdma.multipath",
    "p2pdma.topology",
    "p2pdma.cufile-keys",
    "p2pdma.fabrics",
    "storage.device-mapper",
    "storage.filesystem",
    "cufile.config-readable",
    "cufile.release",
    "cufile.denylist",
    "cufile.compat",
];

/// The checks of cuFile's settings, on which others build.
pub const SETTINGS: &[Check] = &[Check {
    id: "cufile.config-readable",
    title: "cuFile's settings can be read",
    sides: WHERE_GDS_RUNS,
    requires: &[],
    severity: Severity::Major,
    rationale: "cuFile that cannot read its settings works with its defaults, which allow copies by the CPU.",
    references: &["GDS cuFile API guide: cufile.json"],
    covers: &["guide: cufile.json", "gds-diag: config audit"],
    run: config_readable,
}];

/// The other checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "cufile.compat",
        title: "cuFile does not fall back in silence",
        sides: WHERE_GDS_RUNS,
        requires: &["cufile.config-readable"],
        severity: Severity::Blocker,
        rationale: "With force_compat_mode the CPU copies everything; with allow_compat_mode it does so wherever the direct route \
                    fails, and nobody is told.",
        references: &["GDS cuFile API guide: allow_compat_mode, force_compat_mode"],
        covers: &["guide: compat mode", "gds-diag: config audit"],
        run: compat,
    },
    Check {
        id: "cufile.environment",
        title: "nothing in the environment changes cuFile's settings",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Info,
        rationale: "CUFILE_ variables win over cufile.json, for whoever has them: what holds in a login shell need not hold in \
                    a service.",
        references: &["GDS cuFile API guide: environment variables", "gds-diag: config audit"],
        covers: &["guide: cufile.json", "gds-diag: config audit"],
        run: environment,
    },
    Check {
        id: "cufile.logging",
        title: "cuFile can write its log",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Minor,
        rationale: "Without its log cuFile's reasons are lost.",
        references: &["GDS troubleshooting guide: logging.dir"],
        covers: &["signature 37"],
        run: logging,
    },
    Check {
        id: "gds.platform",
        title: "gdscheck finds a direct route",
        sides: WHERE_GDS_RUNS,
        requires: CAUSES,
        severity: Severity::Blocker,
        rationale: "gdscheck names the routes that libcufile would use; compat alone means copies by the CPU. Its exit status and \
                    \"Platform verification succeeded\" say nothing of the storage.",
        references: &["GDS installation guide: gdscheck -p"],
        covers: &["guide: gdscheck", "signature 17", "gds-diag: platform"],
        run: platform,
    },
    Check {
        id: "gds.acs",
        title: "no ACS on the way, by gdscheck's word",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Minor,
        rationale: "On bare metal ACS sends transfers between devices through the root complex; under a hypervisor it must be on.",
        references: &["GDS best practices guide: ACS"],
        covers: &["guide: ACS", "gds-diag: acs"],
        run: acs,
    },
    Check {
        id: "gds.errors",
        title: "cuFile reports no errors",
        sides: WHERE_GDS_RUNS,
        requires: CAUSES,
        severity: Severity::Major,
        rationale: "What cuFile refuses or copies by the CPU, it says in its log.",
        references: &["cufile.h: CUfileOpError", "GDS troubleshooting guide"],
        covers: &["signature 27", "signature 15", "gds-diag: cufile log"],
        run: errors,
    },
    Check {
        id: "gds.gdsio",
        title: "gdsio ended and its numbers make sense",
        sides: WHERE_GDS_RUNS,
        requires: &[],
        severity: Severity::Minor,
        rationale: "gdsio may hang without a GPU and print negative numbers when it fails; neither is a measurement. And \
                    XferType: GPUD names the mode that was asked for: where cuFile let the CPU copy, it says the same.",
        references: &["observed with gdsio 1.11"],
        covers: &["signature 35"],
        run: gdsio,
    },
];

fn config_readable(context: &Context<'_>) -> Outcome {
    let named = context.facts.cufile_environment.value().and_then(|set| CufileVariable::config_path(set));
    let from = named.unwrap_or(USUAL);
    match &context.facts.cufile {
        Fact::Known { .. } => Outcome::pass("cuFile's settings can be read"),
        Fact::Malformed { why, .. } => Outcome::fail(format!("{from} is not JSON with comments: {why}"))
            .evidence(from, why.clone())
            .remedy(
                Remedy::new(Who::Guest, "mend the file, or take the one that libcufile brings")
                    .command("cp /usr/local/cuda/gds/cufile.json /etc/cufile.json"),
            ),
        // A capture without its modules is not of a whole machine, and may lack this file as well.
        Fact::Missing { .. } if named.is_some() && context.facts.modules.value().is_some() => Outcome::fail(
            format!("the environment names {from} for cuFile's settings, and there is no such file"),
        )
        .remedy(
            Remedy::new(Who::Guest, "write the file, or take the variable away")
                .command("grep -r CUFILE_ENV_PATH_JSON /etc/environment /etc/profile.d /etc/systemd"),
        ),
        Fact::Missing { .. } if context.facts.modules.value().is_some() => Outcome::note(
            "there is no /etc/cufile.json: cuFile works with its defaults, which allow copies by the CPU",
        ),
        other => {
            Outcome::unknown(format!("cuFile's settings cannot be seen: {}", other.as_ref().map(|_| "")))
        }
    }
}

fn compat(context: &Context<'_>) -> Outcome {
    let facts = context.facts;
    let told = |name: &str| facts.gdscheck.value().and_then(|answer| answer.switch(name));
    let config = facts.cufile.value();
    let by_variable = told("CUFILE_FORCE_COMPAT_MODE");
    let forced = by_variable
        .or_else(|| told("properties.force_compat_mode"))
        .or(config.and_then(|config| config.force_compat_mode));
    let allowed = told("properties.use_compat_mode").or(config.and_then(|config| config.allow_compat_mode));
    let said = find(context, &["forcing cufile into compatible mode"]);
    if forced == Some(true) || !said.is_empty() {
        let outcome = Outcome::fail("cuFile is told to let the CPU copy everything (force_compat_mode)")
            .expected("properties.force_compat_mode false")
            .actual("properties.force_compat_mode true")
            .evidence(
                if by_variable == Some(true) { "CUFILE_FORCE_COMPAT_MODE" } else { "/etc/cufile.json" },
                "force_compat_mode: true",
            )
            .remedy(
                Remedy::new(Who::Guest, "turn it off in /etc/cufile.json, and in the environment")
                    .command("\"properties\": { \"force_compat_mode\": false }")
                    .command("unset CUFILE_FORCE_COMPAT_MODE"),
            );
        return with_lines(outcome, &said);
    }
    let forces = cufile_environment(context, "CUFILE_FORCE_COMPAT_MODE", true);
    if let Some((variable, true)) = forces {
        return Outcome::fail(format!(
            "the environment tells cuFile to let the CPU copy everything ({} in {})",
            variable.name, variable.from
        ))
        .expected("no CUFILE_FORCE_COMPAT_MODE")
        .evidence(variable.from.clone(), format!("{}={}", variable.name, variable.value))
        .remedy(
            Remedy::new(Who::Guest, "take it away, and log in again")
                .command(format!("grep CUFILE_FORCE_COMPAT_MODE {}", variable.from)),
        );
    }
    match (allowed, cufile_environment(context, "CUFILE_ALLOW_COMPAT_MODE", true)) {
        (_, Some((variable, true))) => {
            return Outcome::note(format!(
                "the environment lets cuFile fall back to copies by the CPU ({} in {}), whatever its settings say: a \
                 transfer that succeeds proves nothing",
                variable.name, variable.from
            ));
        }
        (Some(true) | None, Some((variable, false))) => {
            return Outcome::note(format!(
                "only the environment forbids copies by the CPU ({} in {}): programs without it may get them in silence",
                variable.name, variable.from
            ));
        }
        _ => {}
    }
    match allowed {
        Some(false) => Outcome::pass("cuFile fails rather than let the CPU copy"),
        Some(true) => Outcome::note(
            "cuFile may let the CPU copy in silence (allow_compat_mode): a transfer that succeeds proves nothing",
        ),
        None if config.is_some() => Outcome::note(
            "allow_compat_mode is not set, and on by default: a transfer that succeeds proves nothing",
        ),
        None => Outcome::unknown("whether cuFile may let the CPU copy cannot be seen"),
    }
}

/// Variables that libcufile knows (1.9 and later), and what they change.
const VARIABLES: &[(&str, &str)] = &[
    ("CUFILE_ENV_PATH_JSON", "names another file of settings than /etc/cufile.json"),
    ("CUFILE_ALLOW_COMPAT_MODE", "stands for properties.allow_compat_mode"),
    ("CUFILE_FORCE_COMPAT_MODE", "stands for properties.force_compat_mode"),
    (P2PDMA, "stands for properties.use_pci_p2pdma, and not for the key of NVMe"),
    ("CUFILE_LOGGING_LEVEL", "stands for logging.level"),
    ("CUFILE_LOGFILE_PATH", "names the log"),
    ("CUFILE_LOGFILE_MAX_SIZE_MB", "bounds the log"),
    ("CUFILE_SKIP_TOPOLOGY_DETECTION", "leaves out the look at the PCI tree"),
    ("CUFILE_NVTX", "marks transfers for profilers"),
    ("CUFILE_IO_PRIORITY", "sets the priority of transfers"),
    ("CUFILE_DMABUF_ENABLE", "shares GPU memory with network adapters as dma-buf"),
    ("CUFILE_EXPERIMENTAL_FS", "takes filesystems that are not supported"),
    ("CUFILE_STREAM_MEMOPS_BYPASS", "changes how streams wait"),
    ("CUFILE_ETH_SL", "sets RDMA's service level"),
    ("CUFILE_IB_SL", "sets RDMA's service level"),
    ("CUFILE_RDMA_DC_KEY", "sets RDMA's key"),
];
const P2PDMA: &str = "CUFILE_USE_PCIP2PDMA";

fn environment(context: &Context<'_>) -> Outcome {
    if context.facts.image.value().is_some() {
        return Outcome::not_applicable("the image's benchmark brings its own settings");
    }
    let set = match &context.facts.cufile_environment {
        Fact::Known { value, .. } => value,
        other => {
            return Outcome::unknown(format!(
                "what the environment sets cannot be seen: {}",
                other.as_ref().map(|_| "")
            ))
            .remedy(
                Remedy::new(Who::Guest, "look where the program is started").command("env | grep CUFILE_"),
            );
        }
    };
    if set.is_empty() {
        return Outcome::pass("no login and no service sets anything of cuFile's");
    }
    let version = cufile_version(context);
    // P2PDMA came with CUDA 12.8.
    let knows_p2pdma = version.as_deref().and_then(|version| at_least(version, &[1, 13]));
    let words = |variable: &CufileVariable| match VARIABLES.iter().find(|(name, _)| *name == variable.name) {
        Some((P2PDMA, _)) if knows_p2pdma == Some(false) => {
            "is not known to this libcufile, which is older than 1.13"
        }
        Some(("CUFILE_LOGGING_LEVEL", _)) if matches!(variable.value.as_str(), "TRACE" | "DEBUG") => {
            "logs every transfer, which costs speed"
        }
        Some((_, words)) => words,
        None => "is not known to libcufile",
    };
    let more = if set.len() > 1 { format!(" (and {} more)", set.len() - 1) } else { String::new() };
    let first = &set[0];
    let outcome = Outcome::note(format!(
        "{} sets {}, which {}{more}: it wins over cuFile's settings, for programs that have it",
        first.from,
        first.name,
        words(first)
    ));
    set.iter().take(MOST_VARIABLES).fold(outcome, |outcome, variable| {
        let shown = format!("{}={}: {}", variable.name, variable.value, words(variable));
        outcome.evidence(variable.from.clone(), shown)
    })
}

fn logging(context: &Context<'_>) -> Outcome {
    let said = find(context, &["error opening log file"]);
    if said.is_empty() {
        return if heard_cufile(context) {
            Outcome::pass("cuFile did not complain about its log")
        } else {
            Outcome::unknown("cuFile was not run here")
        };
    }
    let outcome = Outcome::fail("cuFile cannot write its log, so its reasons are lost").remedy(
        Remedy::new(Who::Guest, "name a folder that can be written, in /etc/cufile.json")
            .command("\"logging\": { \"dir\": \"/tmp\" }"),
    );
    with_lines(outcome, &said)
}

fn platform(context: &Context<'_>) -> Outcome {
    let Some(answer) = context.facts.gdscheck.value() else {
        return Outcome::unknown("gdscheck was not run").remedy(
            Remedy::new(Who::Guest, "run it, from the same release as libcufile")
                .command("/usr/local/cuda/gds/tools/gdscheck -p"),
        );
    };
    let recipe = || {
        Remedy::new(
            Who::Guest,
            "set up one of the direct routes: nvidia-fs with a kernel whose nvme has its hook, or P2PDMA with its three settings",
        )
    };
    if let Some(refused) = answer.gpus.iter().find(|gpu| !gpu.supports) {
        return Outcome::fail("gdscheck says that a GPU has no direct route")
            .evidence(answer.from.clone(), refused.line.clone())
            .remedy(recipe());
    }
    if let Some(error) = answer.errors.iter().find(|error| !error.contains("error opening log file")) {
        return Outcome::fail(format!("gdscheck failed: {error}"))
            .evidence(answer.from.clone(), answer.errors.join("; "))
            .remedy(
                Remedy::new(Who::Guest, "look whether the driver speaks to the GPU").command("nvidia-smi"),
            );
    }
    match answer.nvme_routes().as_deref() {
        None => Outcome::unknown("gdscheck's answer has no row for NVMe"),
        Some([]) => {
            let row = answer.drivers.get("NVMe").map_or_else(String::new, |words| words.join(", "));
            Outcome::fail("gdscheck finds no direct route to NVMe drives: the CPU would copy everything")
                .expected("NVMe : nvfs or p2pdma (to 1.15: Supported)")
                .actual(format!("NVMe : {row}"))
                .evidence(answer.from.clone(), format!("NVMe : {row}"))
                .remedy(recipe())
        }
        Some(routes) => Outcome::pass(format!("gdscheck finds {}", routes.join(", "))),
    }
}

fn acs(context: &Context<'_>) -> Outcome {
    let Some(answer) = context.facts.gdscheck.value() else {
        return Outcome::unknown("gdscheck was not run");
    };
    let Some(first) = answer.acs.first() else {
        return if answer.looked() {
            Outcome::pass("gdscheck found no ACS")
        } else {
            Outcome::unknown("gdscheck failed before it looked")
        };
    };
    let why = format!("gdscheck found ACS on {} switch(es), the first at {first}", answer.acs.len());
    if context.side == Side::Guest {
        return Outcome::note(why);
    }
    let mut outcome = Outcome::fail(why).expected("no ACS between GPU and NVMe on bare metal");
    for switch in answer.acs.iter().take(4) {
        outcome = outcome.evidence(answer.from.clone(), format!("Found ACS enabled for switch {switch}"));
    }
    outcome
        .remedy(Remedy::new(Who::Bios, "turn ACS off, where this machine runs no virtual machines"))
        .remedy(
            Remedy::new(Who::Guest, "or turn it off on each switch, after each start")
                .command(format!("setpci -s {first} ECAP_ACS+6.w=0")),
        )
}

/// How many variables are shown.
const MOST_VARIABLES: usize = 16;
/// How many results of gdsio are shown.
const MOST_RESULTS: usize = 8;

/// cuFile's numbers (cufile.h, CUfileOpError) that tell why a route was refused.
const NUMBERS: &[(u32, &str)] = &[
    (5001, "cuFile is not initialised"),
    (5004, "libcufile and nvidia-fs are of versions that do not fit"),
    (5005, "nvidia-fs's version cannot be read"),
    (5007, "the platform is not supported"),
    (5008, "GPUDirect Storage is not supported on this file"),
    (5009, "GPUDirect Storage is not supported on this GPU"),
    (5010, "nvidia-fs failed"),
    (5011, "CUDA failed"),
    (5018, "it is no regular file or block device"),
    (5019, "the file was opened with flags that cuFile does not take"),
    (5020, "the file was not opened with O_DIRECT"),
    (5025, "cuFile is not permitted to do that"),
    (5027, "the file's handle is not registered"),
    (5029, "a device was not found"),
    (5030, "cuFile failed inside"),
    (5033, "nvidia-fs could not be set up"),
    (5034, "transfers are switched off: compat mode is forbidden and there is no direct route"),
];

/// cuFile's number in a line that speaks of it. Numbers of source lines (`cufio:5008`) are not meant.
fn number_in(text: &str) -> Option<&'static (u32, &'static str)> {
    let speaks =
        ["cufile", "cufio", "gds", "err="].iter().any(|word| text.to_ascii_lowercase().contains(word));
    if !speaks {
        return None;
    }
    NUMBERS.iter().find(|(number, _)| {
        let digits = number.to_string();
        text.match_indices(&digits).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let after = text[at + digits.len()..].chars().next();
            !before.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '.'))
                && !after.is_some_and(|c| c.is_ascii_alphanumeric() || c == '.')
        })
    })
}

fn errors(context: &Context<'_>) -> Outcome {
    let numbered: Vec<(Line<'_>, &str)> = lines(context)
        // A line of the kernel log has its own numbers.
        .filter(|line| !line.text.starts_with('['))
        .filter_map(|line| Some((line, number_in(line.text)?.1)))
        .collect();
    let said = find(
        context,
        &[
            "GPUDirect Storage not supported on current file",
            "GDS not supported or disabled by config",
            "fd direct IO not set",
            "Unsupported block device",
            "cuFileRead returned error",
            "cuFileWrite returned error",
            "cuFileHandleRegister failed",
            "cuFileDriverOpen*failed",
            "cuFile initialization failed",
            "nvidia_fs not loaded, operating on compatible mode",
        ],
    );
    let all: Vec<Line<'_>> = numbered.iter().map(|(line, _)| *line).chain(said).collect();
    let Some(first) = all.first() else {
        return if heard_cufile(context) {
            Outcome::pass("cuFile reports no errors")
        } else {
            Outcome::unknown("no log of cuFile was seen")
        };
    };
    let why = numbered.first().map_or_else(|| first.text.trim().to_owned(), |(_, words)| (*words).to_owned());
    let outcome = Outcome::fail(format!("cuFile refused the direct route: {why}"))
        .remedy(
            Remedy::new(Who::Guest, "check filesystem, partition, multipath, the driver's keys and cuFile's, then see what gdscheck says")
                .command("/usr/local/cuda/gds/tools/gdscheck -p")
                .command("cat /sys/module/nvme_core/parameters/multipath")
                .command("grep RegistryDwords /proc/driver/nvidia/params"),
        );
    with_lines(outcome, &all)
}

/// Results are evidence of a speed. Of a route they prove nothing, so that the best answer is a note.
fn gdsio(context: &Context<'_>) -> Outcome {
    let commands = context.facts.commands.value().into_iter().flatten();
    let ran: Vec<_> = commands.filter(|command| command.program().starts_with("gdsio")).collect();
    // What `timeout` ends with, and what a kill leaves.
    let killed = ran.iter().find(|run| matches!(run.status.value(), Some(124 | 137 | -9)));
    let said = find(context, &["Throughput: -", "total_time -", "exiting gdsio!!!"]);
    let runs = context.facts.gdsio.value().map_or(&[][..], Vec::as_slice);
    let results = || runs.iter().flat_map(|run| run.results.iter().map(|result| (run.from.as_str(), result)));
    let nonsense = results().find_map(|(from, result)| Some((from, result, result.nonsense()?)));
    if !said.is_empty() {
        return with_lines(
            Outcome::note("gdsio's numbers make no sense: it failed, whatever it printed"),
            &said,
        );
    }
    if let Some((from, result, why)) = nonsense {
        return Outcome::note(format!("gdsio's numbers make no sense: {why}")).evidence(from, result.words());
    }
    if let Some(run) = killed {
        return Outcome::note("gdsio hung and was ended; it proves nothing, and a missing GPU does that")
            .evidence(run.from.clone(), format!("status {}", run.status));
    }
    if let Some((run, error)) = runs.iter().find_map(|run| Some((run, run.errors.first()?))) {
        return Outcome::note(format!("gdsio failed: {error}")).evidence(run.from.clone(), error.clone());
    }
    let best = results().filter(|(_, result)| result.asks_cufile());
    let Some((_, first)) = best.clone().next().or_else(|| results().next()) else {
        return match ran.first() {
            None => Outcome::unknown("gdsio was not run"),
            Some(run) => {
                Outcome::note("gdsio printed no result").evidence(run.from.clone(), run.argv.join(" "))
            }
        };
    };
    let meaning = if first.asks_cufile() {
        "that is a speed and no route: cuFile says the same where it let the CPU copy"
    } else {
        "no cuFile took part in that: it is what the drive and the CPU can do"
    };
    let outcome = Outcome::note(format!("gdsio reports {}; {meaning}", first.words()));
    results()
        .take(MOST_RESULTS)
        .fold(outcome, |outcome, (from, result)| outcome.evidence(from, result.words()))
}

#[cfg(test)]
mod tests {
    use super::super::check::Answer;
    use super::super::testing::ask;
    use super::*;
    use crate::facts::{Facts, Root};

    /// What a check says of a machine with these files.
    fn said_of(id: &str, files: &[(&str, &str)]) -> Outcome {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        ask(id, &Facts::read(&Root::at(dir.path())), Side::BareMetal)
    }

    #[test]
    fn the_environment_forces_forbids_and_names_other_settings() {
        let json = ("etc/cufile.json", r#"{"properties": {"allow_compat_mode": false}}"#);
        let compat = |line: &str| said_of("cufile.compat", &[json, ("etc/environment", line)]);
        assert_eq!(compat("").answer, Answer::Pass);
        let forced = compat("CUFILE_FORCE_COMPAT_MODE=true\n");
        assert_eq!(forced.answer, Answer::Fail);
        assert!(forced.why.contains("in /etc/environment"), "{}", forced.why);
        assert_eq!(compat("CUFILE_FORCE_COMPAT_MODE=0\n").answer, Answer::Pass);
        assert_eq!(compat("CUFILE_ALLOW_COMPAT_MODE=1\n").answer, Answer::Note);
        // What forbids it for logins alone is no PASS, and one that allows it counts before one that forbids.
        let only = |files: &[(&str, &str)]| said_of("cufile.compat", files);
        assert_eq!(only(&[("etc/environment", "CUFILE_ALLOW_COMPAT_MODE=false")]).answer, Answer::Note);
        let both = ("etc/profile.d/x.sh", "export CUFILE_ALLOW_COMPAT_MODE=true");
        assert!(
            only(&[json, ("etc/environment", "CUFILE_ALLOW_COMPAT_MODE=false"), both])
                .why
                .contains("profile.d")
        );
        let other = ("etc/environment", "CUFILE_ENV_PATH_JSON=/opt/cufile.json\n");
        let force = ("opt/cufile.json", r#"{"properties": {"force_compat_mode": true}}"#);
        assert_eq!(only(&[json, other, force]).answer, Answer::Fail);
        assert_eq!(said_of("cufile.config-readable", &[json, other]).answer, Answer::Unknown);
        let modules = ("proc/modules", "");
        assert_eq!(said_of("cufile.config-readable", &[json, other, modules]).answer, Answer::Fail);
        assert_eq!(said_of("cufile.config-readable", &[json, other, force]).answer, Answer::Pass);
    }

    #[test]
    fn p2pdma_by_the_environment_alone_is_noted_and_against_it_fails() {
        let keys = |json: &'static str, line: &'static str| {
            said_of("p2pdma.cufile-keys", &[("etc/cufile.json", json), ("etc/environment", line)])
        };
        let both = r#"{"properties": {"use_pci_p2pdma": true}, "block": {"nvme": {"use_pci_p2pdma": true}}}"#;
        assert_eq!(keys(both, "").answer, Answer::Pass);
        assert_eq!(keys(both, "CUFILE_USE_PCIP2PDMA=true").answer, Answer::Pass);
        let against = keys(both, "CUFILE_USE_PCIP2PDMA=false");
        assert_eq!(against.answer, Answer::Fail);
        assert!(against.evidence[0].text.contains("CUFILE_USE_PCIP2PDMA=false"));
        assert_eq!(keys("{}", "CUFILE_USE_PCIP2PDMA=1").answer, Answer::Note);
    }

    #[test]
    fn variables_are_shown_with_what_they_change() {
        let environment = |files: &[(&str, &str)]| said_of("cufile.environment", files);
        assert_eq!(environment(&[]).answer, Answer::Unknown);
        assert_eq!(environment(&[("etc/environment", "PATH=/bin\n")]).answer, Answer::Pass);
        let text = "CUFILE_LOGGING_LEVEL=TRACE\nCUFILE_USE_PCIP2PDMA=1\nCUFILE_COLOUR=red\n";
        let library = ("usr/lib/x86_64-linux-gnu/libcufile.so.1.9.1", "");
        let outcome = environment(&[("etc/environment", text), library]);
        assert_eq!(outcome.answer, Answer::Note);
        let shown: Vec<&str> = outcome.evidence.iter().map(|e| e.text.as_str()).collect();
        assert!(shown[0].ends_with("which costs speed") && shown[1].contains("older than 1.13"), "{shown:?}");
        assert_eq!(shown[2], "CUFILE_COLOUR=red: is not known to libcufile");
    }

    #[test]
    fn gdsio_proves_no_route_whatever_it_prints() {
        let run = |stdout: &str, status: &str| {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path().join("run/gdsboot/commands/gdsio-1");
            fs_err::create_dir_all(&folder).unwrap();
            fs_err::write(folder.join("argv"), "gdsio\n-x\n0\n").unwrap();
            fs_err::write(folder.join("stdout"), stdout).unwrap();
            fs_err::write(folder.join("status"), status).unwrap();
            let facts = Facts::read(&Root::at(dir.path()));
            ask("gds.gdsio", &facts, Side::BareMetal)
        };
        let line = "IoType: READ XferType: GPUD Threads: 8 DataSetSize: 8388608/8388608(KiB) IOSize: 1024(KiB) Throughput: \
                    8.000000 GiB/sec, Avg_Latency: 900.0 usecs ops: 8192 total_time 1.000000 secs\n";
        let good = run(line, "0\n");
        assert_eq!(good.answer, Answer::Note);
        assert!(
            good.why.contains("READ by GPUD, 8.00 GiB/s") && good.why.contains("no route"),
            "{}",
            good.why
        );
        assert_eq!(good.evidence.len(), 1);
        let why = |stdout: &str, status: &str| {
            let outcome = run(stdout, status);
            assert_eq!(outcome.answer, Answer::Note);
            outcome.why
        };
        assert!(why(&line.replace("8.000000", "80.00"), "0\n").contains("do not give the throughput"));
        assert!(why(&line.replace("GPUD", "CPUONLY"), "0\n").contains("no cuFile took part"));
        assert!(why("", "137\n").contains("hung"));
        assert!(why("", "0\n").contains("no result"));
        assert!(
            why("file register error: GPUDirect Storage not supported on current file filename:x\n", "1\n")
                .contains("gdsio failed")
        );
        assert_eq!(ask("gds.gdsio", &Facts::default(), Side::Guest).answer, Answer::Unknown);
    }

    #[test]
    fn numbers_of_errors_are_not_numbers_of_lines() {
        let number = |text: &str| number_in(text).map(|found| found.0);
        assert_eq!(number("cuFileHandleRegister failed with err=5008"), Some(5008));
        assert_eq!(number("cuFile error: 5027 x"), Some(5027));
        for text in ["", "5008", "cufio:5008 x", "cufile 15008", "cufile 5008.3", "gds 5020abc"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
