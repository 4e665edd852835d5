//! Fetching one file by plain HTTP/1.1 (RFC 9112), from any byte on (RFC 9110, 14). There is no TLS here: whoever calls this
//! checks the hash of what came. Four header fields matter, and reading them here costs less than a crate that reads all.

use anyhow::{Context as _, Result, bail, ensure};
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// The longest head of an answer that is read, in bytes.
const HEAD_LIMIT: usize = 16 << 10;

/// A file on a server: `http://ADDRESS[:PORT]/PATH`. The server is named by its address: a static program has no resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    address: SocketAddrV4,
    host: String,
    path: String,
}

impl Url {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or("does not begin with http://")?;
        let (host, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/"),
        };
        let (name, port) = host.split_once(':').unwrap_or((host, "80"));
        let ip: Ipv4Addr =
            name.parse().map_err(|_| format!("names its server {name:?} and not by an IPv4 address"))?;
        let port: u16 = port.parse().map_err(|_| format!("has {port:?} for a port"))?;
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("has a character that must be written as %xx".into());
        }
        Ok(Self { address: SocketAddrV4::new(ip, port), host: host.to_owned(), path: path.to_owned() })
    }
}

/// The head of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// How many bytes follow, where that is said.
    pub length: Option<u64>,
    /// Of a part: its first byte and the length of the whole (`Content-Range: bytes FIRST-LAST/WHOLE`).
    pub part: Option<(u64, u64)>,
    /// The bytes come in some other form than as they are (`Transfer-Encoding`, `Content-Encoding`).
    pub is_encoded: bool,
}

impl Head {
    /// Reads a head and tells how long it was; `None` while it is not whole.
    ///
    /// # Errors
    /// It is no HTTP.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let answer = "reading the server's answer";
        let text = std::str::from_utf8(&bytes[..end]).context(answer)?;
        let mut lines = text.split("\r\n");
        // HTTP/1.1 200 OK
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
        let mut head = Self { status: status.context("it is no HTTP/1").context(answer)?, ..Self::default() };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.length = Some(value.parse().context("reading Content-Length")?);
            } else if name.eq_ignore_ascii_case("content-range") {
                head.part = part(value);
            } else if name.eq_ignore_ascii_case("transfer-encoding")
                || name.eq_ignore_ascii_case("content-encoding")
            {
                head.is_encoded |= !value.eq_ignore_ascii_case("identity");
            }
        }
        Ok(Some((head, end + 4)))
    }

    /// Where the bytes that follow stand in a file of `size` bytes that was asked for from `from` on.
    ///
    /// # Errors
    /// The file has another size, or this is not the file.
    fn start(&self, from: u64, size: u64) -> Result<u64> {
        ensure!(
            !self.is_encoded,
            "the server sends it encoded, and it must come as it is: switch compression and chunks off"
        );
        let (start, whole) = match (self.status, self.part, self.length) {
            (206, Some(part), _) => part,
            // Servers that know no parts send the whole again.
            (200, _, Some(length)) => (0, length),
            (200, _, None) => bail!("the server does not say how long it is"),
            (status, ..) => bail!("the server answered {status}"),
        };
        ensure!(whole == size, "the server's file has {whole} bytes, and the image's root {size}");
        ensure!(
            start == 0 || start == from,
            "the server sent from byte {start} on, and was asked from {from}"
        );
        Ok(start)
    }
}

fn part(value: &str) -> Option<(u64, u64)> {
    let (range, whole) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, whole.trim().parse().ok()?))
}

/// How long a fetch may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long the server may be silent.
    pub silence: Duration,
    /// When it is over, however much comes; the last silence may end later.
    pub deadline: Instant,
}

/// Asks for a file of `size` bytes from byte `from` on and gives what comes to `take`, each piece with its place. Ends when
/// the connection does or all is there; whether it is all is for the caller to see.
///
/// # Errors
/// No connection; an answer that is not that file; too long a silence; the end of time; what `take` says.
pub fn fetch(
    url: &Url,
    from: u64,
    size: u64,
    limits: Limits,
    take: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let connecting = || format!("connecting to {}", url.address);
    // Nothing waits for no time at all.
    let left = limits.deadline.saturating_duration_since(Instant::now());
    let patience = limits.silence.min(left).max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&url.address.into(), patience).with_context(connecting)?;
    stream.set_read_timeout(Some(patience)).with_context(connecting)?;
    stream.set_write_timeout(Some(patience)).with_context(connecting)?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: gdsboot/{}\r\nRange: bytes={from}-\r\nAccept-Encoding: identity\r\n\
         Connection: close\r\n\r\n",
        url.path,
        url.host,
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes()).context("asking the server")?;
    receive(&mut InTime(stream, limits.deadline), from, size, take)
}

