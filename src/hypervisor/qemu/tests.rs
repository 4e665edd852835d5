use super::options::{options, slot};
use super::*;
use crate::hypervisor::machine::{Cpu, HOST, PlaceInGuest};

const SCRIPT: &str = r#"#!/bin/sh
# starts qemu-system-x86_64
set -e
exec qemu-system-x86_64 -name 'gds "a"' -machine q35,accel=kvm -cpu host,kvm=off,phys-bits=46 \
  -m 64G -bios /usr/share/OVMF/OVMF_CODE_4M.fd \
  -object memory-backend-file,id=m0,size=64G,mem-path=/dev/hugepages-1G,host-nodes=0-1,policy=bind \
  -device pcie-root-port,id=rp0,bus=pcie.0,addr=0x1c.0,chassis=1 \
  -device x3130-upstream,id=up,bus=rp0 -device xio3130-downstream,id=d0,bus=up,chassis=2 \
  -device vfio-pci,host=41:00.0,bus=d0,x-nv-gpudirect-clique=0,rombar=0 \
  -device '{"driver":"vfio-pci","host":"0000:42:00.0","id":"nv","bus":"rp9"}' \
  -drive file=/a,,b.img,if=none,id=image,format=raw -device virtio-blk-pci,drive=image \
  -fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=262144 -smbios type=11,value=gdsboot.after=hold \
  -uuid 11111111-2222-3333-4444-ABCDEF000000 -zebra stripes -device virtio-balloon
echo done
"#;

#[test]
fn a_script() {
    let machine = parse("x.sh", SCRIPT.as_bytes()).unwrap();
    assert!(machine.is_q35() && machine.accelerated && machine.cpu.is_host() && machine.cpu.hidden);
    assert_eq!((machine.cpu.phys_bits, machine.memory.bytes), (Some(46), Some(64 << 30)));
    assert_eq!(
        (machine.memory.hugepages, machine.memory.host_nodes.as_slice()),
        (Some(1 << 30), &[0, 1][..])
    );
    assert_eq!(machine.firmware, Some(Firmware::Uefi));
    assert_eq!(machine.name.as_deref(), Some("gds \"a\""));
    assert_eq!(machine.uuid.as_deref(), Some("11111111-2222-3333-4444-abcdef000000"));
    let [gpu, nvme] = machine.passed.as_slice() else { panic!("two devices") };
    assert_eq!(gpu.hosts, ["0000:41:00.0"]);
    assert_eq!(
        machine.ports_above(gpu).unwrap().iter().map(|p| p.id.as_str()).collect::<Vec<_>>(),
        ["rp0", "up", "d0"]
    );
    assert_eq!(gpu.properties["x-nv-gpudirect-clique"], "0");
    assert_eq!(nvme.place, PlaceInGuest::Unknown("rp9".into()));
    assert_eq!(machine.disks[0].interface, "virtio");
    assert_eq!(machine.told("opt/ovmf/X-PciMmio64Mb"), Some("262144"));
    assert_eq!(machine.oem_strings, ["gdsboot.after=hold"]);
    assert_eq!(machine.unknown, ["-zebra stripes"]);
    assert!(machine.memory.balloon);
}

#[test]
fn what_the_kernel_shows_of_a_process() {
    let line = b"/usr/bin/kvm\0-id\x00100\0-machine\0type=q35+pve0\0-readconfig\0/usr/share/qemu-server/pve-q35-4.0.cfg\0\
                 -device\0vfio-pci,host=0000:01:00.0,id=hostpci0,bus=ich9-pcie-port-1,addr=0x0\0";
    let machine = parse("/proc/1/cmdline", line).unwrap();
    assert_eq!(machine.passed[0].place, PlaceInGuest::Port("ich9-pcie-port-1".into()));
    assert_eq!((machine.vmid, machine.unknown.len()), (Some(100), 0));
    // Called kvm, it takes KVM by itself.
    assert!(machine.accelerated);
    let accelerated = |line: &str| parse("x", line.as_bytes()).unwrap().accelerated;
    assert!(!accelerated("kvm -accel tcg") && accelerated("qemu-system-x86_64 -accel kvm -accel tcg"));
    assert!(!accelerated("qemu-system-x86_64 -m 1G") && accelerated("qemu-system-x86_64 -enable-kvm"));
    let other = parse("x", b"qemu-kvm\0-readconfig\0/etc/x.cfg\0").unwrap();
    assert!(other.complaints[0].contains("/etc/x.cfg"));
}

