//! The pool: every downloaded file under its own SHA-256. What lies in it was verified before it got its name.
//!
//! A file is fetched from the first source that has it; an interrupted download is taken up again where it ended.
//! Several gdsboots may share a pool: each file is written by whoever holds its lock.

use super::lock::{Lock, Package};
use super::resolve::Mirrors;
use crate::error::{Advise as _, hinted};
use crate::interrupt;
use crate::progress::{Progress, Stage, Unit, bytes};
use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// Downloads that run at the same time.
const PARALLEL: usize = 6;
/// Attempts per URL; between two of them the pause doubles.
const ATTEMPTS: u32 = 3;

/// A content-addressed store.
#[derive(Clone, Debug)]
pub struct Pool {
    folder: PathBuf,
    offline: bool,
}

/// Something to fetch.
#[derive(Clone, Debug)]
struct Wanted {
    what: String,
    urls: Vec<String>,
    sha256: String,
    size: Option<u64>,
}

impl Pool {
    /// A pool in a folder, which is made if it does not exist. An offline pool never touches the network.
    pub fn open(folder: &Path, offline: bool) -> Result<Self> {
        fs_err::create_dir_all(folder.join("partial"))?;
        Ok(Self { folder: folder.to_owned(), offline })
    }

    /// Where the file with this hash is, or would be.
    pub fn path(&self, sha256: &str) -> PathBuf {
        let head = sha256.get(..2).unwrap_or("xx");
        self.folder.join(head).join(sha256)
    }

    /// Is the file there?
    pub fn has(&self, sha256: &str) -> bool {
        self.path(sha256).exists()
    }

    /// The packages of some sets that are not in the pool.
    pub fn missing<'a>(&self, lock: &'a Lock, sets: &'a [String]) -> Vec<&'a Package> {
        lock.packages(sets).filter(|p| !self.has(&p.sha256)).collect()
    }

