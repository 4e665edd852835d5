//! Small files with the right insides: kernel modules, loaders and kernels that a builder can look into but nobody can
//! run.

/// What goes into a kernel module.
#[derive(Clone, Debug, Default)]
pub struct Module<'a> {
    /// As `lsmod` has it, with underscores.
    pub name: &'a str,
    /// `.modinfo`: further entries, such as `version=2.28.2`.
    pub info: &'a [&'a str],
    /// The kernel it is for: `uname -r`.
    pub kernel: &'a str,
    /// Modules whose symbols it uses.
    pub depends: &'a [&'a str],
    /// Symbols that it takes from others.
    pub imports: &'a [&'a str],
    /// Symbols that it gives to others.
    pub exports: &'a [&'a str],
}

impl Module<'_> {
    /// The module as an ELF file: `.modinfo`, and the symbols by which depmod finds dependencies.
    pub fn bytes(&self) -> Vec<u8> {
        let mut modinfo = Vec::new();
        let mut entry = |text: String| {
            modinfo.extend_from_slice(text.as_bytes());
            modinfo.push(0);
        };
        self.info.iter().for_each(|text| entry((*text).to_owned()));
        entry("license=GPL".into());
        entry(format!("depends={}", self.depends.join(",")));
        entry("retpoline=Y".into());
        entry(format!("name={}", self.name));
        entry(format!("vermagic={} SMP preempt mod_unload modversions ", self.kernel));

        let mut exports = Vec::new();
        let mut names = vec![0];
        let mut symbols = vec![0; 24];
        let mut symbol = |name: &str, section: u16| {
            symbols.extend_from_slice(&(names.len() as u32).to_le_bytes());
            // STB_GLOBAL, STT_NOTYPE, visible.
            symbols.extend_from_slice(&[0x10, 0]);
            symbols.extend_from_slice(&section.to_le_bytes());
            symbols.extend_from_slice(&[0; 16]);
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        };
        for name in self.exports {
            exports.extend_from_slice(name.as_bytes());
            exports.push(0);
            symbol(name, 1);
        }
        self.imports.iter().for_each(|name| symbol(name, 0));
        // Section 1 is .modinfo; the order below is the section's number.
        elf(&[
            Section { name: ".modinfo", kind: 1, bytes: &modinfo, link: 0, info: 0, entry: 0 },
            Section { name: "__ksymtab_strings", kind: 1, bytes: &exports, link: 0, info: 0, entry: 0 },
            Section { name: ".symtab", kind: 2, bytes: &symbols, link: 4, info: 1, entry: 24 },
            Section { name: ".strtab", kind: 3, bytes: &names, link: 0, info: 0, entry: 0 },
        ])
    }
}

struct Section<'a> {
    name: &'a str,
    kind: u32,
    bytes: &'a [u8],
    link: u32,
    info: u32,
    entry: u64,
}