#[test]
fn lines_that_are_cut_or_none() {
    let why = |text: &[u8]| format!("{:#}", parse("x", text).unwrap_err());
    assert!(why(b"qemu-system-x86_64 -name 'a").contains("cut off"));
    assert!(why(b"").contains("no qemu-system"));
    assert!(why(b"ls -l").contains("no qemu-system"));
    assert!(why(b"\xff\xfe").contains("not text"));
    assert!(parse("x", b"qemu-system-x86_64 -device").is_ok());
}

#[test]
fn the_command_is_the_one_that_has_options() {
    let board = |script: &str| {
        let machine = parse("x", script.as_bytes()).unwrap_or_else(|why| panic!("{script}: {why:#}"));
        (machine.board, machine.open)
    };
    for before in [
        "command -v qemu-system-x86_64 >/dev/null || exit 1\n",
        "QEMU=/usr/bin/qemu-system-x86_64\n",
        "export QEMU='/usr/bin/qemu-system-x86_64'\n",
        "qemu-system-x86_64 --version\n",
        "echo starting qemu-system-x86_64\n",
    ] {
        let script = format!("{before}exec qemu-system-x86_64 -machine q35\n");
        assert_eq!(board(&script), ("q35".into(), None), "{before}");
    }
    assert_eq!(board("QEMU=/opt/qemu-system-x86_64\n\"$QEMU\" -M q35\n").0, "q35");
    assert_eq!(board("QEMU=/opt/qemu-system-x86_64; exec ${QEMU} -M q35").0, "q35");
    for word in ["${ARGS[@]}", "$@", "$MACHINE"] {
        let (_, open) = board(&format!("ARGS=(-M q35)\nqemu-system-x86_64 \"{word}\"\n"));
        assert_eq!(open.as_deref(), Some(word));
    }
    assert_eq!(board("qemu-system-x86_64 -M $BOARD").1.as_deref(), Some("$BOARD (-M)"));
    for nothing in ["command -v qemu-system-x86_64\n", "QEMU=qemu-system-x86_64\n"] {
        let why = parse("x", nothing.as_bytes()).unwrap_err().to_string();
        assert!(why.contains("no qemu-system-x86_64 with options"), "{nothing}: {why}");
    }
}

#[test]
fn what_a_variable_of_the_script_holds() {
    let read = |script: &str| parse("x", script.as_bytes()).unwrap_or_else(|why| panic!("{script}: {why:#}"));
    // Called kvm, it takes KVM by itself, by whatever name the script has for it.
    assert!(read("QEMU=/usr/bin/kvm\n\"$QEMU\" -M q35\n").accelerated);
    assert!(!read("kvm=/usr/bin/qemu-system-x86_64\n$kvm -M q35\n").accelerated);
    let options = read("QEMU=\"qemu-system-x86_64 -enable-kvm\"\n$QEMU -M q35\n");
    assert!(options.accelerated && options.is_q35());
    assert!(read("QEMU='/usr/bin/kvm -M q35'\nexec $QEMU\n").is_q35());
    for default in ["\"${QEMU:-qemu-system-x86_64}\" -M q35\n", "Q=${Q:-/usr/bin/kvm}\n$Q -M q35\n"] {
        assert!(read(default).is_q35(), "{default}");
    }
}

