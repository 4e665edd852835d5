//! Devices at work: temperatures and links, from sysfs, once a second while something is measured. What the GPU's own
//! library says comes from the DMA worker.

use super::results::{LinkState, State};
use super::worker::gpu_state::GpuState;
use crate::facts::Root;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// When the first look is taken: soon, so that short measurements have one.
const FIRST: Duration = Duration::from_millis(300);
const EVERY: Duration = Duration::from_secs(1);

/// What is looked at; what is `None` is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// The GPU's PCI address.
    pub gpu: Option<String>,
    /// The drive's PCI address.
    pub drive: Option<String>,
    /// The kernel's name of its controller: `nvme0`.
    pub controller: Option<String>,
}

/// Works, and looks at the devices meanwhile.
pub fn watch<T>(root: &Root, watched: &Watched, work: impl FnOnce() -> T) -> (T, Vec<State>) {
    std::thread::scope(|scope| {
        let (end, ended) = channel::<()>();
        let looking = scope.spawn(move || {
            let mut states = Vec::new();
            let mut pause = FIRST;
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                states.push(look(root, watched));
                pause = EVERY;
            }
            states
        });
        let done = work();
        drop(end);
        (done, looking.join().unwrap_or_default())
    })
}

/// The devices now.
pub fn look(root: &Root, watched: &Watched) -> State {
    let link = |address: &Option<String>| link(root, address.as_deref()?);
    let (drive_celsius, drive_limit_celsius) = watched.controller.as_deref().map_or((None, None), |name| {
        let folder = sensor(root, name);
        let celsius = |file: &str| degrees(root, &format!("{}/{file}", folder.as_deref()?));
        // The composite temperature, and the drive's own warning threshold (drivers/nvme/host/hwmon.c).
        (celsius("temp1_input"), celsius("temp1_max"))
    });
    State {
        gpu_link: link(&watched.gpu),
        drive_link: link(&watched.drive),
        drive_celsius,
        drive_limit_celsius,
        ..State::default()
    }
}

/// What stands out of several looks: the hottest, every reason for slowness, the links at their fastest.
pub fn summary(states: &[State]) -> State {
    let hottest = |of: fn(&State) -> Option<f64>| states.iter().filter_map(of).reduce(f64::max);
    let fastest = |of: fn(&State) -> Option<LinkState>| {
        states.iter().filter_map(of).max_by(|a, b| a.ceiling().total_cmp(&b.ceiling()))
    };
    let mut gpu_slowed: Vec<String> =
        states.iter().flat_map(|state| state.gpu_slowed.iter().cloned()).collect();
    gpu_slowed.sort();
    gpu_slowed.dedup();
    State {
        gpu_celsius: hottest(|state| state.gpu_celsius),
        gpu_slowed,
        gpu_link: fastest(|state| state.gpu_link),
        drive_celsius: hottest(|state| state.drive_celsius),
        drive_limit_celsius: states.iter().find_map(|state| state.drive_limit_celsius),
        drive_link: fastest(|state| state.drive_link),
    }
}

/// What NVML said of the GPU.
pub fn of_gpu(said: &GpuState) -> State {
    State { gpu_celsius: said.celsius.map(f64::from), gpu_slowed: said.slowed.clone(), ..State::default() }
}

