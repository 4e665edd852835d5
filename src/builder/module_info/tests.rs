use super::*;
use proptest::prelude::*;
use std::io::Write as _;

/// A relocatable ELF64 file with `.modinfo` and the table of section names, as small as it can be.
fn module(modinfo: &[u8]) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let mut elf = vec![0; 64];
    elf[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    elf[16] = 1; // ET_REL
    elf[18] = 62; // x86-64
    elf[20] = 1;
    let modinfo_at = elf.len();
    elf.extend(modinfo);
    let names_at = elf.len();
    elf.extend(names);
    let table_at = elf.len();
    elf[40..48].copy_from_slice(&(table_at as u64).to_le_bytes());
    elf[52] = 64; // e_ehsize
    elf[58] = 64; // e_shentsize
    elf[60] = 3; // e_shnum
    elf[62] = 2; // e_shstrndx
    elf.extend([0; 64]);
    for (name, kind, at, len) in [(1_u32, 1_u32, modinfo_at, modinfo.len()), (10, 3, names_at, names.len())] {
        elf.extend(name.to_le_bytes());
        elf.extend(kind.to_le_bytes());
        elf.extend([0; 16]);
        elf.extend((at as u64).to_le_bytes());
        elf.extend((len as u64).to_le_bytes());
        elf.extend([0; 24]);
    }
    elf
}

const MODINFO: &[u8] =
    b"license=Dual MIT/GPL\0alias=pci:v000010DEd*sv*sd*bc03sc00i00*\0alias=char-major-195-*\0\0\0\
    version=550.163.01\0firmware=nvidia/550.163.01/gsp_ga10x.bin\0depends=drm,nvidia-core\0\
    softdep=pre: ecdh_generic post: nvidia-uvm\0noequals\0name=nvidia-fs\0\
    vermagic=6.12.117+deb13-amd64 SMP preempt mod_unload modversions \0";

fn signed(mut elf: Vec<u8>, pkcs7_len: u32, trailer: [u8; 8]) -> Vec<u8> {
    elf.extend([0x30; 100]);
    elf.extend(trailer);
    elf.extend(pkcs7_len.to_be_bytes());
    elf.extend(SIGNATURE_MARKER);
    elf
}

const PKCS7: [u8; 8] = [0, 0, 2, 0, 0, 0, 0, 0];

#[test]
fn modinfo_is_read() {
    let info = ModuleInfo::parse(&module(MODINFO)).unwrap();
    let expected = ModuleInfo {
        name: "nvidia_fs".into(),
        version: Some("550.163.01".into()),
        depends: vec!["drm".into(), "nvidia_core".into()],
        soft_pre: vec!["ecdh_generic".into()],
        vermagic: "6.12.117+deb13-amd64 SMP preempt mod_unload modversions".into(),
        aliases: vec!["pci:v000010DEd*sv*sd*bc03sc00i00*".into(), "char-major-195-*".into()],
        license: Some("Dual MIT/GPL".into()),
        firmware: vec!["nvidia/550.163.01/gsp_ga10x.bin".into()],
        signature: None,
    };
    assert_eq!(info, expected);
    assert_eq!(info.kernel_release(), "6.12.117+deb13-amd64");
}

#[test]
fn a_module_without_dependencies_has_none() {
    let info = ModuleInfo::parse(&module(b"name=a\0depends=\0vermagic=1\0")).unwrap();
    assert_eq!(info.depends, Vec::<String>::new());
}

#[test]
fn what_is_not_a_module_is_refused_by_its_reason() {
    let reason = |bytes: &[u8]| format!("{:#}", ModuleInfo::parse(bytes).unwrap_err());
    assert_eq!(reason(b""), "too short for a kernel module");
    assert!(reason(&[b'x'; 100]).starts_with("reading the ELF header"));
    let mut executable = module(MODINFO);
    executable[16] = 2;
    assert_eq!(reason(&executable), "not a kernel module: the ELF file is not relocatable");
    let mut nameless = module(MODINFO);
    let at = nameless.windows(9).position(|w| w == b".modinfo\0").unwrap();
    nameless[at] = b'x';
    assert_eq!(reason(&nameless), "not a kernel module: no .modinfo section");
    assert_eq!(reason(&module(b"vermagic=1\0")), ".modinfo does not name the module");
    assert_eq!(reason(&module(b"name=a\0")), ".modinfo does not say for which kernel the module is");
    assert!(reason(&module(b"name=\xff\0")).starts_with(".modinfo holds an entry that is not UTF-8"));
    let mut short = module(MODINFO);
    short.truncate(short.len() - 1);
    assert!(reason(&short).starts_with("reading the section table"));
}

