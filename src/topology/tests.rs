use super::testing::*;
use super::*;
use crate::facts::pci::Id;

/// `nvidia-smi NCCL distance p2pdma` of the first pair.
fn answers(facts: &Facts) -> String {
    let topology = Topology::of(facts);
    words(&topology.pairs[0])
}

fn words(pair: &Pair) -> String {
    let label = |label: Option<Label>| label.map_or("?".to_owned(), |label| label.to_string());
    let nvfs = pair.nvfs.map_or("?".to_owned(), |nvfs| {
        format!("{}{}", nvfs.distance, if nvfs.cross { " cross" } else { "" })
    });
    let p2pdma = match &pair.p2pdma {
        P2pdma::Direct => "direct".to_owned(),
        P2pdma::ThroughHostBridge { why, .. } => format!("through the host bridge: {why}"),
        P2pdma::Refused { why, .. } => format!("refused: {why}"),
        P2pdma::Unknown { why } => format!("unknown: {why}"),
    };
    format!("{} {} {nvfs}; {p2pdma}", label(pair.nvidia_smi), label(pair.nccl))
}

#[test]
fn a_flat_guest_is_refused_on_intel_and_allowed_on_zen() {
    assert_eq!(
        answers(&machine("GenuineIntel", 6, flat())),
        "PHB PHB 130 cross; refused: GPU and peer share no PCIe switch, and the CPU is GenuineIntel, not an AMD Zen, \
         and host bridge 8086:29c0 is not on the kernel's list"
    );
    assert_eq!(
        answers(&machine("AuthenticAMD", 0x19, flat())),
        "PHB PHB 130 cross; through the host bridge: the CPU is AMD family 0x19, Zen or newer"
    );
    // A CPU model of the hypervisor hides that.
    let hidden = answers(&machine("AuthenticAMD", 0x0f, flat()));
    assert!(hidden.contains("AMD family 0xf, older than Zen"), "{hidden}");
    assert_eq!(p2pdma_refusals(&machine("GenuineIntel", 6, flat())).len(), 1);
    assert_eq!(p2pdma_refusals(&machine("AuthenticAMD", 0x19, flat())), []);
}

#[test]
fn below_one_emulated_switch_data_stays_there() {
    assert_eq!(answers(&machine("GenuineIntel", 6, switched())), "PIX PIX 3; direct");
}

#[test]
fn two_switches_in_a_row() {
    let up = "0000:00:1c.3/0000:04:00.0";
    let second = format!("{up}/0000:05:00.0/0000:06:00.0");
    let devices = vec![
        device(HOST, "0000:00:00.0"),
        device(PORT, "0000:00:1c.3"),
        device(TI_UPSTREAM, up),
        device(TI_DOWNSTREAM, &format!("{up}/0000:05:00.0")),
        device(TI_UPSTREAM, &second),
        device(TI_DOWNSTREAM, &format!("{second}/0000:07:00.0")),
        device(TI_DOWNSTREAM, &format!("{up}/0000:05:01.0")),
        device(GPU, &format!("{second}/0000:07:00.0/0000:08:00.0")),
        device(NVME, &format!("{up}/0000:05:01.0/0000:09:00.0")),
    ];
    assert_eq!(answers(&machine("GenuineIntel", 6, devices)), "PXB PXB 5; direct");
}

#[test]
fn two_sockets() {
    let devices = |nodes: [i32; 2]| {
        vec![
            device((0x08_8000, "8086:09a2"), "0000:10:00.0"),
            device((0x08_8000, "8086:09a2"), "0000:80:00.0"),
            device(PORT, "0000:10:01.0"),
            device(PORT, "0000:80:01.0"),
            device(GPU, "0000:10:01.0/0000:11:00.0").on_node(nodes[0]),
            device(NVME, "0000:80:01.0/0000:81:00.0").on_node(nodes[1]),
        ]
    };
    let answers = |nodes: [i32; 2]| {
        let mut facts = machine("GenuineIntel", 6, devices(nodes));
        facts.numa_nodes = Fact::known("node", vec![0, 1]);
        answers(&facts)
    };
    let listed = "through the host bridge: host bridge 8086:09a2 is on the kernel's list";
    assert_eq!(answers([0, 1]), format!("SYS SYS 257 cross; {listed}"));
    assert_eq!(answers([1, 1]), format!("NODE PHB 130 cross; {listed}"));
    // The firmware names no nodes.
    assert_eq!(answers([-1, -1]), format!("SYS PHB 130 cross; {listed}"));
}