fn receive(
    stream: &mut dyn Read,
    from: u64,
    size: u64,
    take: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut filled = 0;
    let (head, end) = loop {
        let count =
            stream.read(&mut buffer[filled..HEAD_LIMIT]).context("waiting for the server's answer")?;
        filled += count;
        match Head::parse(&buffer[..filled])? {
            Some(found) => break found,
            None if count == 0 => bail!("the server closed the connection before it had answered"),
            None => {}
        }
    };
    let mut at = head.start(from, size)?;
    let mut piece = end..filled;
    loop {
        let bytes = &buffer[piece];
        let room = usize::try_from(size - at).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        take(at, bytes)?;
        at += bytes.len() as u64;
        if at == size {
            return Ok(());
        }
        let count = stream.read(&mut buffer).with_context(|| format!("reading at byte {at}"))?;
        if count == 0 {
            return Ok(());
        }
        piece = 0..count;
    }
}

/// What can be read until then. A server that sends a byte now and then is never silent.
struct InTime<R>(R, Instant);

impl<R: Read> Read for InTime<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if Instant::now() >= self.1 {
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "time is up"));
        }
        self.0.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls() {
        let url = Url::parse("http://10.0.2.2:8080/gdsboot/root.squashfs").unwrap();
        assert_eq!(url.address.to_string(), "10.0.2.2:8080");
        assert_eq!((url.host.as_str(), url.path.as_str()), ("10.0.2.2:8080", "/gdsboot/root.squashfs"));
        let url = Url::parse("http://10.0.2.2").unwrap();
        assert_eq!((url.address.port(), url.path.as_str()), (80, "/"));
        for (bad, why) in [
            ("tftp://10.0.2.2/x", "does not begin with http://"),
            ("https://10.0.2.2/x", "does not begin with http://"),
            ("http://boot.example/x", "names its server \"boot.example\""),
            ("http://10.0.2.2:x/x", "for a port"),
            ("http://10.0.2.2/a b", "%xx"),
        ] {
            let error = Url::parse(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    fn received(answer: &[u8], from: u64, size: u64) -> Result<Vec<u8>> {
        let mut got = vec![b'.'; usize::try_from(size).unwrap()];
        let mut stream = answer;
        receive(&mut stream, from, size, &mut |at, bytes| {
            let at = usize::try_from(at).unwrap();
            got[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        })?;
        Ok(got)
    }

    #[test]
    fn whole_files_and_parts() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdefX";
        assert_eq!(received(whole, 0, 6).unwrap(), b"abcdef");
        // A server that knows no parts begins again.
        assert_eq!(received(whole, 3, 6).unwrap(), b"abcdef");
        let part =
            b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 3-5/6\r\ncontent-length: 3\r\n\r\ndef";
        assert_eq!(received(part, 3, 6).unwrap(), b"...def");
        let short = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc";
        assert_eq!(received(short, 0, 6).unwrap(), b"abc...");
    }

    /// Gives a byte at a time, and lets time pass.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            std::thread::sleep(Duration::from_millis(1));
            self.0.read(&mut buffer[..1])
        }
    }

    #[test]
    fn a_server_that_is_never_silent_and_never_done_is_left_in_time() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec();
        let body = [head.clone(), vec![b'x'; 100_000]].concat();
        let endless = b"a: b\r\n".repeat(2000);
        for (answer, milliseconds, why) in
            [(&body[..], 200, "reading at byte"), (&endless, 20, "waiting for the server's answer")]
        {
            let begun = Instant::now();
            let deadline = begun + Duration::from_millis(milliseconds);
            let error =
                receive(&mut InTime(Slow(answer), deadline), 0, 100_000, &mut |_, _| Ok(())).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.starts_with(why) && error.ends_with("time is up"), "{error}");
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
    }

    #[test]
    fn answers_that_are_not_the_file() {
        for (answer, why) in [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "the server answered 404"),
            ("HTTP/1.1 301 Moved\r\nLocation: x\r\n\r\n", "the server answered 301"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
                "the server's file has 5 bytes, and the image's root 6",
            ),
            ("HTTP/1.1 200 OK\r\n\r\nabcdef", "does not say how long it is"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef", "encoded"),
            (
                "HTTP/1.1 206 P\r\nContent-Range: bytes 2-5/6\r\n\r\ncdef",
                "from byte 2 on, and was asked from 3",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "reading Content-Length"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "reading the server's answer"),
            ("HTTP/1.1 200 OK\r\n", "closed the connection"),
            ("", "closed the connection"),
        ] {
            let error = format!("{:#}", received(answer.as_bytes(), 3, 6).unwrap_err());
            assert!(error.contains(why), "{answer}: {error}");
        }
        let endless = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".repeat(10_000)].concat();
        assert!(received(&endless, 0, 6).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), from in 0u64..8, text in ".{0,60}") {
            let _ = received(&bytes, from, 8);
            let with_head = [b"HTTP/1.1 206 OK\r\nContent-Range: bytes ".to_vec(), bytes].concat();
            let _ = received(&with_head, from, 8);
            let _ = Url::parse(&text);
        }
    }
}