#[test]
fn a_signature_is_found_and_not_parsed_as_module() {
    let elf = module(MODINFO);
    let info = ModuleInfo::parse(&signed(elf.clone(), 100, PKCS7)).unwrap();
    assert_eq!(info.signature, Some(Signature { signed_len: elf.len(), pkcs7_len: 100 }));
    assert_eq!(info.name, "nvidia_fs");
    // The marker is part of the format to its last byte: the kernel does not look for it anywhere else.
    let mut shifted = signed(elf, 100, PKCS7);
    shifted.push(b'\n');
    assert_eq!(split_signature(&shifted).unwrap().1, None);
}

#[test]
fn signatures_that_the_kernel_refuses_are_refused() {
    let elf = module(MODINFO);
    let reason = |bytes: &[u8]| split_signature(bytes).unwrap_err().to_string();
    let x509 = [0, 0, 1, 0, 0, 0, 0, 0];
    assert_eq!(reason(&signed(elf.clone(), 100, x509)), "the module's signature is not PKCS#7 but of kind 1");
    let named_signer = [0, 0, 2, 9, 0, 0, 0, 0];
    assert_eq!(
        reason(&signed(elf.clone(), 100, named_signer)),
        "the module's signature has fields that must be zero"
    );
    let whole = u32::try_from(elf.len() + 100).unwrap();
    for too_long in [whole, u32::MAX] {
        let claim = "the module's signature claims to be longer than the file";
        assert_eq!(reason(&signed(elf.clone(), too_long, PKCS7)), claim);
    }
    assert_eq!(reason(SIGNATURE_MARKER), "the module's signature is cut off");
}

fn compressed(suffix: &str, bytes: &[u8]) -> Vec<u8> {
    match suffix {
        ".xz" => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        ".zst" => zstd::encode_all(bytes, 1).unwrap(),
        ".gz" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        _ => bytes.to_vec(),
    }
}

#[test]
fn every_packaging_unpacks_to_the_same_module() {
    let elf = module(MODINFO);
    for suffix in ["", ".xz", ".zst", ".gz"] {
        let packed = compressed(suffix, &elf);
        let file = format!("nvidia.ko{suffix}");
        assert_eq!(decompress(&file, &packed, elf.len()).unwrap(), elf, "{file}");
        let error = format!("{:#}", decompress(&file, &packed, elf.len() - 1).unwrap_err());
        assert!(error.contains(&format!("than {} bytes", elf.len() - 1)), "{error}");
        if !suffix.is_empty() {
            assert!(decompress(&file, &packed[..packed.len() / 2], elf.len()).is_err(), "{file} cut off");
        }
    }
}

#[test]
fn name_and_contents_must_agree() {
    let elf = module(MODINFO);
    let error = decompress("nvidia.ko.xz", &elf, 1 << 20).unwrap_err().to_string();
    assert_eq!(error, "nvidia.ko.xz is not what its name says (.ko.xz)");
    for name in ["nvidia.so", "nvidia.ko.xz.part", "nvidia.ko.lz4", ""] {
        let error = decompress(name, &elf, 1 << 20).unwrap_err().to_string();
        assert_eq!(error, format!("{name} is not named like a kernel module"));
    }
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let mut zeros = vec![0; 8 << 20];
    zeros[..4].copy_from_slice(b"\x7fELF");
    for suffix in [".xz", ".zst", ".gz"] {
        let bomb = compressed(suffix, &zeros);
        assert!(bomb.len() < 1 << 20);
        let error = format!("{:#}", decompress(&format!("a.ko{suffix}"), &bomb, 1 << 20).unwrap_err());
        assert!(error.contains("more than 1048576 bytes"), "{error}");
    }
}

fn graph(edges: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    edges.iter().map(|(m, d)| ((*m).to_owned(), d.iter().map(|&d| d.to_owned()).collect())).collect()
}

#[test]
fn dependencies_are_loaded_first_and_once() {
    let modules = graph(&[
        ("nvidia_fs", &["nvidia"]),
        ("nvidia_uvm", &["nvidia"]),
        ("nvidia", &["drm"]),
        ("drm", &[]),
        ("unused", &[]),
    ]);
    let order = load_order(&modules, ["nvidia_uvm", "nvidia_fs", "nvidia_uvm"]).unwrap();
    assert_eq!(order, ["drm", "nvidia", "nvidia_uvm", "nvidia_fs"]);
}

#[test]
fn a_missing_module_is_named_with_who_needs_it() {
    let modules = graph(&[("nvidia_fs", &["nvidia"])]);
    let reason = |wanted| load_order(&modules, [wanted]).unwrap_err().to_string();
    assert_eq!(reason("nvme"), "there is no kernel module nvme");
    assert_eq!(reason("nvidia_fs"), "there is no kernel module nvidia (which nvidia_fs needs)");
}

