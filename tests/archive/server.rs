//! A small HTTP/1.1 server on loopback that stands in for several origins, counts what it is asked for, and misbehaves on
//! request: the ways in which real mirrors and captive portals do.

use super::body::Body;
use super::date::Instant;
use super::repository::Tree;
use super::snapshots::History;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What stands behind a path prefix.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Files, all last changed at this time.
    Tree(Arc<Tree>, Instant),
    /// An archive with its snapshots.
    History(Arc<History>),
}

/// A way to misbehave.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, with a short text.
    Status(u16),
    /// 200 and a login page instead of the file.
    Html,
    /// No answer at all.
    Hang,
    /// The head and this many bytes, then nothing more, the connection open.
    Stall(u64),
    /// The head with the true length and this many bytes, then the connection is closed. Ranges work.
    CloseAfter(u64),
    /// The file is only this long, and the head says so: everything looks well.
    Truncate(u64),
    /// One byte is another.
    Alter(u64),
    /// Another URL.
    Redirect(String),
    /// The whole file, whatever range was asked for.
    IgnoreRange,
    /// At most this many bytes per second.
    Slow(u64),
}

#[derive(Debug)]
struct Rule {
    part: String,
    fault: Fault,
    left: Option<u32>,
}

/// One request, as it was answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: String,
    /// As asked, before unescaping.
    pub path: String,
    /// `Range`, where there was one.
    pub range: Option<String>,
    /// 0 while there is no answer.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub sent: u64,
}

#[derive(Debug, Default)]
struct State {
    origins: Mutex<Vec<(String, Origin)>>,
    rules: Mutex<Vec<Rule>>,
    requests: Mutex<Vec<Request>>,
    stop: AtomicBool,
}

/// The server; it stops when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

impl Server {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let state = shared.clone();
                // A client that goes away in the middle is no failure of the server.
                std::thread::spawn(move || drop(serve(&stream, &state)));
            }
        });
        Self { address, state }
    }

    /// `http://127.0.0.1:PORT` and a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Puts an origin behind a prefix such as `/ubuntu/`, in place of one that was there. The longest prefix wins.
    pub fn mount(&self, prefix: &str, origin: Origin) {
        assert!(prefix.starts_with('/') && prefix.ends_with('/'), "{prefix}: a prefix is a whole path");
        let mut origins = self.state.origins.lock().unwrap();
        origins.retain(|(old, _)| old != prefix);
        origins.push((prefix.to_owned(), origin));
        origins.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    }

    /// Mounts plain files.
    pub fn mount_tree(&self, prefix: &str, tree: Tree, date: Instant) {
        self.mount(prefix, Origin::Tree(Arc::new(tree), date));
    }

    /// Misbehaves for every path that contains `part`.
    pub fn fault(&self, part: &str, fault: Fault) {
        self.rule(part, fault, None);
    }

    /// Misbehaves for the next `times` requests whose path contains `part`.
    pub fn fault_times(&self, part: &str, fault: Fault, times: u32) {
        self.rule(part, fault, Some(times));
    }

    fn rule(&self, part: &str, fault: Fault, left: Option<u32>) {
        self.state.rules.lock().unwrap().push(Rule { part: part.to_owned(), fault, left });
    }

    /// Behaves again.
    pub fn heal(&self) {
        self.state.rules.lock().unwrap().clear();
    }

    /// Every request so far whose path contains `part`.
    pub fn requests(&self, part: &str) -> Vec<Request> {
        let requests = self.state.requests.lock().unwrap();
        requests.iter().filter(|request| request.path.contains(part)).cloned().collect()
    }

    /// Forgets them.
    pub fn forget_requests(&self) {
        self.state.requests.lock().unwrap().clear();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        // Wakes the accept loop; if this fails the thread ends with the process.
        drop(TcpStream::connect(self.address));
    }
}

/// Answers requests on one connection until either side has enough.
fn serve(stream: &TcpStream, state: &State) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.by_ref().take(16_384).read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let header = |name: &str| {
            lines.iter().skip(1).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let mut words = lines.first().map(String::as_str).unwrap_or_default().split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let index = {
            let mut requests = state.requests.lock().unwrap();
            let (method, path) = (method.to_owned(), path.to_owned());
            requests.push(Request { method, path, range: header("Range"), status: 0, sent: 0 });
            requests.len() - 1
        };
        let fault = take_fault(state, path);
        let answer = answer(state, method, path, &header, fault.as_ref());
        let Some(answer) = answer else {
            wait_for_the_end(stream, state);
            return Ok(());
        };
        if let Some(request) = state.requests.lock().unwrap().get_mut(index) {
            request.status = answer.status;
        }
        let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", answer.len));
        writer.write_all(head.as_bytes())?;

        let mut sent = 0;
        let mut wanted = if method == "HEAD" { 0 } else { answer.len };
        let (pace, stop_at) = match fault {
            Some(Fault::Slow(rate)) => (Some(rate.max(10)), None),
            Some(Fault::CloseAfter(len) | Fault::Stall(len)) => (None, Some(len.min(wanted))),
            _ => (None, None),
        };
        wanted = stop_at.unwrap_or(wanted);
        while sent < wanted {
            let piece = pace.map_or(1 << 20, |rate| rate / 10).min(wanted - sent);
            writer.write_all(&answer.body.read(answer.offset + sent, piece))?;
            sent += piece;
            if let Some(request) = state.requests.lock().unwrap().get_mut(index) {
                request.sent = sent;
            }
            if pace.is_some() {
                std::thread::sleep(Duration::from_millis(100));
            }
            if state.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        match fault {
            Some(Fault::CloseAfter(_)) if wanted < answer.len => return Ok(()),
            Some(Fault::Stall(_)) => {
                wait_for_the_end(stream, state);
                return Ok(());
            }
            _ => {}
        }
        if header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return Ok(());
        }
    }
}