    /// Fetches what is missing of some sets.
    ///
    /// # Errors
    /// Offline and something is missing; a version that the archive no longer has; content that is not what the lock
    /// says.
    pub fn fetch(&self, lock: &Lock, sets: &[String], mirrors: &Mirrors, progress: &Progress) -> Result<()> {
        let missing = self.missing(lock, sets);
        if missing.is_empty() {
            return Ok(());
        }
        let total: u64 = missing.iter().map(|p| p.size).sum();
        if self.offline {
            let names: Vec<_> = missing.iter().take(5).map(|p| p.name.as_str()).collect();
            let more = if missing.len() > names.len() { ", ..." } else { "" };
            return Err(hinted(
                format!(
                    "{} packages ({}) are not in the pool and --offline forbids fetching them: {}{more}",
                    missing.len(),
                    bytes(total),
                    names.join(", ")
                ),
                format!("on a machine with a network: gdsboot fetch {}", lock.profile),
            ));
        }
        super::space::require(&self.folder, total, "downloading packages")?;
        let stage = progress.stage("downloading packages", total, Unit::Bytes);
        let mut queue: Vec<Wanted> = missing
            .iter()
            .map(|p| Wanted {
                what: format!("{} {}", p.name, p.version),
                urls: mirrors
                    .get(&p.source)
                    .map(|urls| urls.iter().map(|u| format!("{u}/{}", encode_path(&p.path))).collect())
                    .unwrap_or_default(),
                sha256: p.sha256.clone(),
                size: Some(p.size),
            })
            .collect();
        // The largest first: the last to finish decides.
        queue.sort_by_key(|w| std::cmp::Reverse(w.size));
        let queue = Mutex::new(VecDeque::from(queue));
        let failure: Mutex<Option<anyhow::Error>> = Mutex::new(None);
        let agent = agent();
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().ok().and_then(|mut q| q.pop_front());
                        let Some(wanted) = next else { return };
                        if let Err(error) = self.get(&agent, &wanted, Some(&stage)) {
                            if let (Ok(mut queue), Ok(mut failure)) = (queue.lock(), failure.lock()) {
                                queue.clear();
                                failure.get_or_insert(error);
                            }
                            return;
                        }
                    }
                });
            }
        });
        match failure.into_inner().ok().flatten() {
            None => Ok(()),
            Some(error) => Err(error).hint(format!(
                "if the version is gone from its archive: gdsboot lock --update {}",
                lock.profile
            )),
        }
    }

    /// Fetches one file whose hash is known.
    pub fn fetch_url(&self, url: &str, sha256: &str) -> Result<PathBuf> {
        if !self.has(sha256) {
            ensure!(!self.offline, "{url} is not in the pool and --offline forbids fetching it");
            let wanted = Wanted {
                what: url.to_owned(),
                urls: vec![url.to_owned()],
                sha256: sha256.to_owned(),
                size: None,
            };
            self.get(&agent(), &wanted, None)?;
        }
        Ok(self.path(sha256))
    }

    fn get(&self, agent: &ureq::Agent, wanted: &Wanted, stage: Option<&Stage>) -> Result<()> {
        let path = self.path(&wanted.sha256);
        let partial = self.folder.join("partial").join(&wanted.sha256);
        let file = fs_err::OpenOptions::new().create(true).read(true).append(true).open(&partial)?;
        let file = nix::fcntl::Flock::lock(file.into_file(), nix::fcntl::FlockArg::LockExclusive)
            .map_err(|(_, e)| e)
            .with_context(|| format!("locking {}", partial.display()))?;
        if path.exists() {
            // Somebody else fetched it while we waited. His partial file is gone; ours was made anew.
            let _ = fs_err::remove_file(&partial);
            return Ok(());
        }
        ensure!(!wanted.urls.is_empty(), "no mirror is known for {}", wanted.what);
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            for url in &wanted.urls {
                interrupt::check()?;
                match self.try_url(agent, url, wanted, &file, stage) {
                    Ok(()) => {
                        file.sync_all().with_context(|| format!("writing {}", partial.display()))?;
                        if let Some(parent) = path.parent() {
                            fs_err::create_dir_all(parent)?;
                        }
                        return Ok(fs_err::rename(&partial, &path)?);
                    }
                    Err(Failure::Final(error)) => last = Some((true, error)),
                    Err(Failure::Passing(error)) => last = Some((false, error)),
                }
            }
            if last.as_ref().is_some_and(|(is_final, _)| *is_final) {
                break;
            }
            std::thread::sleep(Duration::from_millis(500 << attempt));
        }
        let error = last.map_or_else(|| anyhow::anyhow!("nothing was tried"), |(_, e)| e);
        Err(error).with_context(|| format!("fetching {}", wanted.what))
    }

    fn try_url(
        &self,
        agent: &ureq::Agent,
        url: &str,
        wanted: &Wanted,
        file: &std::fs::File,
        stage: Option<&Stage>,
    ) -> std::result::Result<(), Failure> {
        let passing =
            |e: anyhow::Error| Failure::Passing(e.context(format!("downloading {}", safe_url(url))));
        let have = file.metadata().map_err(|e| passing(e.into()))?.len();
        let mut request = agent.get(url);
        if have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(ureq::Error::StatusCode(416)) => {
                // What we have is not the beginning of what they have.
                file.set_len(0).map_err(|e| passing(e.into()))?;
                return Err(passing(anyhow::anyhow!("the server cannot continue the download")));
            }
            Err(ureq::Error::StatusCode(code @ (404 | 410))) => {
                return Err(Failure::Final(anyhow::anyhow!("{} is gone (HTTP {code})", safe_url(url))));
            }
            Err(error) => return Err(passing(error.into())),
        };
        let resumed = response.status() == 206;
        if !resumed && have > 0 {
            file.set_len(0).map_err(|e| passing(e.into()))?;
        }
        let is_html = response
            .headers()
            .get("content-type")
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.starts_with("text/html"));
        let mut total = if resumed { have } else { 0 };
        if let Some(stage) = stage {
            stage.advance(total);
            stage.message(wanted.what.clone());
        }
        let limit = wanted.size.unwrap_or(1 << 30);
        let mut reader = response.body_mut().with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 128 * 1024];
        let mut out = file;
        loop {
            interrupt::check().map_err(Failure::Final)?;
            let n = reader.read(&mut buffer).map_err(|e| passing(e.into()))?;
            if n == 0 {
                break;
            }
            total += n as u64;
            if total > limit {
                break;
            }
            out.write_all(&buffer[..n]).with_context(|| "writing into the pool").map_err(Failure::Final)?;
            if let Some(stage) = stage {
                stage.advance(n as u64);
            }
        }
        if wanted.size.is_some_and(|size| total < size) && !is_html {
            return Err(passing(anyhow::anyhow!("the connection ended after {total} bytes")));
        }
        let got = hash_of(file).map_err(Failure::Final)?;
        if got == wanted.sha256 && total <= limit {
            return Ok(());
        }
        file.set_len(0).map_err(|e| passing(e.into()))?;
        let url = safe_url(url);
        Err(Failure::Final(if is_html {
            hinted(
                format!("{url} answered with a web page instead of a package"),
                "a proxy or a login page may be in between; or name another mirror: --mirror NAME=URL",
            )
        } else {
            hinted(
                format!(
                    "{url} has not the content that the lock names (SHA-256 {got}, wanted {})",
                    wanted.sha256
                ),
                "the mirror was altered or is damaged: name another, --mirror NAME=URL",
            )
        }))
    }

    /// Checks every file of the pool against its name, removes those that fail, and returns their names.
    pub fn verify(&self) -> Result<Vec<String>> {
        let mut bad = Vec::new();
        for folder in fs_err::read_dir(&self.folder)? {
            let folder = folder?;
            if folder.file_name() == "partial" || !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs_err::read_dir(folder.path())? {
                interrupt::check()?;
                let file = file?;
                let name = file.file_name().to_string_lossy().into_owned();
                if hash_of(fs_err::File::open(file.path())?.file())? != name {
                    fs_err::remove_file(file.path())?;
                    bad.push(name);
                }
            }
        }
        Ok(bad)
    }
}

