//! The root from the network: fetched into memory, and attached as a disk like any other. Its hash is checked where that of
//! every root is, before it is used.

use super::memory_disk;
use super::network::{self, Plan};
use super::partition::Partition;
use crate::error::{hinted, one_line};
use crate::facts::Root;
use crate::facts::memory::Memory;
use crate::http::{self, Limits, Url};
use crate::redact;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// How long the network may take to come up.
const NETWORK: Duration = Duration::from_secs(60);
/// How long the server may be silent.
const SILENCE: Duration = Duration::from_secs(15);
/// How long all of it may take: 200 MB at 3 Mbit/s.
const LONGEST: Duration = Duration::from_secs(600);
/// How often it is tried without a byte coming.
const TRIES: u32 = 6;
/// The wait after the first try in vain; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// What the run itself needs besides its root, in bytes.
const RESERVE: u64 = 512 << 20;
const MIB: u64 = 1 << 20;

/// Brings the network up, fetches `size` bytes from `url` and makes a disk of them. The network is stopped again, so that it
/// disturbs nothing.
///
/// # Errors
/// What is missing, and who can mend it.
pub fn fetch(root: &Root, url: &str, size: u64, net: &Plan, say: &mut dyn FnMut(&str)) -> Result<Partition> {
    let shown = redact::url(url);
    let target = Url::parse(url).map_err(|why| {
        hinted(
            format!("gdsboot.root_url = {shown:?} {}", redact::url(&why)),
            "whoever set up netboot: chain boot.ipxe by http:// and the server's address (docs/network.md)",
        )
    })?;
    let Plan::Static(interface, address) = net else {
        return Err(hinted(
            "gdsboot.net names no address, and a root from the network needs one",
            "whoever set up netboot: use the boot.ipxe of the build, which passes the address that iPXE has",
        ));
    };
    let memory = Memory::read(root);
    let room = memory.value().and_then(|memory| memory.available).unwrap_or(u64::MAX);
    let needed = size.saturating_add(RESERVE);
    if room < needed {
        let [has, needs] = [room, needed].map(|bytes| bytes.div_ceil(MIB));
        return Err(hinted(
            format!("the root needs {needs} MiB of free memory, and there are {has} MiB"),
            "hypervisor: give the guest more memory; on a small machine boot from a stick",
        ));
    }
    let card = network::find(root, interface, Instant::now() + NETWORK)?;
    network::apply(&card, address, say)?;
    let file = memory_disk::file()?;
    file.set_len(size).context("sizing the file for the root")?;
    let limits = Limits { silence: SILENCE, deadline: Instant::now() + LONGEST };
    let mut source = |from: u64, take: &mut dyn FnMut(u64, &[u8]) -> Result<()>| {
        http::fetch(&target, from, size, limits, take)
    };
    let done = fill(&file, size, limits.deadline, &mut source, std::thread::sleep, say);
    // A link that stays up would go on interrupting while transfers are measured.
    let stopped = card.down();
    done.with_context(|| format!("fetching {shown}"))?;
    tell_of(stopped, say);
    memory_disk::attach(&file)
}

/// A root that was fetched is used whatever became of stopping the network.
fn tell_of(stopped: Result<()>, say: &mut dyn FnMut(&str)) {
    if let Err(error) = stopped {
        say(&format!("network: {}; it may disturb what is measured", one_line(&error)));
    }
}

/// Gets bytes from some place on and gives them to another.
type Source<'a> = dyn FnMut(u64, &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> + 'a;

