//! How the libraries behave: where that is said, and what the words mean. The table of words is in the crate's own words.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

const VARIABLE: &str = "GDSBOOT_SIMULATED";
const FIRMWARE: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/gdsboot-simulated/raw";
const FILE: &str = "gdsboot-simulated.conf";
/// As many as cuFile counts for.
pub const MOST_GPUS: usize = 16;

/// Which route there is.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Route {
    P2pdma,
    Nvfs,
    #[default]
    Compat,
}

/// How the counters are laid out.
#[derive(Clone, Copy, Default)]
pub enum Layout {
    #[default]
    Old,
    New,
    /// As new, as far as there are GPUs.
    Partial,
    /// As no release does it.
    Strange,
}

pub struct Gpu {
    /// As libcuda writes it.
    pub pci: String,
    pub uuid: [u8; 16],
}

#[derive(Default)]
pub struct Behaviour {
    pub route: Route,
    pub bounce: Every,
    pub uncounted: Every,
    pub corrupt: Every,
    pub lost: Every,
    pub short: Every,
    pub hang_after: Option<u64>,
    pub crash_after: Option<u64>,
    pub errors: Vec<(String, c_int)>,
    pub slow: Vec<(String, Duration)>,
    pub hang: Vec<String>,
    pub crash: Vec<String>,
    pub exit: Vec<String>,
    pub print: Vec<String>,
    pub layout: Layout,
    pub anonymous: bool,
    pub unforced: bool,
    /// In libcuda's order.
    pub gpus: Vec<Gpu>,
    pub celsius: u32,
    pub slowed: u64,
    pub between: Option<PathBuf>,
}

/// Every Nth of something.
#[derive(Clone, Copy, Default)]
pub struct Every(Option<u64>);

impl Every {
    /// Is it the turn of this one? They count from 0.
    pub fn is_now(self, number: u64) -> bool {
        self.0.is_some_and(|every| (number + 1).is_multiple_of(every))
    }
}

/// What was said when it was first asked for.
pub fn behaviour() -> &'static Behaviour {
    static BEHAVIOUR: OnceLock<Behaviour> = OnceLock::new();
    BEHAVIOUR.get_or_init(|| {
        let (place, text) = said();
        parse(&text).unwrap_or_else(|error| {
            eprintln!("gdsboot-simulated-cufile: error: {place}: {error}");
            std::process::exit(64);
        })
    })
}

/// Where it is said, and what.
fn said() -> (String, String) {
    if let Ok(text) = std::env::var(VARIABLE) {
        return (VARIABLE.into(), text);
    }
    let beside = folder().map(|folder| folder.join(FILE));
    let mut files = [Some(PathBuf::from(FIRMWARE)), beside].into_iter().flatten();
    let found =
        files.find_map(|path| Some((path.display().to_string(), std::fs::read_to_string(path).ok()?)));
    found.unwrap_or_default()
}

/// `Dl_info` of dlfcn.h.
#[repr(C)]
struct Info {
    file: *const c_char,
    _base: *mut c_void,
    _symbol: *const c_char,
    _address: *mut c_void,
}

unsafe extern "C" {
    fn dladdr(address: *const c_void, info: *mut Info) -> c_int;
}

/// The folder that this library was loaded from, links not followed.
fn folder() -> Option<PathBuf> {
    let mut info = Info {
        file: std::ptr::null(),
        _base: std::ptr::null_mut(),
        _symbol: std::ptr::null(),
        _address: std::ptr::null_mut(),
    };
    let inside = (&raw const crate::gdsboot_simulated).cast();
    if unsafe { dladdr(inside, &raw mut info) } == 0 || info.file.is_null() {
        return None;
    }
    let path = unsafe { CStr::from_ptr(info.file) }.to_str().ok()?;
    Some(PathBuf::from(path).parent()?.to_owned())
}

/// The words that may stand there several times.
const SEVERAL: [&str; 6] = ["error", "slow", "hang", "crash", "exit", "print"];