/// A relocatable x86-64 ELF file of these sections, numbered from 1, and the table of their names behind them.
fn elf(sections: &[Section<'_>]) -> Vec<u8> {
    let mut names = vec![0];
    let mut headers = vec![0; 64];
    let mut out = vec![0; 64];
    let mut header = |out: &mut Vec<u8>, names: &mut Vec<u8>, section: &Section<'_>, own_name: bool| {
        out.resize(out.len().next_multiple_of(8), 0);
        headers.extend_from_slice(&(names.len() as u32).to_le_bytes());
        names.extend_from_slice(section.name.as_bytes());
        names.push(0);
        let bytes = if own_name { names.clone() } else { section.bytes.to_vec() };
        headers.extend_from_slice(&section.kind.to_le_bytes());
        // flags, address, offset, size, link and info, alignment, size of an entry
        for word in [
            0,
            0,
            out.len() as u64,
            bytes.len() as u64,
            u64::from(section.link) | u64::from(section.info) << 32,
            8,
            section.entry,
        ] {
            headers.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&bytes);
    };
    for section in sections {
        header(&mut out, &mut names, section, false);
    }
    let last = Section { name: ".shstrtab", kind: 3, bytes: &[], link: 0, info: 0, entry: 0 };
    header(&mut out, &mut names, &last, true);
    out.resize(out.len().next_multiple_of(8), 0);
    let table = out.len() as u64;
    out.extend_from_slice(&headers);

    let count = sections.len() as u16 + 2;
    out[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    out[16..20].copy_from_slice(&[1, 0, 62, 0]);
    out[20] = 1;
    out[40..48].copy_from_slice(&table.to_le_bytes());
    out[52..54].copy_from_slice(&64u16.to_le_bytes());
    out[58..60].copy_from_slice(&64u16.to_le_bytes());
    out[60..62].copy_from_slice(&count.to_le_bytes());
    out[62..64].copy_from_slice(&(count - 1).to_le_bytes());
    out
}

/// Appends a signature to a module in the kernel's form (`module || PKCS#7 || struct module_signature || marker`).
///
/// The PKCS#7 message is well-formed and by a signer that no kernel knows, so a kernel that does not enforce signatures
/// loads the module and is tainted (`ENOKEY`); a message that it could not parse would be refused (`EBADMSG`).
pub fn sign_module(module: &[u8]) -> Vec<u8> {
    const SHA512: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03];
    const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    const DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
    const SIGNED_DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    const COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 0x04, 0x03];
    let der = |tag: u8, parts: &[&[u8]]| {
        let body = parts.concat();
        let mut out = vec![tag];
        match body.len() {
            short @ 0..128 => out.push(short as u8),
            long => {
                out.push(0x82);
                out.extend_from_slice(&(long as u16).to_be_bytes());
            }
        }
        out.extend_from_slice(&body);
        out
    };
    let (sequence, set) = (0x30, 0x31);
    let null: &[u8] = &[0x05, 0];
    let version: &[u8] = &[0x02, 1, 1];
    let digest = der(sequence, &[SHA512, null]);
    let name = der(0x0c, &[b"Test Archive Kernel Module Signing"]);
    let issuer = der(sequence, &[&der(set, &[&der(sequence, &[COMMON_NAME, &name])])]);
    let signer = der(
        sequence,
        &[
            version,
            &der(sequence, &[&issuer, &[0x02, 4, 0x47, 0x44, 0x53, 0x42]]),
            &digest,
            &der(sequence, &[RSA, null]),
            &der(0x04, &[&[0x5a; 512]]),
        ],
    );
    let signed =
        der(sequence, &[version, &der(set, &[&digest]), &der(sequence, &[DATA]), &der(set, &[&signer])]);
    let message = der(sequence, &[SIGNED_DATA, &der(0xa0, &[&signed])]);
    let mut out = [module, &message].concat();
    // struct module_signature: algo, hash, id_type = PKEY_ID_PKCS7, lengths that PKCS#7 does not use, padding, length.
    out.extend_from_slice(&[0, 0, 2, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(b"~Module signature appended~\n");
    out
}

/// A PE image with a `.sbat` section of these lines, after the one that every SBAT begins with.
pub fn loader(sbat: &[&str]) -> Vec<u8> {
    let mut text =
        String::from("sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n");
    sbat.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    let mut out = vec![0; 0x400];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x80u32.to_le_bytes());
    put(0x80, b"PE\0\0");
    // x86-64, one section, an optional header of 240 bytes.
    put(0x84, &[0x64, 0x86, 1, 0]);
    put(0x94, &[0xf0, 0, 0x22, 0]);
    put(0x98, &[0x0b, 2]);
    let section = 0x98 + 0xf0;
    put(section, b".sbat\0\0\0");
    put(section + 8, &(text.len() as u32).to_le_bytes());
    put(section + 12, &0x1000u32.to_le_bytes());
    put(section + 16, &(text.len().next_multiple_of(512) as u32).to_le_bytes());
    put(section + 20, &0x400u32.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

/// The head of a bzImage, with the version that its boot protocol points to.
pub fn kernel(release: &str) -> Vec<u8> {
    let mut out = vec![0; 0x1000];
    let version = format!("{release} (buildd@test) #1 SMP PREEMPT_DYNAMIC\0");
    out[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    out[0x202..0x206].copy_from_slice(b"HdrS");
    out[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    out[0x20e..0x210].copy_from_slice(&0x400u16.to_le_bytes());
    out[0x600..0x600 + version.len()].copy_from_slice(version.as_bytes());
    out
}