#[test]
fn host_bridges_that_pass_nothing_on_to_others() {
    let devices = |second: &str| {
        vec![
            device((0x06_0000, "8086:2f00"), "0000:00:00.0"),
            device((0x06_0000, "8086:2f00"), "0000:80:00.0"),
            device(PORT, "0000:00:01.0"),
            device(PORT, "0000:00:02.0"),
            device(PORT, "0000:80:01.0"),
            device(GPU, "0000:00:01.0/0000:11:00.0").on_node(0),
            device(NVME, second).on_node(0),
        ]
    };
    let same = answers(&machine("GenuineIntel", 6, devices("0000:00:02.0/0000:12:00.0")));
    assert!(same.ends_with("host bridge 8086:2f00 is on the kernel's list"), "{same}");
    let other = answers(&machine("GenuineIntel", 6, devices("0000:80:01.0/0000:81:00.0")));
    assert!(
        other.contains("refused") && other.ends_with("passes nothing on to another host bridge"),
        "{other}"
    );
}

/// A server of eight GPUs has four of these: a Broadcom switch with GPU, NVMe and NIC on it.
fn server(acs: u16) -> Vec<PciDevice> {
    let up = "0000:15:01.0/0000:16:00.0";
    let port = (0x06_0400, "1000:c030");
    vec![
        device((0x06_0000, "8086:09a2"), "0000:15:00.0").on_node(0),
        device((0x06_0400, "8086:352a"), "0000:15:01.0").on_node(0),
        device(port, up),
        device(port, &format!("{up}/0000:17:00.0")).with_acs(acs),
        device(port, &format!("{up}/0000:17:01.0")).with_acs(acs),
        device(port, &format!("{up}/0000:17:02.0")).with_acs(acs),
        device(GPU, &format!("{up}/0000:17:01.0/0000:19:00.0")).on_node(0),
        device(NVME, &format!("{up}/0000:17:00.0/0000:18:00.0")).on_node(0),
        device(NIC, &format!("{up}/0000:17:02.0/0000:1a:00.0")).on_node(0),
    ]
}

#[test]
fn a_server_with_a_switch() {
    let topology = Topology::of(&machine("GenuineIntel", 6, server(0)));
    let [nvme, nic] = topology.pairs.as_slice() else { panic!("two pairs") };
    assert_eq!((nvme.kind, nic.kind), (PeerKind::Nvme, PeerKind::Network));
    assert_eq!(words(nvme), "PIX PIX 3; direct");
    assert_eq!(words(nic), "PIX PIX 3; direct");
}

#[test]
fn redirected_requests_go_up_to_the_host_bridge() {
    let topology = Topology::of(&machine("GenuineIntel", 6, server(0x1d)));
    let P2pdma::ThroughHostBridge { redirects, .. } = &topology.pairs[0].p2pdma else {
        panic!("{topology:?}")
    };
    assert_eq!(redirects, &["0000:17:01.0", "0000:17:00.0"]);
    // The same where the host bridge is on no list.
    let mut devices = server(0x1d);
    devices[0].device = Fact::known("device", Id(0x1237));
    let facts = machine("GenuineIntel", 6, devices);
    let refused = answers(&facts);
    assert!(refused.contains("refused: ACS redirect is set on 0000:17:01.0, 0000:17:00.0, and"), "{refused}");
}

#[test]
fn nvidia_fs_adds_the_way_up_where_the_switch_has_acs() {
    let mut devices = server(0);
    devices[2] = devices[2].clone().with_acs(0x01);
    assert!(answers(&machine("GenuineIntel", 6, devices)).starts_with("PIX PIX 4; direct"));
}

#[test]
fn what_cannot_be_seen_is_not_taken_for_absent() {
    let user =
        |devices: Vec<PciDevice>| devices.into_iter().map(PciDevice::seen_by_a_user).collect::<Vec<_>>();
    let seen = answers(&machine("GenuineIntel", 6, user(switched())));
    assert!(seen.starts_with("PIX PIX ?; unknown: whether 0000:04:00.0"), "{seen}");
    // On Zen the answer does not hang on it.
    let zen = answers(&machine("AuthenticAMD", 0x17, user(switched())));
    assert!(zen.starts_with("PIX PIX ?; through the host bridge"), "{zen}");
    let mut facts = machine("GenuineIntel", 6, flat());
    facts.cpu = Fact::default();
    assert_eq!(answers(&facts), "PHB PHB 130 cross; unknown: the CPU cannot be seen");
    let mut facts = machine("GenuineIntel", 6, flat());
    for device in facts_pci(&mut facts) {
        device.path = Fact::default();
    }
    assert_eq!(answers(&facts), "? ? ?; unknown: the bridges above the devices cannot be seen");
    let mut facts = machine("GenuineIntel", 6, flat());
    facts_pci(&mut facts).remove(0);
    // The first function of the bus is then a root port; a kernel would have seen what this capture lacks.
    assert!(answers(&facts).ends_with("unknown: the host bridge of pci0000:00 cannot be seen"));
    assert_eq!(Topology::of(&Facts::default()), Topology::default());
    assert_eq!(draw::draw(&Facts::default()), "");
}

