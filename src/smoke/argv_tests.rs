use super::*;
use crate::pasteable::pasteable;
use crate::report::kind::Kind;
use crate::smoke::machine::Disk;
use crate::smoke::machine::Firmware;
use crate::smoke::media::Medium;

fn media(disk: Disk, path: &str) -> Media {
    let image = Medium { path: path.into(), kind: Kind::Raw };
    Media { image, disk, read_only: false, second: None, reports: Vec::new() }
}

fn line(argv: &[OsString]) -> String {
    // One option with its value per line, for people who read the snapshot.
    pasteable(argv).replace(" -", "\n-")
}

/// The arguments of a machine, its GPUs not served but named.
fn booted(machine: &Machine, image: &str, firmware: &FirmwareFiles, accel: Accel) -> Vec<OsString> {
    let layout = Layout::of(machine).unwrap();
    let data: Vec<PathBuf> =
        (0..machine.drives.len()).map(|n| format!("/scratch/data{n}.img").into()).collect();
    let mut gpus = Vec::new();
    for (n, (gpu, slot)) in (0..).zip(machine.gpus.iter().zip(&layout.gpus)) {
        let functions = gpu.functions(n).unwrap();
        for function in &functions {
            let socket = format!("/scratch/gpu{n}.{}", function.number);
            let multi = functions.len() > 1 && function.number == 0;
            let device =
                simulated_gpu::qemu::device(function, multi, &slot.bus, slot.number, Path::new(&socket));
            gpus.extend(["-device".into(), device.into()]);
        }
    }
    let media = media(machine.disk, image);
    let parts = Parts {
        media: &media,
        write_log: None,
        firmware,
        layout: &layout,
        data: &data,
        gpus: &gpus,
        monitor: &[],
        accel,
    };
    boot(machine, parts)
}

/// Every machine that gdsboot brings, by its first firmware.
#[test]
fn every_machine() {
    for name in Machine::built_in().chain(Machine::with_faults()) {
        let machine = Machine::load(name).unwrap();
        let firmware = match machine.firmware[0] {
            Firmware::Bios | Firmware::Direct => FirmwareFiles::Bios,
            Firmware::Uefi if machine.secure_boot => FirmwareFiles::Uefi {
                code: "/scratch/code.fd".into(),
                vars: "/scratch/vars.fd".into(),
                secure: true,
            },
            Firmware::Uefi => uefi(),
        };
        let argv = booted(&machine, "/scratch/image.img", &firmware, Accel::Tcg);
        insta::assert_snapshot!(name, line(&argv));
    }
}

fn uefi() -> FirmwareFiles {
    FirmwareFiles::Uefi { code: "/scratch/code.fd".into(), vars: "/scratch/vars.fd".into(), secure: false }
}

