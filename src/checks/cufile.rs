//! libcufile: is it there, does it know the route, and what do its settings rule out?

use super::check::{Check, Outcome, Remedy, Severity, WHERE_GDS_RUNS, Who};
use super::context::Context;
use super::routes::{Direct, complete, cufile_version, is_wanted};
use super::said::{at_least, find, with_lines};
use super::storage::{OnNvme, on_nvme};

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    Check {
        id: "cufile.release",
        title: "libcufile is there and knows the route",
        sides: WHERE_GDS_RUNS,
        requires: &["platform.wsl"],
        severity: Severity::Blocker,
        rationale: "Transfers are libcufile's; P2PDMA is known to it from release 1.12 on (CUDA 12.7).",
        references: &["GDS troubleshooting guide, chapter 14", "GDS release notes"],
        covers: &["guide: gdscheck", "signature 21"],
        run: release,
    },
    Check {
        id: "cufile.denylist",
        title: "cuFile's settings do not exclude the data",
        sides: WHERE_GDS_RUNS,
        requires: &["cufile.config-readable"],
        severity: Severity::Blocker,
        rationale: "What the denylist of cufile.json names (drivers, devices, mounts, filesystems) is copied by the CPU.",
        references: &["GDS cuFile API guide: denylist"],
        covers: &["guide: cufile.json", "gds-diag: config audit"],
        run: denylist,
    },
];

/// The first release that knows P2PDMA.
const FIRST_P2PDMA: &[u32] = &[1, 12];

fn release(context: &Context<'_>) -> Outcome {
    let install = || {
        Remedy::new(
            Who::Guest,
            "install libcufile and gdscheck of one release, 1.16 or later, and let the linker find it",
        )
        .command("apt install libcufile-13-1 gds-tools-13-1")
        .command("ldconfig -p | grep libcufile")
    };
    let said = find(context, &["libcufile.so*cannot open shared object file", "libcufile.so*not found"]);
    let version = cufile_version(context);
    if !said.is_empty() {
        let outcome = Outcome::fail("a program did not find libcufile").expected("libcufile.so.0");
        return with_lines(outcome.remedy(install()), &said);
    }
    let Some(version) = version else {
        return Outcome::unknown("libcufile's release cannot be seen").remedy(
            Remedy::new(Who::Guest, "ask gdscheck").command("/usr/local/cuda/gds/tools/gdscheck -v"),
        );
    };
    let needs_p2pdma = is_wanted(context, Direct::P2pdma) && complete(context, Direct::Nvfs) != Some(true);
    match at_least(&version, FIRST_P2PDMA) {
        Some(false) if needs_p2pdma => Outcome::fail(format!(
            "libcufile {version} does not know P2PDMA, which this machine is set up for"
        ))
        .expected("1.12 or later")
        .actual(version.clone())
        .evidence("libcufile", version)
        .remedy(install()),
        Some(_) => Outcome::pass(format!("libcufile {version}")),
        None => Outcome::unknown(format!("{version:?} is no version")),
    }
}

fn denylist(context: &Context<'_>) -> Outcome {
    let Some(config) = context.facts.cufile.value() else {
        return Outcome::not_applicable("there are no settings that were seen");
    };
    let denied = &config.denylist;
    if denied.is_empty() {
        return Outcome::pass("nothing is excluded");
    }
    let words = denied.words();
    let fail = |what: &str| {
        Outcome::fail(format!("cuFile's settings exclude {what} from direct transfers"))
            .expected("an empty denylist")
            .actual(words.clone())
            .evidence("/etc/cufile.json", format!("denylist: {words}"))
            .remedy(Remedy::new(Who::Guest, "empty the list in /etc/cufile.json").command(
                "\"denylist\": { \"drivers\": [], \"devices\": [], \"mounts\": [], \"filesystems\": [] }",
            ))
    };
    if denied.drivers.iter().any(|driver| driver == "nvme") {
        return fail("the nvme driver");
    }
    let mounts = on_nvme(context).unwrap_or_default();
    let (hit, free): (Vec<_>, Vec<_>) =
        mounts.iter().filter(|on| !on.is_system).partition(|on| excludes(denied, on));
    match (hit.first(), free.is_empty()) {
        (Some(first), true) => fail(&first.mount.at),
        _ => Outcome::note(format!("cuFile's settings exclude some storage from direct transfers: {words}")),
    }
}