fn facts_pci(facts: &mut Facts) -> &mut Vec<PciDevice> {
    let Fact::Known { value, .. } = &mut facts.pci else { panic!("devices") };
    value
}

#[test]
fn bus_numbers_stand_in_for_lost_paths() {
    let mut facts = machine("GenuineIntel", 6, switched());
    for device in facts_pci(&mut facts) {
        device.path = Fact::Missing { from: "a capture that followed links".into() };
        let secondary = match device.address.as_str() {
            "0000:00:1c.3" => 4,
            "0000:04:00.0" => 5,
            "0000:05:00.0" => 6,
            "0000:05:01.0" => 7,
            _ => continue,
        };
        let mut config = device.config.value().unwrap().clone();
        config.secondary_bus = Some(secondary);
        device.config = Fact::known("config", config);
    }
    assert_eq!(answers(&facts), "PIX PIX 3; direct");
    // Numbers that lead in a circle.
    let mut config = config(4);
    config.secondary_bus = Some(0);
    facts_pci(&mut facts)[3].config = Fact::known("config", config);
    assert!(answers(&facts).starts_with("?"));
}

#[test]
fn trees_of_text() {
    let mut devices = switched();
    devices[5].link_width = Fact::known("width", 16);
    devices[5].link_speed = Fact::known("speed", "32.0 GT/s PCIe".into());
    devices.push(device(NIC, "0000:00:02.0"));
    insta::assert_snapshot!(draw::draw(&machine("GenuineIntel", 6, devices)), @r"
    pci0000:00  host bridge 8086:29c0
    +- 0000:00:02.0  network 15b3:1021
    `- 0000:00:1c.3  root port 1b36:000c  ACS redirect
       `- 0000:04:00.0  switch, upstream 104c:8232
          +- 0000:05:00.0  switch, downstream 104c:8233
          |  `- 0000:06:00.0  GPU 10de:2331, x16 32.0 GT/s
          `- 0000:05:01.0  switch, downstream 104c:8233
             `- 0000:07:00.0  NVMe 144d:a80a
    ");
    insta::assert_snapshot!(draw::draw(&machine("GenuineIntel", 6, server(0x1d))), @r"
    pci0000:15  host bridge 8086:09a2  NUMA node 0
    `- 0000:15:01.0  root port 8086:352a
       `- 0000:16:00.0  switch, upstream 1000:c030
          +- 0000:17:00.0  switch, downstream 1000:c030  ACS redirect
          |  `- 0000:18:00.0  NVMe 144d:a80a
          +- 0000:17:01.0  switch, downstream 1000:c030  ACS redirect
          |  `- 0000:19:00.0  GPU 10de:2331
          `- 0000:17:02.0  switch, downstream 1000:c030  ACS redirect
             `- 0000:1a:00.0  network 15b3:1021
    ");
}

#[test]
fn drawn_lines_are_short_whatever_a_device_says() {
    let mut way = String::new();
    for bus in 0..60 {
        way.push_str(&format!("0000:{bus:02x}:00.0/"));
    }
    let deep = device(GPU, &format!("{way}0000:ff:00.0"));
    let too_deep = device(GPU, &format!("{way}{way}0000:fe:00.0"));
    let facts = machine("x\u{1b}[31m", 6, vec![deep, too_deep]);
    let drawing = draw::draw(&facts);
    assert!(drawing.lines().all(|line| line.len() <= 80));
    assert!(drawing.contains("(place unknown) 0000:fe:00.0"));
}

/// 300 GPUs and 300 drives are no machine's.
#[test]
fn a_report_that_claims_too_much_has_no_pairs() {
    let facts = machine("GenuineIntel", 6, flat());
    let Fact::Known { value: devices, .. } = &facts.pci else { panic!("no PCI") };
    let of = |is: &dyn Fn(&PciDevice) -> bool| devices.iter().find(|device| is(device)).unwrap().clone();
    let gpu = of(&PciDevice::is_nvidia_gpu);
    let drive = of(&|device| device.class.value().copied().is_some_and(Class::is_nvme));
    let with = |count: usize| {
        let pci = [vec![gpu.clone(); count], vec![drive.clone(); count]].concat();
        Topology::of(&Facts { pci: Fact::known("x", pci), ..facts.clone() }).pairs.len()
    };
    assert_eq!((with(20), with(300)), (400, 0));
}