#[test]
fn no_gpu_by_uefi() {
    let machine = Machine::load("no-gpu").unwrap();
    let argv = booted(&machine, "/scratch/image.img", &uefi(), Accel::Tcg);
    insta::assert_snapshot!(line(&argv), @r"
    -no-user-config
    -nodefaults
    -no-reboot
    -display none
    -nic none
    -machine q35
    -accel tcg,thread=multi
    -cpu max
    -smp 2
    -m 2048M
    -drive if=pflash,unit=0,format=raw,readonly=on,file=/scratch/code.fd
    -drive if=pflash,unit=1,format=raw,file=/scratch/vars.fd
    -drive if=none,id=image,format=raw,cache=unsafe,file=/scratch/image.img
    -device virtio-blk-pci,drive=image,bootindex=0
    -device VGA
    -chardev stdio,id=serial,signal=off
    -serial chardev:serial
    ");
}

#[test]
fn data_drives_and_texts_for_the_guest() {
    let machine = Machine::load("drives").unwrap();
    let files = ["/scratch/data0.img".into(), "/scratch/data,1.img".into()];
    let layout = Layout::of(&machine).unwrap();
    let argv =
        [data_drives(&machine.drives, &files, &layout.drives, Option::is_none), firmware_texts(&machine)]
            .concat();
    insta::assert_snapshot!(line(&argv), @r"
    -drive if=none,id=data0,format=raw,cache=unsafe,file=/scratch/data0.img
    -device nvme,serial=gdsboot-512,drive=data0,logical_block_size=512,physical_block_size=512
    -drive if=none,id=data1,format=raw,cache=unsafe,file=/scratch/data,,1.img
    -device nvme,serial=gdsboot-4096,drive=data1,logical_block_size=4096,physical_block_size=4096
    -fw_cfg name=opt/gdsboot/bench_seconds,string=0.5
    ");
}

#[test]
fn a_network_card_where_the_machine_has_one() {
    assert_eq!(line(&network(true)), "-netdev user,id=net\n-device virtio-net-pci,netdev=net,romfile=");
}

#[test]
fn secure_boot() {
    let machine = Machine::load("secure-boot").unwrap();
    let firmware = FirmwareFiles::Uefi { code: "/code.fd".into(), vars: "/vars.fd".into(), secure: true };
    let argv = booted(&machine, "/image.img", &firmware, Accel::Tcg);
    insta::assert_snapshot!(line(&argv), @r"
    -no-user-config
    -nodefaults
    -no-reboot
    -display none
    -nic none
    -machine q35,smm=on
    -global driver=cfi.pflash01,property=secure,value=on
    -global ICH9-LPC.disable_s3=1
    -accel tcg,thread=multi
    -cpu max
    -smp 2
    -m 2048M
    -drive if=pflash,unit=0,format=raw,readonly=on,file=/code.fd
    -drive if=pflash,unit=1,format=raw,file=/vars.fd
    -drive if=none,id=image,format=raw,cache=unsafe,file=/image.img
    -device virtio-blk-pci,drive=image,bootindex=0
    -device VGA
    -chardev stdio,id=serial,signal=off
    -serial chardev:serial
    ");
}

#[test]
fn no_gpu_by_bios() {
    let machine = Machine::load("no-gpu").unwrap();
    let argv = booted(&machine, "/scratch/image.img", &FirmwareFiles::Bios, Accel::Kvm);
    insta::assert_snapshot!(line(&argv), @r"
    -no-user-config
    -nodefaults
    -no-reboot
    -display none
    -nic none
    -machine q35
    -accel kvm
    -cpu host
    -smp 2
    -m 2048M
    -drive if=none,id=image,format=raw,cache=unsafe,file=/scratch/image.img
    -device virtio-blk-pci,drive=image,bootindex=0
    -device VGA
    -chardev stdio,id=serial,signal=off
    -serial chardev:serial
    ");
}

#[test]
fn i440fx() {
    let machine = Machine::load("i440fx").unwrap();
    let argv = booted(&machine, "/scratch/image.img", &FirmwareFiles::Bios, Accel::Tcg);
    insta::assert_snapshot!(line(&argv), @r"
    -no-user-config
    -nodefaults
    -no-reboot
    -display none
    -nic none
    -machine pc
    -accel tcg,thread=multi
    -cpu max
    -smp 2
    -m 2048M
    -drive if=none,id=image,format=raw,cache=unsafe,file=/scratch/image.img
    -device virtio-scsi-pci,id=scsi
    -device scsi-hd,bus=scsi.0,drive=image,bootindex=0
    -device VGA
    -chardev stdio,id=serial,signal=off
    -serial chardev:serial
    ");
}

#[test]
fn every_attachment() {
    let all = [
        Disk::VirtioBlk,
        Disk::VirtioScsi,
        Disk::Nvme,
        Disk::UsbStorage,
        Disk::Sata,
        Disk::UsbCdrom,
        Disk::SataCdrom,
    ];
    let text: Vec<_> = [Chipset::Q35, Chipset::I440fx]
        .into_iter()
        .flat_map(|chipset| {
            all.map(|disk| {
                format!(
                    "{disk} on {chipset:?}:\n{}\n",
                    line(&attachment(disk, chipset, &FirmwareFiles::Bios))
                )
            })
        })
        .collect();
    insta::assert_snapshot!(text.join("\n"), @r"
    virtio-blk on Q35:
    -device virtio-blk-pci,drive=image,bootindex=0

    virtio-scsi on Q35:
    -device virtio-scsi-pci,id=scsi
    -device scsi-hd,bus=scsi.0,drive=image,bootindex=0

    nvme on Q35:
    -device nvme,serial=gdsboot-image,drive=image,bootindex=0

    usb-storage on Q35:
    -device qemu-xhci,id=usb
    -device usb-storage,bus=usb.0,removable=on,drive=image,bootindex=0

    sata on Q35:
    -device ide-hd,bus=ide.0,drive=image,bootindex=0

    usb-cdrom on Q35:
    -device qemu-xhci,id=usb
    -device usb-storage,bus=usb.0,drive=image,bootindex=0

    sata-cdrom on Q35:
    -device ide-cd,bus=ide.0,drive=image,bootindex=0

    virtio-blk on I440fx:
    -device virtio-blk-pci,drive=image,bootindex=0

    virtio-scsi on I440fx:
    -device virtio-scsi-pci,id=scsi
    -device scsi-hd,bus=scsi.0,drive=image,bootindex=0

    nvme on I440fx:
    -device nvme,serial=gdsboot-image,drive=image,bootindex=0

    usb-storage on I440fx:
    -device qemu-xhci,id=usb
    -device usb-storage,bus=usb.0,removable=on,drive=image,bootindex=0

    sata on I440fx:
    -device ich9-ahci,id=ahci
    -device ide-hd,bus=ahci.0,drive=image,bootindex=0

    usb-cdrom on I440fx:
    -device qemu-xhci,id=usb
    -device usb-storage,bus=usb.0,drive=image,bootindex=0

    sata-cdrom on I440fx:
    -device ich9-ahci,id=ahci
    -device ide-cd,bus=ahci.0,drive=image,bootindex=0
    ");
}

#[test]
fn other_formats_and_a_report_disk() {
    let reports = vec![Medium { path: "/scratch/report.img".into(), kind: Kind::Raw }];
    let text = [
        (Kind::Qcow2, Disk::VirtioBlk, true),
        (Kind::Iso, Disk::UsbCdrom, true),
        (Kind::Iso, Disk::SataCdrom, true),
    ]
    .map(|(kind, disk, read_only)| {
        let image = Medium { path: "/scratch/image".into(), kind };
        let media = Media { image, disk, read_only, second: None, reports: reports.clone() };
        line(
            &[
                drive(&media, None),
                attachment(disk, Chipset::Q35, &FirmwareFiles::Bios),
                report_disks(&media),
            ]
            .concat(),
        )
    });
    insta::assert_snapshot!(text.join("\n\n"), @r"
    -drive if=none,id=image,format=qcow2,readonly=on,cache=unsafe,file=/scratch/image
    -device virtio-blk-pci,drive=image,bootindex=0
    -drive if=none,id=report,format=raw,cache=unsafe,file=/scratch/report.img
    -device virtio-blk-pci,drive=report

    -drive if=none,id=image,format=raw,media=cdrom,readonly=on,cache=unsafe,file=/scratch/image
    -device qemu-xhci,id=usb
    -device usb-storage,bus=usb.0,drive=image,bootindex=0
    -drive if=none,id=report,format=raw,cache=unsafe,file=/scratch/report.img
    -device usb-storage,bus=usb.0,removable=on,drive=report

    -drive if=none,id=image,format=raw,media=cdrom,readonly=on,cache=unsafe,file=/scratch/image
    -device ide-cd,bus=ide.0,drive=image,bootindex=0
    -device qemu-xhci,id=usb
    -drive if=none,id=report,format=raw,cache=unsafe,file=/scratch/report.img
    -device usb-storage,bus=usb.0,removable=on,drive=report
    ");
}

#[test]
fn a_kernel_alone() {
    insta::assert_snapshot!(line(&kernel_only(Path::new("/scratch/kernel"), Accel::Kvm)), @r"
    -no-user-config
    -nodefaults
    -no-reboot
    -display none
    -nic none
    -machine q35
    -accel kvm
    -cpu host
    -smp 1
    -m 512M
    -kernel /scratch/kernel
    -append 'earlycon=uart8250,io,0x3f8,115200 console=ttyS0,115200 panic=-1'
    -chardev stdio,id=serial,signal=off,mux=on
    -serial chardev:serial
    -device isa-debugcon,iobase=0x402,chardev=serial
    ");
}

#[test]
fn commas_in_paths_are_doubled() {
    assert_eq!(
        drive(&media(Disk::Sata, "/a,b/c,,d"), None)[1],
        "if=none,id=image,format=raw,cache=unsafe,file=/a,,b/c,,,,d"
    );
}

#[test]
fn what_goes_wrong_is_in_the_arguments() {
    let mut machine = Machine::load("no-gpu").unwrap();
    machine.serial_port = false;
    let kernel = FirmwareFiles::Direct {
        kernel: "/scratch/kernel".into(),
        initrd: "/scratch/initrd".into(),
        arguments: "console=ttyS0 quiet".into(),
    };
    let disk = |name: &str| Medium { path: format!("/scratch/{name}.img").into(), kind: Kind::Raw };
    let media = Media {
        second: Some(disk("second")),
        reports: vec![disk("report"), disk("report1")],
        ..media(Disk::VirtioBlk, "/scratch/image.img")
    };
    let (layout, log) = (Layout::of(&machine).unwrap(), PathBuf::from("/scratch/writes,1.log"));
    let parts = Parts {
        media: &media,
        write_log: Some(&log),
        firmware: &kernel,
        layout: &layout,
        data: &[],
        gpus: &[],
        monitor: &[],
        accel: Accel::Kvm,
    };
    insta::assert_snapshot!(line(&boot(&machine, parts)));
}
