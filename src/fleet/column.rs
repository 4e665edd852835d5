//! The columns of the table: one register for every form that it is written in, and for docs/reports.md.

use super::row::Row;
use crate::report::utc::Utc;
use serde_json::Value;

/// The version of the table's form. Columns are added at the end; what is there keeps its name and meaning, or this changes.
pub const SCHEMA: u32 = 2;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// An instant, `2026-11-22T10:56:01Z`.
    Time,
    /// True or false.
    Flag,
    /// A whole number.
    Count,
    /// A number.
    Number,
    /// Several texts.
    List,
}

/// What stands in a column of one row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing is known.
    Empty,
    /// Text.
    Text(String),
    /// An instant.
    Time(Utc),
    /// True or false.
    Flag(bool),
    /// A whole number.
    Count(u64),
    /// A number.
    Number(f64),
    /// Several texts.
    List(Vec<String>),
}

impl Cell {
    /// As JSON: `null` where nothing is known.
    pub fn json(&self) -> Value {
        match self {
            Self::Empty => Value::Null,
            Self::Text(text) => text.as_str().into(),
            Self::Time(time) => time.to_string().into(),
            Self::Flag(flag) => (*flag).into(),
            Self::Count(count) => (*count).into(),
            Self::Number(number) => (*number).into(),
            Self::List(texts) => texts.clone().into(),
        }
    }

    /// As words: empty where nothing is known, several separated by `; `.
    pub fn words(&self) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Text(text) => text.clone(),
            Self::Time(time) => time.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Count(count) => count.to_string(),
            Self::Number(number) => number.to_string(),
            Self::List(texts) => texts.join("; "),
        }
    }
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What it means, for docs/reports.md.
    pub meaning: &'static str,
    /// Takes it from a row.
    pub of: fn(&Row) -> Cell,
}

fn text(value: &Option<String>) -> Cell {
    value.clone().map_or(Cell::Empty, Cell::Text)
}

fn number(value: Option<f64>) -> Cell {
    // Four digits after the point are more than any measurement has.
    value
        .filter(|value| value.is_finite())
        .map_or(Cell::Empty, |value| Cell::Number((value * 1e4).round() / 1e4))
}

macro_rules! columns {
    ($($name:ident $kind:ident $meaning:literal = $of:expr;)*) => {
        /// All columns, in the order in which every form has them.
        pub const COLUMNS: &[Column] =
            &[$(Column { name: stringify!($name), kind: Kind::$kind, meaning: $meaning, of: $of }),*];
    };
}

columns! {
    machine Text "the machine: its serial number, else its UUID, else a GPU's UUID, `drive SERIAL` or `run ID`; `SERIAL/UUID` where several have one serial number"
        = |row| Cell::Text(row.machine.clone());
    run_id Text "the run: 8 hex digits" = |row| Cell::Text(row.run_id.clone());
    started Time "when the run began, by the machine's clock, UTC" = |row| Cell::Time(row.started);
    finished Time "when its verdict was reached" = |row| Cell::Time(row.finished);
    complete Flag "false where the run was cut off" = |row| Cell::Flag(row.complete);
    simulated Flag "true where devices or libraries that imitate NVIDIA's took part: nothing in the row is about a machine"
        = |row| Cell::Flag(row.simulated);
    verdict Text "PASS, FAIL or INCOMPLETE" = |row| text(&row.verdict.map(|verdict| verdict.word().to_owned()));
    route Text "the route that was proven: nvfs, p2pdma, c2c, direct, compat or none" = |row| Cell::Text(row.route.clone());
    side Text "from where the machine was looked at: guest, host or bare-metal" = |row| text(&row.side);
    cause Text "the first finding that must be mended" = |row| text(&row.cause);
    why Text "its reason" = |row| text(&row.why);
    failed List "all findings that failed" = |row| Cell::List(row.failed.clone());
    deviations List "how the machine differs from the others like it" = |row| Cell::List(row.deviations.clone());
    vendor Text "who built the machine" = |row| text(&row.vendor);
    product Text "its product name" = |row| text(&row.product);
    board Text "its main board" = |row| text(&row.board);
    serial Text "its serial number, where that is one" = |row| text(&row.serial);
    uuid Text "its UUID, where that is one" = |row| text(&row.uuid);
    hypervisor Text "what its hypervisor calls itself" = |row| text(&row.hypervisor);
    firmware Text "the firmware's version" = |row| text(&row.firmware);
    firmware_date Text "the firmware's date, as the firmware writes it" = |row| text(&row.firmware_date);
    cpu Text "the CPU's name" = |row| text(&row.cpu);
    memory_bytes Count "memory, in bytes" = |row| row.memory_bytes.map_or(Cell::Empty, Cell::Count);
    gpus Count "how many NVIDIA GPUs are visible" = |row| Cell::Count(row.gpu_models.len() as u64);
    gpu_models List "their names, or PCI ids where no driver names them" = |row| Cell::List(row.gpu_models.clone());
    gpu_links List "how wide their links are: x16" = |row| Cell::List(row.gpu_links.clone());
    nvmes Count "how many NVMe controllers are visible" = |row| Cell::Count(row.nvme_models.len() as u64);
    nvme_models List "their models" = |row| Cell::List(row.nvme_models.clone());
    nvme_firmware List "their firmware" = |row| Cell::List(row.nvme_firmware.clone());
    nvme_links List "how wide their links are: x4" = |row| Cell::List(row.nvme_links.clone());
    topology List "how far each GPU is from each NVMe controller in nvidia-smi's words, counted: 4 PIX"
        = |row| Cell::List(row.topology.clone());
    kernel Text "the kernel's release" = |row| text(&row.kernel);
    driver Text "NVIDIA's driver" = |row| text(&row.driver);
    driver_open Flag "are its kernel modules the open ones?" = |row| row.driver_open.map_or(Cell::Empty, Cell::Flag);
    nvidia_fs Text "nvidia-fs" = |row| text(&row.nvidia_fs);
    cufile Text "libcufile" = |row| text(&row.cufile);
    cuda Text "libcuda" = |row| text(&row.cuda);
    gdsboot Text "the gdsboot that wrote the report" = |row| Cell::Text(row.gdsboot.clone());
    profile Text "the image's profile" = |row| text(&row.profile);
    image_id Text "which image it is" = |row| text(&row.image_id);
    direct_gib_s Number "the best throughput of reads that were proven to be direct, in GiB/s" = |row| number(row.direct_gib_s);
    direct_cpu_s_per_gib Number "CPU seconds for each GiB in direct sequential reads of 1 MiB by at most 4 threads, the median of all pairs" = |row| number(row.direct_cpu_s_per_gib);
    direct_p99_us Number "latency that 99 of 100 of those reads kept, in microseconds, the median of all pairs" = |row| number(row.direct_p99_us);
    bounce_gib_s Number "the best throughput of reads by way of the CPU's memory, in GiB/s" = |row| number(row.bounce_gib_s);
    bounce_cpu_s_per_gib Number "CPU seconds for each GiB in such reads by way of the CPU's memory" = |row| number(row.bounce_cpu_s_per_gib);
    storage_gib_s Number "the best throughput of reads from a drive alone, in GiB/s" = |row| number(row.storage_gib_s);
    host_copy_gib_s Number "the best throughput from the CPU's memory into a GPU, in GiB/s" = |row| number(row.host_copy_gib_s);
    source Text "where the report was read" = |row| Cell::Text(row.source.clone());
}

/// A column by its name.
pub fn column(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.name == name)
}
