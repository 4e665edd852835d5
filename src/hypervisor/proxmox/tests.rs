use super::*;
use crate::hypervisor::machine::PlaceInGuest;

const CONF: &str = "\
# a machine
agent: 1
args: -fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=262144 -device pcie-root-port,id=extra,bus=pcie.0,addr=0x12 \
-device vfio-pci,host=0000:43:00.0,bus=extra
balloon: 0
bios: ovmf
boot: order=scsi0
colour: green
cpu: host,hidden=1,flags=+aes;-pcid,phys-bits=host
efidisk0: local-lvm:vm-100-disk-0,efitype=4m,pre-enrolled-keys=1,size=4M
hostpci0: 0000:41:00,pcie=1,rombar=0
hostpci1: mapping=fast,pcie=1
hostpci5: 42:00.0
hugepages: 1024
machine: pc-q35-9.0+pve1,viommu=intel
memory: 65536
name: gds
numa: 1
numa0: cpus=0-7,hostnodes=1,memory=65536,policy=bind
scsi0: local-lvm:vm-100-disk-1,size=8G
ide2: none,media=cdrom
smbios1: uuid=AAAAAAAA-2222-3333-4444-555555555555,base64=1,manufacturer=QQ==
garbage

[PENDING]
delete: balloon,!hugepages
machine: pc

[before]
machine: pc
bios: seabios
";

#[test]
fn a_whole_file() {
    let text = "fast\n\tmap id=144d:a80a,node=pve,path=0000:44:00.0\n\tmap node=other,path=0000:45:00\n";
    let mappings = Mappings::parse(text, None);
    let machine = parse("/etc/pve/qemu-server/100.conf", CONF.as_bytes(), &mappings).unwrap();
    assert!(machine.is_q35() && machine.secure_boot && machine.cpu.hidden && machine.cpu.host_phys_bits);
    assert_eq!((machine.vmid, machine.viommu.as_deref()), (Some(100), Some("intel")));
    assert_eq!((machine.firmware, machine.memory.balloon), (Some(Firmware::Uefi), false));
    assert_eq!((machine.memory.hugepages, machine.memory.host_nodes.as_slice()), (Some(1 << 30), &[1][..]));
    assert_eq!(machine.uuid.as_deref(), Some("aaaaaaaa-2222-3333-4444-555555555555"));
    let told: Vec<_> =
        machine.passed.iter().map(|p| (p.name.as_str(), p.hosts.join(" "), p.place.clone())).collect();
    let port = |n: u32| PlaceInGuest::Port(format!("ich9-pcie-port-{n}"));
    assert_eq!(
        told,
        [
            ("hostpci0", "0000:41:00".to_owned(), port(1)),
            ("hostpci1", "0000:44:00.0 0000:45:00".to_owned(), port(2)),
            ("hostpci5", "0000:42:00.0".to_owned(), PlaceInGuest::Conventional),
            ("vfio-pci 0000:43:00.0", "0000:43:00.0".to_owned(), PlaceInGuest::Port("extra".into())),
        ]
    );
    assert_eq!(machine.told("opt/ovmf/X-PciMmio64Mb"), Some("262144"));
    assert_eq!(machine.unknown, ["colour: green"]);
    assert_eq!(machine.complaints.len(), 1);
    assert_eq!(machine.snapshots, ["before"]);
    assert_eq!(machine.pending.len(), 3);
    assert_eq!(machine.disks.len(), 2);
}

#[test]
fn a_node_takes_its_own_devices() {
    let text = "gpu\n\tmap node=a,path=0000:41:00.0\n\tmap node=b,path=0000:42:00.0;0000:42:00.1\n";
    let hosts = |node: Option<&str>| {
        let machine = parse("1.conf", b"hostpci0: mapping=gpu\n", &Mappings::parse(text, node)).unwrap();
        machine.passed[0].hosts.join(" ")
    };
    assert_eq!(hosts(Some("a")), "0000:41:00.0");
    assert_eq!(hosts(Some("b")), "0000:42:00.0 0000:42:00.1");
    assert_eq!(hosts(Some("c")), "");
    assert_eq!(hosts(None), "0000:41:00.0 0000:42:00.0 0000:42:00.1");
}