/// Is a mount on a list?
fn excludes(denied: &crate::facts::cufile::Denylist, on: &OnNvme<'_>) -> bool {
    let below = |folder: &String| {
        let folder = folder.trim_end_matches('/');
        on.mount.at.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let device = |name: &String| {
        let plain = name.strip_prefix("/dev/").unwrap_or(name);
        on.device.is(None, plain) || on.mount.source == *name
    };
    denied.mounts.iter().any(below)
        || denied.filesystems.contains(&on.mount.kind)
        || denied.devices.iter().any(device)
}

#[cfg(test)]
mod tests {
    use crate::checks::check::{Answer, Side};
    use crate::checks::testing::{answer, good};
    use crate::facts::cufile::CufileConfig;
    use crate::facts::gdscheck::Gdscheck;
    use crate::facts::mounts::Mount;
    use crate::facts::nvidia_fs::NvidiaFs;
    use crate::facts::{Fact, Facts};

    fn with_settings(text: &str) -> Facts {
        let mut facts = good(Side::BareMetal);
        facts.cufile = Fact::known("cufile.json", CufileConfig::parse(text).unwrap());
        let disk = crate::facts::block::BlockDevice { name: "nvme0n1".into(), ..Default::default() };
        facts.block = Fact::known("block", vec![disk]);
        let mount = Mount {
            at: "/data/set".into(),
            kind: "xfs".into(),
            source: "/dev/nvme0n1".into(),
            ..Mount::default()
        };
        facts.mounts = Fact::known("mounts", vec![mount]);
        facts
    }

    #[test]
    fn lists_that_name_the_data() {
        let of = |list: &str| {
            let text = format!("{{\"denylist\": {list}}}");
            answer("cufile.denylist", &with_settings(&text), Side::BareMetal)
        };
        for list in [
            "{\"drivers\": [\"nvme\"]}",
            "{\"mounts\": [\"/data/\"]}",
            "{\"filesystems\": [\"xfs\"]}",
            "{\"devices\": [\"/dev/nvme0n1\"]}",
        ] {
            assert_eq!(of(list), Answer::Fail, "{list}");
        }
        for list in
            ["{\"drivers\": [\"nvme_rdma\"]}", "{\"mounts\": [\"/dat\"]}", "{\"filesystems\": [\"lustre\"]}"]
        {
            assert_eq!(of(list), Answer::Note, "{list}");
        }
        assert_eq!(of("{}"), Answer::Pass);
        assert_eq!(answer("cufile.denylist", &Facts::default(), Side::BareMetal), Answer::NotApplicable);
    }

    #[test]
    fn releases_before_p2pdma_do_for_nvidia_fs_alone() {
        let of = |release: &str, p2pdma: bool| {
            let mut facts = with_settings(&format!("{{\"properties\": {{\"use_pci_p2pdma\": {p2pdma}}}}}"));
            facts.gdscheck = Fact::known(
                "gdscheck",
                Gdscheck {
                    release: Some(release.into()),
                    nvidia_fs: (!p2pdma).then(|| "2.24".into()),
                    ..Gdscheck::default()
                },
            );
            answer("cufile.release", &facts, Side::BareMetal)
        };
        assert_eq!(of("1.11.1.6", true), Answer::Fail);
        assert_eq!(of("1.11.1.6", false), Answer::Pass);
        assert_eq!(of("1.13.1.3", true), Answer::Pass);
        assert_eq!(answer("cufile.release", &Facts::default(), Side::BareMetal), Answer::Unknown);
    }

    #[test]
    fn nvidia_fs_is_reached_through_its_nodes() {
        let of = |nvidia_fs: Option<&str>, row: &str| {
            let mut facts = with_settings("{}");
            let line = "nvidia_fs 1 0 - Live 0x0\nnvme 1 0 - Live 0x0\n";
            let dir = tempfile::tempdir().unwrap();
            fs_err::create_dir(dir.path().join("proc")).unwrap();
            fs_err::write(dir.path().join("proc/modules"), line).unwrap();
            facts.modules =
                crate::facts::modules::LoadedModule::read_all(&crate::facts::Root::at(dir.path()));
            facts.nvidia_fs = NvidiaFs::default();
            let text = format!("GDS release version: 1.13.1.3\nDRIVER CONFIGURATION:\nNVMe : {row}\n");
            let answered = Gdscheck::parse("gdscheck", text.lines());
            let nvidia_fs = nvidia_fs.map(str::to_owned);
            facts.gdscheck = Fact::known("gdscheck", Gdscheck { nvidia_fs, ..answered });
            answer("nvidia-fs.device-nodes", &facts, Side::BareMetal)
        };
        assert_eq!(of(None, "Unsupported"), Answer::Fail);
        assert_eq!(of(Some("2.24"), "Unsupported"), Answer::Pass);
        assert_eq!(of(None, "Supported"), Answer::Pass);
    }
}
