//! The newest run of each machine as Prometheus' text format 0.0.4, for node_exporter's textfile collector or any web server.
//! Names and units are documented in docs/reports.md.

use super::row::Row;
use crate::report::model::Verdict;
use anyhow::{Context as _, Result};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;

/// Bytes of a GiB.
const GIB: f64 = (1_u64 << 30) as f64;

/// A metric: its name, what it means, and its samples of one row, each with labels besides the machine's.
struct Metric {
    name: &'static str,
    help: &'static str,
    of: fn(&Row) -> Vec<Sample>,
}

/// A label's name and value.
type Label = (&'static str, String);
/// A value with its labels.
type Sample = (Vec<Label>, f64);

const METRICS: &[Metric] = &[
    Metric {
        name: "gdsboot_run_info",
        help: "The newest run of a machine: 1, with what it is in labels.",
        of: |row| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let labels = vec![
                ("run_id", row.run_id.clone()),
                ("route", row.route.clone()),
                ("cause", text(&row.cause)),
                ("product", text(&row.product)),
                ("gpu", row.gpu_models.first().cloned().unwrap_or_default()),
                ("driver", text(&row.driver)),
                ("nvidia_fs", text(&row.nvidia_fs)),
                ("cufile", text(&row.cufile)),
                ("kernel", text(&row.kernel)),
                ("gdsboot", row.gdsboot.clone()),
            ];
            vec![(labels, 1.0)]
        },
    },
    Metric {
        name: "gdsboot_run_started_timestamp_seconds",
        help: "When the run began, by the machine's clock.",
        of: |row| vec![(Vec::new(), row.started.0 as f64)],
    },
    Metric {
        name: "gdsboot_run_complete",
        help: "1 where the run came to its end.",
        of: |row| vec![(Vec::new(), f64::from(u8::from(row.complete)))],
    },
    Metric {
        name: "gdsboot_run_simulated",
        help: "1 where devices or libraries that imitate NVIDIA's took part.",
        of: |row| vec![(Vec::new(), f64::from(u8::from(row.simulated)))],
    },
    Metric {
        name: "gdsboot_verdict",
        help: "1 for the run's verdict, 0 for the others.",
        of: |row| {
            let all = [Verdict::Pass, Verdict::Fail, Verdict::Incomplete];
            let sample = |verdict: Verdict| {
                let is = row.verdict == Some(verdict);
                (vec![("verdict", verdict.word().to_owned())], f64::from(u8::from(is)))
            };
            all.map(sample).to_vec()
        },
    },
    Metric {
        name: "gdsboot_finding_failed",
        help: "1 for every finding that failed.",
        of: |row| {
            // Two samples of one series would cost the whole file its reading.
            let failed: BTreeSet<&String> = row.failed.iter().collect();
            failed.into_iter().map(|id| (vec![("finding", id.clone())], 1.0)).collect()
        },
    },
    Metric {
        name: "gdsboot_deviations",
        help: "In how many ways the machine differs from the others like it.",
        of: |row| vec![(Vec::new(), row.deviations.len() as f64)],
    },
    Metric {
        name: "gdsboot_gpus",
        help: "How many NVIDIA GPUs are visible.",
        of: |row| vec![(Vec::new(), row.gpu_models.len() as f64)],
    },
    Metric {
        name: "gdsboot_nvme_controllers",
        help: "How many NVMe controllers are visible.",
        of: |row| vec![(Vec::new(), row.nvme_models.len() as f64)],
    },
    Metric {
        name: "gdsboot_read_bytes_per_second",
        help: "The best throughput of reads: direct, by a bounce through the CPU's memory, of a drive alone, into a GPU alone.",
        of: |row| {
            let paths = [
                ("direct", row.direct_gib_s),
                ("bounce", row.bounce_gib_s),
                ("storage", row.storage_gib_s),
                ("host_copy", row.host_copy_gib_s),
            ];
            let known = paths.into_iter().filter_map(|(path, figure)| Some((path, figure?)));
            known.map(|(path, figure)| (vec![("path", path.to_owned())], (figure * GIB).round())).collect()
        },
    },
    Metric {
        name: "gdsboot_read_cpu_seconds_per_gib",
        help: "CPU seconds for each GiB in sequential reads of 1 MiB, the median of all pairs.",
        of: |row| {
            let paths = [("direct", row.direct_cpu_s_per_gib), ("bounce", row.bounce_cpu_s_per_gib)];
            let known = paths.into_iter().filter_map(|(path, figure)| Some((path, figure?)));
            known.map(|(path, figure)| (vec![("path", path.to_owned())], figure)).collect()
        },
    },
    Metric {
        name: "gdsboot_read_latency_p99_seconds",
        help: "Latency that 99 of 100 direct sequential reads of 1 MiB kept, the median of all pairs.",
        of: |row| row.direct_p99_us.iter().map(|us| (Vec::new(), us / 1e6)).collect(),
    },
];

/// Writes the metrics; `rows` has one row for each machine.
///
/// # Errors
/// `out` fails.
pub fn write(rows: &[Row], out: &mut dyn Write) -> Result<()> {
    for Metric { name, help, of } in METRICS {
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} gauge\n");
        for row in rows {
            for (labels, value) in of(row) {
                let _ = write!(text, "{name}{{machine=\"{}\"", escaped(&row.machine));
                for (label, words) in labels {
                    let _ = write!(text, ",{label}=\"{}\"", escaped(&words));
                }
                let _ = writeln!(text, "}} {value}");
            }
        }
        out.write_all(text.as_bytes()).context("writing the metrics")?;
    }
    Ok(())
}

/// A label's value, as the text format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
