//! Folders that mirror machines, judged from the first file to the last finding.

use super::check::{Side, Status};
use super::context::side_of;
use super::judge::{Judgement, judge};
use crate::facts::{Facts, Root};
use std::os::unix::fs::symlink;
use std::path::Path;

/// One device: its way from the host bridge's bus down, class, vendor and device, driver.
struct Device<'a>(&'a str, &'a str, &'a str, Option<&'a str>);

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, text).unwrap();
}

/// The folders and links of one device.
fn add(root: &Path, Device(way, class, ids, driver): &Device<'_>) {
    let address = way.rsplit('/').next().unwrap();
    let (vendor, device) = ids.split_once(':').unwrap();
    let real = format!("sys/devices/pci0000:00/{way}");
    write(root, &format!("{real}/class"), &format!("0x{class}\n"));
    write(root, &format!("{real}/vendor"), &format!("0x{vendor}\n"));
    write(root, &format!("{real}/device"), &format!("0x{device}\n"));
    write(root, &format!("{real}/numa_node"), "-1\n");
    let bars = "0x0000000081000000 0x0000000081ffffff 0x0000000000040200\n\
                0x0000002000000000 0x0000002fffffffff 0x000000000014220c\n";
    write(root, &format!("{real}/resource"), bars);
    let mut config = vec![0u8; 64];
    config[0x0e] = u8::from(class.starts_with("0604"));
    fs_err::write(root.join(&real).join("config"), config).unwrap();
    if let Some(driver) = driver {
        symlink(format!("../../../bus/pci/drivers/{driver}"), root.join(&real).join("driver")).unwrap();
    }
    let bus = root.join("sys/bus/pci/devices");
    fs_err::create_dir_all(&bus).unwrap();
    symlink(format!("../../../devices/pci0000:00/{way}"), bus.join(address)).unwrap();
}

fn judged(root: &Path) -> Judgement {
    let facts = Facts::read(&Root::at(root));
    judge(&facts, side_of(&facts), None, &[], "2026-11-24")
}

/// `id status` of all that fails, the graver first.
fn failed(judgement: &Judgement) -> Vec<&str> {
    let failed = judgement.findings.iter().filter(|finding| finding.status == Status::Fail);
    failed.map(|finding| finding.id.as_str()).collect()
}

fn status(judgement: &Judgement, id: &str) -> Status {
    judgement.findings.iter().find(|finding| finding.id == id).expect(id).status
}

const CPU: &str = "processor : 0\nvendor_id : GenuineIntel\ncpu family : 6\nmodel name : Xeon\nflags : fpu";

#[test]
fn a_flat_guest_of_proxmox() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for device in [
        Device("0000:00:00.0", "060000", "8086:29c0", None),
        Device("0000:00:03.0", "00ff00", "1af4:1002", Some("virtio-pci")),
        Device("0000:00:1c.0", "060400", "1b36:000c", Some("pcieport")),
        Device("0000:00:1c.1", "060400", "1b36:000c", Some("pcieport")),
        Device("0000:00:1c.0/0000:01:00.0", "030200", "10de:2331", Some("nouveau")),
        Device("0000:00:1c.1/0000:02:00.0", "010802", "144d:a80a", Some("nvme")),
    ] {
        add(root, &device);
    }
    write(root, "proc/cpuinfo", &format!("{CPU} hypervisor\n"));
    write(root, "sys/class/dmi/id/sys_vendor", "QEMU\n");
    let judgement = judged(root);
    assert_eq!(judgement.side, Side::Guest);
    let failed = failed(&judgement);
    for id in ["gpu.driver", "topology.p2pdma", "vm.balloon"] {
        assert!(failed.contains(&id), "{id} {failed:?}");
    }
    assert_eq!(failed[0], "gpu.driver", "the gravest comes first");
    assert_eq!(status(&judgement, "iommu.guest"), Status::Pass, "no device has a group");
    assert_eq!(status(&judgement, "vm.machine-type"), Status::Pass);
    assert_eq!(status(&judgement, "iommu.active"), Status::NotApplicable);
}

#[test]
fn a_host_whose_firmware_has_no_iommu() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for device in [
        Device("0000:00:00.0", "060000", "8086:09a2", None),
        Device("0000:00:01.0", "060400", "8086:352a", Some("pcieport")),
        Device("0000:00:01.0/0000:01:00.0", "030200", "10de:2331", Some("nvidia")),
        Device("0000:00:1d.0", "010802", "144d:a80a", Some("nvme")),
    ] {
        add(root, &device);
    }
    write(root, "proc/cpuinfo", &format!("{CPU}\n"));
    write(root, "proc/sys/kernel/osrelease", "6.8.12-4-pve\n");
    for table in ["FACP", "APIC"] {
        write(root, &format!("sys/firmware/acpi/tables/{table}"), "");
    }
    let judgement = judged(root);
    assert_eq!(judgement.side, Side::Host);
    let failed = failed(&judgement);
    assert!(failed.contains(&"iommu.firmware") && failed.contains(&"gpu.driver"), "{failed:?}");
    // What follows from it is not told twice.
    for id in ["iommu.active", "iommu.groups"] {
        let finding = judgement.findings.iter().find(|finding| finding.id == id).unwrap();
        assert_eq!((finding.status, finding.because.as_deref()), (Status::Skip, Some("iommu.firmware")));
    }
}

#[test]
fn of_a_capture_of_the_kernel_log_alone_nothing_fails() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "var/log/dmesg", "[    0.000000] Linux version 6.8.0\n");
    let judgement = judged(dir.path());
    let own = ["gpu.", "nvme.", "iommu.", "acs.", "topology.", "vm.", "aer."];
    let failed: Vec<&str> =
        failed(&judgement).into_iter().filter(|id| own.iter().any(|prefix| id.starts_with(prefix))).collect();
    assert_eq!(failed, Vec::<&str>::new());
    assert_eq!(status(&judgement, "gpu.present"), Status::Unknown);
}
