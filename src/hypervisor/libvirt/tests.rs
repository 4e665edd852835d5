use super::*;

const XML: &str = r#"<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>gds</name><uuid>AAAAAAAA-2222-3333-4444-555555555555</uuid>
  <memory unit='GiB'>64</memory><memtune><hard_limit unit='GiB'>32</hard_limit></memtune>
  <memoryBacking><hugepages><page size='1' unit='GiB'/></hugepages></memoryBacking>
  <numatune><memory mode='strict' nodeset='1'/></numatune>
  <os firmware='efi'><type arch='x86_64' machine='pc-q35-9.2'>hvm</type>
    <firmware><feature enabled='yes' name='enrolled-keys'/></firmware></os>
  <features><kvm><hidden state='on'/></kvm></features>
  <cpu mode='host-passthrough'><maxphysaddr mode='passthrough'/><feature policy='disable' name='hypervisor'/></cpu>
  <sysinfo type='smbios'><oemStrings><entry>gdsboot.after=hold</entry></oemStrings></sysinfo>
  <sysinfo type='fwcfg'><entry name='opt/org.qemu/x'>1</entry><entry name='opt/own'>2</entry></sysinfo>
  <vcpu>256</vcpu>
  <devices>
    <controller type='pci' index='0' model='pcie-root'/>
    <controller type='pci' index='1' model='pcie-root-port'><address type='pci' domain='0' bus='0x00' slot='0x02' function='0x0'/></controller>
    <controller type='pci' index='2' model='pcie-switch-upstream-port'><address type='pci' bus='0x01' slot='0x00'/></controller>
    <controller type='pci' index='3' model='pcie-switch-downstream-port'><address type='pci' bus='0x02' slot='0x00'/></controller>
    <disk type='file' device='disk'><source file='/a.img'/><target dev='vda' bus='virtio'/></disk>
    <hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x41' slot='0x00' function='0x0'/></source>
      <rom bar='off'/><address type='pci' bus='0x03' slot='0x00'/></hostdev>
    <hostdev mode='subsystem' type='pci'><driver name='vfio' iommufd='yes'/><source><address bus='0x42' slot='0x00' function='0x0'/></source></hostdev>
    <memballoon model='none'/>
    <iommu model='intel'/>
  </devices>
  <strange/>
  <qemu:commandline><qemu:arg value='-fw_cfg'/><qemu:arg value='name=a b,string=c'/>
    <qemu:arg value='-fw_cfg'/><qemu:arg value='name=opt/ovmf/X-PciMmio64Mb,string=262144'/></qemu:commandline>
</domain>"#;

#[test]
fn a_whole_domain() {
    let machine = parse("x.xml", XML.as_bytes()).unwrap();
    assert!(
        machine.is_q35()
            && machine.accelerated
            && machine.cpu.is_host()
            && machine.cpu.hidden
            && machine.cpu.no_hypervisor
            && machine.secure_boot
    );
    assert_eq!(machine.memory.hugepages, Some(1 << 30));
    assert_eq!((machine.memory.bytes, machine.memory.hard_limit), (Some(64 << 30), Some(32 << 30)));
    assert_eq!((machine.memory.balloon, machine.memory.host_nodes.as_slice()), (false, &[1][..]));
    assert_eq!(machine.firmware, Some(Firmware::Uefi));
    let [gpu, nvme] = machine.passed.as_slice() else { panic!("two devices") };
    assert_eq!(gpu.hosts, ["0000:41:00.0"]);
    assert_eq!(machine.ports_above(gpu).unwrap().len(), 3);
    assert!(nvme.iommufd);
    assert_eq!(machine.ports_above(nvme).unwrap().len(), 1);
    assert_eq!(machine.told("opt/ovmf/X-PciMmio64Mb"), Some("262144"));
    assert_eq!((machine.told("a b"), machine.told("opt/own")), (Some("c"), Some("2")));
    // What libvirt refuses is not judged as if it were there.
    assert_eq!(machine.told("opt/org.qemu/x"), None);
    let [name, cpus] = machine.refused.as_slice() else { panic!("{:?}", machine.refused) };
    assert!(name.why.contains("opt/org.qemu/x") && cpus.why.contains("256 CPUs"));
    let extended = XML.replace("<iommu model='intel'/>", "<iommu model='intel'><driver eim='on'/></iommu>");
    assert_eq!(parse("x.xml", extended.as_bytes()).unwrap().refused.len(), 1);
    let older = extended.replace("pc-q35-9.2", "pc").replace("opt/own", "own");
    let older = parse("x.xml", older.as_bytes()).unwrap();
    let why: Vec<&str> = older.refused.iter().map(|refused| refused.why.as_str()).collect();
    assert!(why.len() == 3 && why[1].contains("\"own\"") && why[2].contains("256 CPUs"), "{why:?}");
    assert_eq!((machine.unknown, machine.viommu.as_deref()), (vec!["<strange>".to_owned()], Some("intel")));
}

#[test]
fn documents_that_are_none() {
    let why = |text: &str| format!("{:#}", parse("x", text.as_bytes()).unwrap_err());
    let bomb = "<!DOCTYPE d [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><domain>&b;</domain>";
    assert!(why(bomb).contains("DTD"), "{}", why(bomb));
    assert!(why("<domain>&nothing;</domain>").contains("entity"));
    assert!(why("<domain><name>").contains("XML"));
    assert!(why("").contains("XML"));
    assert!(why("<network/>").contains("<network>"));
    assert!(parse("x", b"\xff<").is_err());
    let many = "<hostdev type='pci'/>".repeat(MOST_DEVICES + 1);
    assert!(why(&format!("<domain><devices>{many}</devices></domain>")).contains("more devices"));
    let deep = "<domain>".repeat(200_000);
    assert!(parse("x", deep.as_bytes()).is_err());
}