#[test]
fn a_circle_is_named() {
    let modules =
        graph(&[("top", &["a"]), ("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("selfish", &["selfish"])]);
    let reason = |wanted| load_order(&modules, [wanted]).unwrap_err().to_string();
    assert_eq!(reason("top"), "kernel modules depend on each other in a circle: a -> b -> c -> a");
    assert_eq!(reason("selfish"), "kernel modules depend on each other in a circle: selfish -> selfish");
}

#[test]
fn modules_dep_is_read() {
    let text = "# made by hand\n\
        kernel/drivers/nvme/host/nvme.ko.xz: kernel/drivers/nvme/host/nvme-core.ko.xz kernel/a.ko\n\
        kernel/drivers/nvme/host/nvme-core.ko.xz:\n";
    let modules = parse_modules_dep(text).unwrap();
    assert_eq!(modules["nvme"].needs, ["kernel/drivers/nvme/host/nvme-core.ko.xz", "kernel/a.ko"]);
    assert_eq!(modules["nvme_core"].path, "kernel/drivers/nvme/host/nvme-core.ko.xz");
    assert_eq!(modules["nvme_core"].needs, Vec::<String>::new());
    let reason = |text| format!("{:#}", parse_modules_dep(text).unwrap_err());
    assert_eq!(reason("\nno colon here"), "modules.dep line 2: no colon");
    assert_eq!(
        reason("kernel/a.so:"),
        "modules.dep line 1: kernel/a.so: a.so is not named like a kernel module"
    );
}

/// `order` holds everything that is reachable from `wanted`, once, dependencies first.
fn assert_order(modules: &BTreeMap<String, Vec<String>>, order: &[&str]) {
    let mut loaded = BTreeSet::new();
    for module in order {
        assert!(
            modules[*module].iter().all(|d| loaded.contains(d.as_str())),
            "{module} comes too early in {order:?}"
        );
        assert!(loaded.insert(*module), "{module} comes twice in {order:?}");
    }
}

proptest! {
    #[test]
    fn hostile_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096), suffix in 0..4_usize) {
        let _ = ModuleInfo::parse(&bytes);
        let _ = ModuleInfo::parse(&module(&bytes));
        let _ = split_signature(&[&bytes, SIGNATURE_MARKER].concat());
        let packagings: [(&str, &[u8]); 4] =
            [("", b"\x7fELF"), (".xz", b"\xfd7zXZ\0"), (".zst", b"\x28\xb5\x2f\xfd"), (".gz", b"\x1f\x8b\x08\0")];
        let (suffix, magic) = packagings[suffix];
        if let Ok(elf) = decompress(&format!("a.ko{suffix}"), &[magic, &bytes].concat(), 1 << 16) {
            prop_assert!(elf.len() <= 1 << 16);
        }
    }

    #[test]
    fn a_module_with_altered_bytes_does_not_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = signed(module(MODINFO), 100, PKCS7);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = ModuleInfo::parse(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = ModuleInfo::parse(&bytes);
    }

    #[test]
    fn any_graph_is_ordered_or_refused(edges in proptest::collection::vec((0..12_u8, 0..12_u8), 0..30)) {
        let mut modules: BTreeMap<String, Vec<String>> = (0..12).map(|m| (format!("m{m}"), Vec::new())).collect();
        for (from, to) in &edges {
            modules.get_mut(&format!("m{from}")).unwrap().push(format!("m{to}"));
        }
        let order = load_order(&modules, modules.keys().map(String::as_str));
        match order {
            Ok(order) => {
                assert_order(&modules, &order);
                prop_assert_eq!(order.len(), 12);
            }
            Err(e) => prop_assert!(e.to_string().contains("circle")),
        }
        // Edges that only lead downwards cannot form a circle.
        modules.iter_mut().for_each(|(m, d)| d.retain(|d| (d.len(), d) < (m.len(), m)));
        let order = load_order(&modules, modules.keys().map(String::as_str)).unwrap();
        assert_order(&modules, &order);
    }

    #[test]
    fn text_that_is_no_modules_dep_does_not_panic(text in "\\PC{0,200}") {
        let _ = parse_modules_dep(&text);
    }
}

#[test]
fn a_chain_as_long_as_memory_allows_needs_no_stack() {
    let modules: BTreeMap<_, _> = (0..100_000)
        .map(|i| (format!("m{i}"), if i == 0 { vec![] } else { vec![format!("m{}", i - 1)] }))
        .collect();
    let order = load_order(&modules, ["m99999"]).unwrap();
    assert_eq!((order.len(), order[0]), (100_000, "m0"));
}
