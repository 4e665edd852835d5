//! Remedies mend what they are for, and keep the rest.

use super::*;

#[test]
fn what_hides_the_hypervisor_in_any_form() {
    let hidden = |text: &str| one(text, None, "vm.hidden");
    for text in [
        "name: a\ncpu: host\nhostpci0: 41:00.0,x-vga=1\n",
        "<domain><cpu mode='host-passthrough'><feature policy='disable' name='hypervisor'/></cpu></domain>",
        "qemu-system-x86_64 -cpu host,-hypervisor",
        "qemu-system-x86_64 -cpu host,kvm=off",
    ] {
        assert_eq!(hidden(text).status, Status::Fail, "{text}");
    }
    assert!(hidden("qemu-system-x86_64 -cpu host,-hypervisor").why.contains("nvidia-fs"));
    assert!(hidden("qemu-system-x86_64 -cpu host,kvm=off").why.contains("cliques"));
    assert_eq!(hidden("cpu: custom-mine\n").status, Status::Unknown);
    let command = |text: &str| hidden(text).remedy[0].commands[0].clone();
    assert_eq!(command("cpu: host,hidden=1,phys-bits=host\n"), "qm set 100 -cpu host,phys-bits=host");
    assert_eq!(command("hostpci0: 41:00.0,x-vga=1,pcie=1\n"), "qm set 100 -hostpci0 41:00.0,pcie=1");
    // All that hides it, and nothing that does not.
    assert_eq!(
        command("cpu: host,hidden=1\nhostpci0: 41:00.0,x-vga=1\nhostpci1: 42:00.0,x-vga=1\n"),
        "qm set 100 -hostpci0 41:00.0 -hostpci1 42:00.0 -cpu host"
    );
    let by_args = hidden("cpu: host\nhostpci0: 41:00.0\nargs: -cpu host,-hypervisor\n");
    assert!(
        by_args.remedy[0].commands.is_empty() && by_args.remedy[0].text.contains("in args"),
        "{by_args:?}"
    );
    assert_eq!(hidden("cpu: host,hidden=1\nargs: -cpu host\n").status, Status::Pass);
}

#[test]
fn remedies_keep_what_they_do_not_mend() {
    let mut host = host();
    let commands =
        |text: &str, host: &Facts, id: &str| one(text, Some(host), id).remedy[0].commands.join("\n");
    // A line keeps its other properties, and a mapping its name.
    let text = flat(&format!("{GPU_AT},rombar=0,x-vga=1"), "mapping=fast");
    assert_eq!(
        commands(&text, &host, "vm.pcie"),
        format!("qm set 100 -hostpci0 {GPU_AT},rombar=0,x-vga=1,pcie=1")
    );
    assert_eq!(
        commands(&text, &host, "vm.display"),
        format!("qm set 100 -hostpci0 {GPU_AT},rombar=0 -vga std -serial0 socket")
    );
    assert_eq!(
        commands("machine: q35\nhostpci0: mapping=gpu\n", &host, "vm.pcie"),
        "qm set 100 -hostpci0 mapping=gpu,pcie=1"
    );
    // What stands in args is no property of the machine's.
    let in_args = format!("machine: q35\nargs: -device vfio-pci,host={GPU_AT},bus=pci.0,x-vga=on\n");
    for id in ["vm.pcie", "vm.display"] {
        let finding = one(&in_args, Some(&host), id);
        assert!(
            finding.remedy[0].commands.is_empty() && finding.remedy[0].text.contains("args"),
            "{finding:?}"
        );
    }
    // A larger window leaves the rest of args as it is.
    let small =
        fine().replace("string=524288", "string=65536").replace("cpu: host", "cpu: host,phys-bits=40");
    let command = commands(&small, &host, "vm.mmio-window");
    let words = shlex::split(&command).unwrap();
    let args = shlex::split(words.last().unwrap()).unwrap();
    assert_eq!(words[..4], ["qm", "set", "100", "-args"]);
    assert_eq!(args.iter().filter(|word| word.contains("X-PciMmio64Mb")).count(), 1, "{command}");
    assert!(
        args.last().unwrap().ends_with("string=262144") && args.iter().any(|a| a.contains(NVME_AT)),
        "{command}"
    );
    // What is pasted is no more than one command.
    assert_eq!(commands("machine: q35,viommu=intel\n", &host, "iommu.guest"), "qm set 100 -machine q35");
    assert_eq!(
        commands("machine: q35;reboot,viommu=intel\n", &host, "iommu.guest"),
        "qm set 100 -machine 'q35;reboot'"
    );
    let in_args = one("machine: q35\nargs: -device intel-iommu\n", Some(&host), "iommu.guest");
    assert!(in_args.remedy[0].commands.is_empty() && in_args.remedy[0].text.contains("args"), "{in_args:?}");
    assert_eq!(commands("intel-tdx: tdx\n", &host, "vm.confidential"), "qm set 100 -delete intel-tdx");
    assert_eq!(commands("amd-sev: std\n", &host, "vm.confidential"), "qm set 100 -delete amd-sev");
    // This number is taken.
    let flat = flat(&format!("{GPU_AT},pcie=1"), &format!("{NVME_AT},pcie=1"));
    let command = commands(&flat, &host, "vm.topology");
    assert!(
        command.contains("--vmid NEW") && command.ends_with("qm set 100 -delete hostpci0,hostpci1"),
        "{command}"
    );
    // Nodes 0 and 2 are not 0 to 2.
    host.numa_nodes = Fact::known("node", vec![0, 1, 2]);
    edit(&mut host, GPU_AT, |device| device.numa_node = Fact::known("numa_node", 0));
    edit(&mut host, NVME_AT, |device| device.numa_node = Fact::known("numa_node", 2));
    let command = commands(&fine(), &host, "vm.numa");
    assert!(
        command.contains("hostnodes=0,memory=32768") && command.contains("hostnodes=2,memory=32768"),
        "{command}"
    );
    // Lines that would be left over, and nodes that Proxmox does not take with these pages.
    let left = format!("{}numa2: cpus=0,hostnodes=1,memory=65536,policy=bind\n", fine());
    assert!(commands(&left, &host, "vm.numa").ends_with(",policy=bind -delete numa2"), "{left}");
    let mut many = host.clone();
    edit(&mut many, NVME_AT, |device| device.numa_node = Fact::known("numa_node", 10));
    let words = one(&fine(), Some(&many), "vm.numa");
    assert!(words.remedy[0].commands.is_empty() && words.remedy[0].text.contains("0 to 9"), "{words:?}");
    let small = fine().replace("hugepages: 1024\n", "");
    assert!(commands(&small, &many, "vm.numa").contains("hostnodes=10,"));
    let xml = format!(
        "<domain><devices>{}{}</devices></domain>",
        "<hostdev type='pci'><source><address bus='6' slot='0' function='0'/></source></hostdev>",
        "<hostdev type='pci'><source><address bus='7' slot='0' function='0'/></source></hostdev>"
    );
    assert!(commands(&xml, &host, "vm.numa").contains("nodeset='0,2'"));
}