fn parse(text: &str) -> Result<Behaviour, String> {
    let mut read = Behaviour { celsius: 45, ..Behaviour::default() };
    let (mut count, mut addresses) = (None, None);
    let mut seen: Vec<&str> = Vec::new();
    let lines = text.trim_end_matches('\0').lines().map(|line| line.split('#').next().unwrap_or_default());
    let words = lines.flat_map(|line| line.split([',', ' ', '\t', '\r'])).filter(|word| !word.is_empty());
    for word in words {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("{word}: no name=value"))?;
        if seen.contains(&name) && !SEVERAL.contains(&name) {
            return Err(format!("{word}: {name} stands there twice"));
        }
        seen.push(name);
        let wrong = || format!("{word}: not a value of {name}");
        let number = || value.parse::<u64>().map_err(|_| wrong());
        let every = || match number()? {
            0 => Err(wrong()),
            every => Ok(Every(Some(every))),
        };
        let of_function = || value.split_once(':').ok_or_else(wrong);
        match name {
            "route" => {
                read.route = match value {
                    "nvfs" => Route::Nvfs,
                    "p2pdma" => Route::P2pdma,
                    "compat" => Route::Compat,
                    _ => return Err(wrong()),
                };
            }
            "bounce" => read.bounce = every()?,
            "uncounted" => read.uncounted = every()?,
            "corrupt" => read.corrupt = every()?,
            "lost" => read.lost = every()?,
            "short" => read.short = every()?,
            "hang_after" => read.hang_after = Some(number()?),
            "crash_after" => read.crash_after = Some(number()?),
            "error" => {
                let (function, status) = of_function()?;
                read.errors.push((function.to_owned(), status.parse().map_err(|_| wrong())?));
            }
            "slow" => {
                let (function, microseconds) = of_function()?;
                let time = Duration::from_micros(microseconds.parse().map_err(|_| wrong())?);
                read.slow.push((function.to_owned(), time));
            }
            "hang" => read.hang.push(value.to_owned()),
            "crash" => read.crash.push(value.to_owned()),
            "exit" => read.exit.push(value.to_owned()),
            "print" => read.print.push(value.to_owned()),
            "stats" => {
                read.layout = match value {
                    "old" => Layout::Old,
                    "new" => Layout::New,
                    "partial" => Layout::Partial,
                    "strange" => Layout::Strange,
                    _ => return Err(wrong()),
                };
            }
            "anonymous" => read.anonymous = number()? != 0,
            "unforced" => read.unforced = number()? != 0,
            "gpus" => count = Some(number()? as usize),
            "pci" => {
                let list: Option<Vec<String>> = value.split('/').map(address).collect();
                addresses = Some(list.ok_or_else(wrong)?);
            }
            "celsius" => read.celsius = value.parse().map_err(|_| wrong())?,
            "slowed" => {
                let hexadecimal = value.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16));
                read.slowed = hexadecimal.unwrap_or_else(|| value.parse()).map_err(|_| wrong())?;
            }
            "between" => read.between = Some(value.into()),
            _ => return Err(format!("{word}: no word of the table in qemu/simulated-cufile")),
        }
    }
    read.gpus = gpus(count, addresses)?;
    Ok(read)
}

/// A PCI address in capitals.
fn address(text: &str) -> Option<String> {
    let form = |(place, letter): (usize, char)| match place {
        4 | 7 => letter == ':',
        10 => letter == '.',
        _ => letter.is_ascii_hexdigit(),
    };
    (text.len() == 12 && text.chars().enumerate().all(form)).then(|| text.to_ascii_uppercase())
}

fn gpus(count: Option<usize>, addresses: Option<Vec<String>>) -> Result<Vec<Gpu>, String> {
    let count = count.unwrap_or_else(|| addresses.as_ref().map_or(1, Vec::len));
    if count > MOST_GPUS {
        return Err(format!("{count} GPUs: at most {MOST_GPUS}"));
    }
    let addresses =
        addresses.unwrap_or_else(|| (0..count).map(|n| format!("0000:{:02X}:00.0", 0xc1 + n)).collect());
    if addresses.len() != count {
        return Err(format!("{count} GPUs at {} addresses", addresses.len()));
    }
    let gpu = |(number, pci): (u8, String)| {
        let mut uuid = *b"\x5a\x1d\xb0\x07simulatedgpu";
        uuid[3] += number;
        Gpu { pci, uuid }
    };
    let mut gpus: Vec<Gpu> = (0..).zip(addresses).map(gpu).collect();
    if std::env::var("CUDA_DEVICE_ORDER").is_ok_and(|order| order == "PCI_BUS_ID") {
        gpus.sort_by(|one, other| one.pci.cmp(&other.pci));
    }
    Ok(gpus)
}