/// Says nothing until the client leaves or the server stops.
fn wait_for_the_end(stream: &TcpStream, state: &State) {
    drop(stream.set_read_timeout(Some(Duration::from_millis(50))));
    let mut stream = stream;
    let mut buffer = [0; 512];
    while !state.stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

fn take_fault(state: &State, path: &str) -> Option<Fault> {
    let mut rules = state.rules.lock().unwrap();
    let rule = rules.iter_mut().find(|rule| path.contains(&rule.part) && rule.left != Some(0))?;
    if let Some(left) = &mut rule.left {
        *left -= 1;
    }
    Some(rule.fault.clone())
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Body,
    offset: u64,
    len: u64,
}

impl Answer {
    fn text(status: u16, text: &str) -> Self {
        let headers = vec![("Content-Type", "text/plain".to_owned())];
        Self { status, headers, body: text.into(), offset: 0, len: text.len() as u64 }
    }
}

/// What to answer; `None` is silence.
fn answer(
    state: &State,
    method: &str,
    path: &str,
    header: &dyn Fn(&str) -> Option<String>,
    fault: Option<&Fault>,
) -> Option<Answer> {
    if !matches!(method, "GET" | "HEAD") {
        return Some(Answer::text(405, "only GET and HEAD\n"));
    }
    match fault {
        Some(Fault::Hang) => return None,
        Some(Fault::Status(status)) => return Some(Answer::text(*status, "as asked\n")),
        Some(Fault::Html) => {
            let mut answer = Answer::text(200, "<!DOCTYPE html><html><body>Please log in.</body></html>\n");
            answer.headers = vec![("Content-Type", "text/html".to_owned())];
            return Some(answer);
        }
        Some(Fault::Redirect(url)) => {
            let mut answer = Answer::text(302, "elsewhere\n");
            answer.headers.push(("Location", url.clone()));
            return Some(answer);
        }
        _ => {}
    }
    let Some((mut body, date)) = find(state, &unescape(path)) else {
        return Some(Answer::text(404, "not found\n"));
    };
    match fault {
        Some(Fault::Truncate(len)) => body = body.truncated(*len),
        Some(Fault::Alter(at)) if *at < body.len() => body = body.altered(*at),
        _ => {}
    }
    let date = date.http();
    let mut headers = vec![
        ("Last-Modified", date.clone()),
        ("Accept-Ranges", "bytes".to_owned()),
        ("Content-Type", "application/octet-stream".to_owned()),
    ];
    if header("If-Modified-Since").as_ref() == Some(&date) {
        return Some(Answer { status: 304, headers, body, offset: 0, len: 0 });
    }
    let len = body.len();
    let current = header("If-Range").is_none_or(|value| value == date);
    let range = header("Range").filter(|_| current && !matches!(fault, Some(Fault::IgnoreRange)));
    match range.as_deref().and_then(|range| parse_range(range, len)) {
        Some(Some((first, last))) => {
            headers.push(("Content-Range", format!("bytes {first}-{last}/{len}")));
            Some(Answer { status: 206, headers, body, offset: first, len: last - first + 1 })
        }
        Some(None) => {
            headers.push(("Content-Range", format!("bytes */{len}")));
            Some(Answer { status: 416, headers, body, offset: 0, len: 0 })
        }
        None => Some(Answer { status: 200, headers, body, offset: 0, len }),
    }
}

/// One range of bytes: `None` if it is not understood, and so ignored; `Some(None)` if it lies outside.
fn parse_range(range: &str, len: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let suffix: u64 = last.parse().ok()?;
        return Some((suffix > 0 && len > 0).then(|| (len.saturating_sub(suffix), len - 1)));
    }
    let first: u64 = first.parse().ok()?;
    let last = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
    Some((first < len && first <= last).then(|| (first, last.min(len - 1))))
}

fn find(state: &State, path: &str) -> Option<(Body, Instant)> {
    let origins = state.origins.lock().unwrap();
    let (prefix, origin) = origins.iter().find(|(prefix, _)| path.starts_with(prefix.as_str()))?;
    // apt asks a flat repository for `./InRelease`.
    let rest = path[prefix.len()..].replace("/./", "/");
    let rest = rest.trim_start_matches("./").trim_start_matches('/');
    match origin {
        Origin::Tree(tree, date) => Some((tree.get(rest)?.clone(), *date)),
        Origin::History(history) => history.find(rest),
    }
}

/// Undoes `%2b` and its like.
fn unescape(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        302 => "Found",
        304 => "Not Modified",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Whatever",
    }
}