#[test]
fn a_word_alone_is_a_disk() {
    let disks = |line: &str| {
        let machine = parse("x", line.as_bytes()).unwrap_or_else(|why| panic!("{line}: {why:#}"));
        (machine.disks.iter().map(|disk| disk.name.clone()).collect::<Vec<_>>().join(" "), machine.unknown)
    };
    assert_eq!(disks("sudo qemu-system-x86_64 disk.img -m 4G >/dev/null -x y"), ("hda".into(), vec![]));
    assert_eq!(disks("qemu-system-x86_64 -m 4G -hdc a.img -hdd b.img -sd c.img").0, "hdc hdd");
    for passing in ["apt-get install qemu-system-x86_64 ovmf -y", "qemu-system-x86_64 >/dev/null", "ls kvm a"]
    {
        assert!(parse("x", passing.as_bytes()).is_err(), "{passing}");
    }
}

#[test]
fn a_shell_puts_in_nothing_where_there_is_none() {
    let gpu = parse("x", b"qemu-system-x86_64 -device vfio-pci,host=$GPU,id=gpu").unwrap();
    assert_eq!((gpu.open, gpu.passed[0].hosts.len()), (None, 0));
    assert_eq!(gpu.passed[0].properties[HOST], "$GPU");
    let process = parse("x", b"kvm\0$X\0-M\0$Y\0-device\0vfio-pci,host=$Z\0;\0-smp\x004\0").unwrap();
    assert_eq!((process.open, process.board.as_str(), process.unknown.len()), (None, "$Y", 0));
    assert!(process.passed[0].properties.is_empty() && process.complaints[0].contains("no PCI address"));
    let mut machine = Machine::new(Kind::Proxmox, "x");
    add(&mut machine, "-fw_cfg name=a,string=$b -M '$c'").unwrap();
    assert!(machine.open.is_none() && machine.complaints.is_empty());
}

#[test]
fn of_several_cpus_the_last_one_counts() {
    let last = parse("x", b"qemu-system-x86_64 -cpu EPYC,kvm=off,phys-bits=40,+x -cpu host").unwrap().cpu;
    assert_eq!(last, Cpu { model: "host".into(), ..Cpu::default() });
}

#[test]
fn quotes_that_are_open_cost_no_more_than_their_length() {
    let begun = std::time::Instant::now();
    for line in ["\n", "\"\n", "it's\n", "QEMU=kvm\n"] {
        let text = format!("qemu-system-x86_64 -name '{}", line.repeat((1 << 21) / line.len()));
        let _ = parse("x", text.as_bytes());
    }
    let many: String = (0..100_000).map(|n| format!("Q{n}=qemu-system-x86_64\n")).collect();
    assert!(parse("x", many.as_bytes()).is_err());
    assert!(begun.elapsed() < std::time::Duration::from_secs(60));
    // Quotes over lines, a comment with one, and one that a backslash takes.
    let text =
        "qemu-system-x86_64 --version # don't\nqemu-system-x86_64 -name 'a\n\"' -append it\\'s -M q35\n";
    assert!(parse("x", text.as_bytes()).unwrap().is_q35());
}

#[test]
fn json_has_lists_and_numbers() {
    let line = r#"qemu-system-x86_64 -M q35 -object '{"qom-type":"memory-backend-ram","policy":"bind","host-nodes":[1,3]}' -device '{"driver":"pcie-root-port","id":"a","addr":28}' -cpu host,-hypervisor"#;
    let machine = parse("x", line.as_bytes()).unwrap();
    assert_eq!(machine.memory.host_nodes, [1, 3]);
    // 28 is device 3, function 4.
    assert_eq!(machine.ports[0].addr, "03.4");
    assert!(machine.cpu.no_hypervisor && !machine.cpu.hidden);
}

#[test]
fn words_and_commas() {
    assert_eq!(
        options("a,b=c,,d,e", "x"),
        [("x", "a"), ("b", "c,d"), ("e", "on")].map(|(k, v)| (k.into(), v.into()))
    );
    assert_eq!((slot("0x1c.2"), slot("0x0"), slot("")), ("1c.2".into(), "00.0".into(), String::new()));
    assert_eq!((slot("1c"), slot("28")), ("1c.0".into(), "28.0".into()));
}