enum Failure {
    /// Trying the same URL again may help.
    Passing(anyhow::Error),
    /// It will not.
    Final(anyhow::Error),
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(30)))
        .timeout_recv_body(Some(Duration::from_secs(600)))
        .user_agent(concat!("gdsboot/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// SHA-256 of a file from its beginning, hex.
pub fn hash_of(file: &std::fs::File) -> Result<String> {
    let mut file = std::fs::File::from(file.as_fd().try_clone_to_owned().context("hashing a file")?);
    file.seek(std::io::SeekFrom::Start(0)).context("hashing a file")?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer).context("hashing a file")? {
            0 => return Ok(hex::encode(hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// A URL for messages: without credentials.
fn safe_url(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (_, host) = authority.rsplit_once('@')?;
        Some(format!("{scheme}://{host}/{path}"))
    }) {
        Some(clean) => clean,
        None => url.to_owned(),
    }
}

/// Escapes what may not stand in a URL's path; `+` is escaped as apt does, because some servers take it for a blank.
fn encode_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_escaped_and_shown_without_passwords() {
        assert_eq!(encode_path("pool/a+b_1%3a2~x.deb"), "pool/a%2Bb_1%253a2~x.deb");
        assert_eq!(safe_url("http://u:secret@m.invalid/x"), "http://m.invalid/x");
        assert_eq!(safe_url("http://m.invalid/x@y"), "http://m.invalid/x@y");
    }

    #[test]
    fn verify_removes_what_was_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool::open(dir.path(), true).unwrap();
        let good = hex::encode(Sha256::digest(b"good"));
        for (name, content) in [(good.as_str(), "good"), (&"0".repeat(64), "bad")] {
            fs_err::create_dir_all(pool.path(name).parent().unwrap()).unwrap();
            fs_err::write(pool.path(name), content).unwrap();
        }
        assert_eq!(pool.verify().unwrap(), ["0".repeat(64)]);
        assert!(pool.has(&good) && !pool.has(&"0".repeat(64)));
    }
}