#[test]
fn what_proxmox_refuses_to_start() {
    let refused = |lines: &str| {
        let text = format!("machine: q35\nmemory: 4096\n{lines}");
        let machine = parse("1.conf", text.as_bytes(), &Mappings::default()).unwrap();
        machine.refused.iter().map(|refused| refused.why.clone()).collect::<Vec<_>>().join("; ")
    };
    let node = |number: u8, hosts: &str, mib: u32| {
        format!("numa{number}: cpus={number},hostnodes={hosts},memory={mib},policy=bind\n")
    };
    assert_eq!(refused(&format!("numa: 1\nhugepages: 2\n{}{}", node(0, "0", 2048), node(1, "1", 2048))), "");
    assert_eq!(refused(&format!("numa: 1\n{}", node(0, "0;1", 4096))), "");
    assert!(refused(&format!("numa: 1\nhugepages: 2\n{}", node(0, "0;1", 4096))).contains("\"0;1\""));
    assert!(refused(&format!("numa: 1\nhugepages: 2\n{}", node(0, "10", 4096))).contains("0 to 9"));
    assert!(refused("numa: 1\nhugepages: 2\nnuma0: cpus=0,memory=4096\n").contains("numa0"));
    assert!(refused("hugepages: 2\n").contains("numa: 1"));
    assert!(refused(&format!("numa: 1\n{}", node(0, "0", 1024))).contains("1024 MiB"));
    for (lines, why) in [
        ("numa: 1\nnuma0: cpus=0,hostnodes=0,memory=4096\n", "no policy"),
        ("numa: 1\nnuma0: cpus=0,policy=bind,hostnodes=0\n", "numa0: it has no memory"),
        ("numa: 1\nnuma0: memory=4096\n", "numa0: it has no cpus"),
        ("numa: 1\nhugepages: 1024\nnuma0: cpus=0,hostnodes=0,memory=1025,policy=bind\n", "page of 1024 MiB"),
        ("numa: 1\nhotplug: disk,memory\nnuma0: cpus=0,memory=1024\n", "hotplugged"),
        ("hotplug: network,memory\n", "needs numa: 1"),
    ] {
        assert!(refused(lines).contains(why), "{lines}: {}", refused(lines));
    }
    // Memory that is hotplugged has its own sum, of two lines of one key the last one counts, and others are none.
    for fine in [
        "numa: 1\nhotplug: disk,memory\n",
        "numa: 1\nhotplug: 1\nnuma0: cpus=0,memory=1024\nnuma0: cpus=0,memory=4096\n",
        "numa: 1\nhugepages: 2\nnuma_x: 1\nnuma8: cpus=0,memory=1\n",
    ] {
        assert_eq!(refused(fine), "", "{fine}");
    }
    let off = format!("machine: q35\nmemory: 4096\n{}", node(0, "1", 4096));
    let off = parse("1.conf", off.as_bytes(), &Mappings::default()).unwrap();
    assert_eq!(off.memory.host_nodes, [0u32; 0]);
}

#[test]
fn a_display_hides_kvm_unless_the_cpu_says_otherwise() {
    let hidden = |cpu: &str| {
        let text = format!("{cpu}\nhostpci0: 41:00.0,x-vga=1\n");
        parse("1.conf", text.as_bytes(), &Mappings::default()).unwrap().cpu.hidden
    };
    assert!(hidden("cpu: host") && !hidden("cpu: host,hidden=0") && hidden("name: a"));
}

#[test]
fn what_proxmox_does_where_nothing_is_said() {
    let machine =
        parse("x.conf", b"memory: current=2048\nhostpci0: 01:00,pcie=1\n", &Mappings::default()).unwrap();
    assert!(!machine.is_q35() && machine.memory.balloon && machine.accelerated);
    assert_eq!(machine.firmware, Some(Firmware::Bios));
    assert_eq!(machine.passed[0].place, PlaceInGuest::Conventional);
    assert_eq!(machine.memory.bytes, Some(2 << 30));
}

#[test]
fn files_that_are_none() {
    let why = |text: &[u8]| parse("x", text, &Mappings::default()).unwrap_err().to_string();
    assert!(why(b"").contains("no line"));
    assert!(why(b"hello: world\n").contains("no line"));
    assert!(why(b"\xff\x00").contains("not text"));
    assert!(why(b"name: a\0").contains("NUL"));
    let cut = parse("x", b"name: a\nargs: -device 'x\n", &Mappings::default()).unwrap();
    assert!(cut.complaints[0].contains("quotes"));
    let many =
        parse("x", b"machine: q35\nhostpci99: 01:00,pcie=1\nhostpci: 1\n", &Mappings::default()).unwrap();
    assert_eq!((many.complaints.len(), many.unknown.len()), (1, 1));
}
