use super::*;

#[test]
fn addresses_in_all_forms() {
    assert_eq!(address("01:00.0").as_deref(), Some("0000:01:00.0"));
    assert_eq!(address("0000:C1:00").as_deref(), Some("0000:c1:00"));
    assert_eq!(address("10000:e1:00.0").as_deref(), Some("10000:e1:00.0"));
    for nothing in ["", "1", "zz:00.0", "01:00.10", "a:b:c:d", "01:00.é", "éé:00"] {
        assert_eq!(address(nothing), None, "{nothing}");
    }
}

#[test]
fn sizes_in_all_forms() {
    assert_eq!(bytes("4G", 1), Some(4 << 30));
    assert_eq!(bytes("2048", 1 << 20), Some(2 << 30));
    assert_eq!(bytes("128GiB", 1), Some(128 << 30));
    assert_eq!(bytes("7B", 1 << 20), Some(7));
    for nothing in ["", "G", "4X", "99999999999999T", "é", "-1"] {
        assert_eq!(bytes(nothing, 1), None, "{nothing}");
    }
}

#[test]
fn nodes_in_all_forms() {
    let bound = |lists: &[&str]| {
        let mut memory = Memory::default();
        lists.iter().for_each(|list| memory.bind(list));
        memory.host_nodes
    };
    assert_eq!(bound(&["0,2-4;7", "3, 9"]), [0, 2, 3, 4, 7, 9]);
    for nothing in ["", "x", "5-2", "-", "4294967296", "1024", "4294967295-4294967295"] {
        assert_eq!(bound(&[nothing]), [0u32; 0], "{nothing}");
    }
    // As much as a file may have.
    assert_eq!(bound(&[&"0-4294967295,".repeat(1 << 16)]).len(), MOST_NODES);
}

#[test]
fn a_line_of_proxmox_keeps_what_is_not_changed() {
    let conf = b"machine: q35\nhostpci0: 0000:41:00.0,rombar=0,x-vga=1\nhostpci1: mapping=gpu,mdev=a\n";
    let machine = crate::hypervisor::proxmox::parse("100.conf", conf, &Default::default()).unwrap();
    let [first, mapped] = machine.passed.as_slice() else { panic!("two devices") };
    let changes = [("pcie", Some("1")), ("x-vga", None)];
    assert_eq!(first.rewritten(&changes).unwrap(), "0000:41:00.0,rombar=0,pcie=1");
    assert_eq!(mapped.rewritten(&changes).unwrap(), "mapping=gpu,mdev=a,pcie=1");
    assert_eq!(first.rewritten(&[("host", Some("0000:41:00"))]).unwrap(), "0000:41:00,rombar=0,x-vga=1");
    let args =
        crate::hypervisor::qemu::parse("x", b"qemu-system-x86_64 -device vfio-pci,host=41:00.0").unwrap();
    assert_eq!(args.passed[0].rewritten(&changes), None);
}

#[test]
fn a_ring_of_ports_leads_nowhere() {
    let mut machine = Machine::new(Kind::Qemu, "x");
    let port = |id: &str, bus: &str| Port {
        id: id.into(),
        kind: PortKind::RootPort,
        bus: bus.into(),
        addr: String::new(),
    };
    machine.ports = vec![port("a", "b"), port("b", "a")];
    let passed = crate::hypervisor::qemu::parse("x", b"qemu-system-x86_64 -device vfio-pci,host=1:0.0,bus=a")
        .unwrap()
        .passed;
    let passed = Passed { place: PlaceInGuest::Port("a".into()), ..passed[0].clone() };
    assert_eq!(machine.ports_above(&passed), None);
}