/// Fills the file, going on where a connection broke off.
fn fill(
    file: &File,
    size: u64,
    deadline: Instant,
    source: &mut Source<'_>,
    mut sleep: impl FnMut(Duration),
    say: &mut dyn FnMut(&str),
) -> Result<()> {
    let (mut done, mut in_vain, mut shown) = (0, 0, 0);
    loop {
        let before = done;
        let result = source(done, &mut |at, bytes| {
            file.write_all_at(bytes, at).context("keeping the root in memory")?;
            done = at + bytes.len() as u64;
            let percent = done.saturating_mul(100) / size;
            if percent >= shown + 20 {
                shown = percent;
                say(&format!("fetching the root: {percent} %"));
            }
            Ok(())
        });
        if done == size && result.is_ok() {
            return Ok(());
        }
        let why = result
            .err()
            .map_or_else(|| format!("the connection ended after {done} of {size} bytes"), |e| one_line(&e));
        in_vain = if done > before { 0 } else { in_vain + 1 };
        if in_vain >= TRIES || Instant::now() >= deadline {
            return Err(hinted(
                why,
                "whoever set up netboot: the server must run and have root.squashfs of the same build beside boot.ipxe (sha256sum -c SHA256SUMS)",
            ));
        }
        say(&format!("fetching the root: {why}; trying again"));
        sleep(FIRST_PAUSE * 2_u32.pow(in_vain.saturating_sub(1).min(4)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    fn filled(pieces: &[Result<(u64, &[u8]), &str>]) -> (Result<Vec<u8>>, Vec<u64>) {
        filled_in(LONGEST, pieces)
    }

    fn filled_in(longest: Duration, pieces: &[Result<(u64, &[u8]), &str>]) -> (Result<Vec<u8>>, Vec<u64>) {
        let file = memory_disk::file().unwrap();
        file.set_len(8).unwrap();
        let mut pieces = pieces.iter();
        let mut asked = Vec::new();
        let mut source = |from: u64, take: &mut dyn FnMut(u64, &[u8]) -> Result<()>| {
            asked.push(from);
            match pieces.next() {
                Some(Ok((at, bytes))) => take(*at, bytes),
                Some(Err(why)) => bail!("{why}"),
                None => bail!("nobody there"),
            }
        };
        let result = fill(&file, 8, Instant::now() + longest, &mut source, |_| {}, &mut |_| {});
        let mut got = vec![0; 8];
        file.read_exact_at(&mut got, 0).unwrap();
        (result.map(|()| got), asked)
    }

    #[test]
    fn a_broken_connection_is_gone_on_with() {
        let (got, asked) = filled(&[Ok((0, b"abc")), Err("reset"), Ok((3, b"de")), Ok((5, b"fgh"))]);
        assert_eq!((got.unwrap().as_slice(), asked), (&b"abcdefgh"[..], vec![0, 3, 3, 5]));
        // From the beginning, where the server knows no parts.
        let (got, asked) = filled(&[Ok((0, b"abcdef")), Ok((0, b"ABCDEFGH"))]);
        assert_eq!((got.unwrap().as_slice(), asked), (&b"ABCDEFGH"[..], vec![0, 6]));
    }

    #[test]
    fn it_ends_where_nothing_comes() {
        let (got, asked) = filled(&[Ok((0, b"abc"))]);
        let error = got.unwrap_err();
        assert_eq!(asked.len(), 1 + TRIES as usize);
        assert_eq!(error.to_string(), "nobody there");
        assert!(crate::error::hint_of(&error).unwrap().contains("whoever set up netboot"));
    }

    #[test]
    fn it_ends_when_time_is_up_though_bytes_come() {
        let (got, asked) = filled_in(Duration::ZERO, &[Ok((0, b"abc")), Ok((3, b"defgh"))]);
        assert_eq!(
            (got.unwrap_err().to_string().as_str(), asked.len()),
            ("the connection ended after 3 of 8 bytes", 1)
        );
    }

    #[test]
    fn a_link_that_cannot_be_stopped_is_told() {
        let mut said = Vec::new();
        tell_of(Ok(()), &mut |text| said.push(text.to_owned()));
        tell_of(Err(anyhow::anyhow!("no")), &mut |text| said.push(text.to_owned()));
        assert_eq!(said, ["network: no; it may disturb what is measured"]);
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_is_done() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(dir.path().join("proc")).unwrap();
        fs_err::write(dir.path().join("proc/meminfo"), "MemTotal: 1000000 kB\nMemAvailable: 600000 kB\n")
            .unwrap();
        let root = Root::at(dir.path());
        let net = Plan::parse("any,10.0.2.15/24").unwrap();
        let sized = |url: &str, size: u64, net: &Plan| {
            fetch(&root, url, size, net, &mut |_| {}).unwrap_err().to_string()
        };
        let error = |url: &str, net: &Plan| sized(url, 200 << 20, net);
        assert!(error("tftp://10.0.2.2/x", &net).contains("does not begin with http://"));
        assert!(error("http://10.0.2.2/x", &Plan::Dhcp).contains("names no address"));
        assert_eq!(
            error("http://10.0.2.2/x", &net),
            "the root needs 712 MiB of free memory, and there are 586 MiB"
        );
        // Whoever sets up netboot may mistype a size, and put a password into the URL.
        assert!(sized("http://10.0.2.2/x", u64::MAX, &net).starts_with("the root needs 17592186044416 MiB"));
        assert!(!error("http://word@10.0.2.2/x", &net).contains("word"));
        assert_eq!(
            error("http://me:word@10.0.2.2/x?word", &net),
            "gdsboot.root_url = \"http://REDACTED@10.0.2.2/x?REDACTED\" names its server \"me\" and not by an IPv4 address"
        );
    }
}