/// The folder of a controller's sensors: below the controller since Linux 5.5.
fn sensor(root: &Root, controller: &str) -> Option<String> {
    let folder = format!("/sys/class/nvme/{controller}");
    [folder.clone(), format!("{folder}/hwmon"), format!("{folder}/device/hwmon")].into_iter().find_map(
        |folder| {
            let inside = root.list(&folder);
            let found =
                inside.value()?.iter().find(|name| name.strip_prefix("hwmon").is_some_and(is_number))?;
            Some(format!("{folder}/{found}"))
        },
    )
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Thousandths of a degree (Documentation/hwmon/sysfs-interface.rst). Drives without a threshold say 0 or 65,261 (no
/// threshold in Kelvin), which is none.
fn degrees(root: &Root, path: &str) -> Option<f64> {
    let number: f64 = root.text(path).value()?.parse().ok()?;
    let celsius = number / 1000.0;
    (-60.0..200.0).contains(&celsius).then_some(celsius).filter(|celsius| *celsius != 0.0)
}

fn link(root: &Root, address: &str) -> Option<LinkState> {
    let text = |file: &str| root.text(&format!("/sys/bus/pci/devices/{address}/{file}")).value().cloned();
    let speed = |file: &str| text(file)?.split_whitespace().next()?.parse::<f64>().ok();
    let width = |file: &str| text(file)?.parse::<u32>().ok().filter(|lanes| (1..=32).contains(lanes));
    Some(LinkState {
        speed: speed("current_link_speed")?,
        width: width("current_link_width")?,
        speed_max: speed("max_link_speed")?,
        width_max: width("max_link_width")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        let root = Root::at(dir.path());
        (dir, root)
    }

    fn watched() -> Watched {
        let address = |text: &str| Some(text.to_owned());
        Watched { gpu: address("0000:01:00.0"), drive: address("0000:02:00.0"), controller: address("nvme0") }
    }

    #[test]
    fn temperatures_and_links_are_read_and_the_worst_stands_out() {
        let (dir, root) = machine(&[
            ("sys/class/nvme/nvme0/hwmon3/temp1_input", "41850\n"),
            ("sys/class/nvme/nvme0/hwmon3/temp1_max", "69850\n"),
            ("sys/class/nvme/nvme0/power/x", ""),
            ("sys/bus/pci/devices/0000:01:00.0/current_link_speed", "32.0 GT/s PCIe\n"),
            ("sys/bus/pci/devices/0000:01:00.0/current_link_width", "8\n"),
            ("sys/bus/pci/devices/0000:01:00.0/max_link_speed", "32.0 GT/s PCIe\n"),
            ("sys/bus/pci/devices/0000:01:00.0/max_link_width", "16\n"),
            ("sys/bus/pci/devices/0000:02:00.0/current_link_speed", "Unknown\n"),
            ("sys/bus/pci/devices/0000:02:00.0/current_link_width", "255\n"),
        ]);
        let first = look(&root, &watched());
        assert_eq!((first.drive_celsius, first.drive_limit_celsius), (Some(41.85), Some(69.85)));
        assert_eq!(first.drive_link, None);
        assert!(first.gpu_link.unwrap().is_downgraded());
        fs_err::write(dir.path().join("sys/class/nvme/nvme0/hwmon3/temp1_input"), "70850\n").unwrap();
        fs_err::write(dir.path().join("sys/bus/pci/devices/0000:01:00.0/current_link_width"), "16\n")
            .unwrap();
        let (seven, states) = watch(&root, &watched(), || {
            std::thread::sleep(Duration::from_millis(400));
            7
        });
        assert_eq!((seven, states.len()), (7, 1));
        let said = GpuState { at_ms: 5, celsius: Some(61), slowed: vec!["hw_slowdown".into()] };
        let all = summary(&[first, of_gpu(&said), states[0].clone()]);
        assert_eq!((all.drive_celsius, all.gpu_celsius), (Some(70.85), Some(61.0)));
        assert_eq!(all.gpu_slowed, ["hw_slowdown"]);
        let link = all.gpu_link.unwrap();
        assert!(!link.is_downgraded() && (50.0..58.0).contains(&link.ceiling()), "{link:?}");
    }

    #[test]
    fn what_is_not_there_is_not_known() {
        let (_dir, root) = machine(&[("sys/class/nvme/nvme0/hwmon0/temp1_max", "0\n")]);
        assert_eq!(look(&root, &watched()), State::default());
        assert_eq!(look(&root, &Watched::default()), State::default());
        assert_eq!(summary(&[]), State::default());
    }
}
