//! Real servers on this host's loopback, for images that send and fetch: nginx, openssl and curl as the archive has them, unpacked
//! by gdsboot's own builder, and an S3 server that checks signatures.

#![allow(dead_code, reason = "each test that includes this module takes what it needs")]

use crate::common::{self, folder, run_with_status};
use sha2::{Digest as _, Sha256};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A port of loopback that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A program of the root with nginx, openssl and curl.
fn program(path: &str) -> Command {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    common::program(ROOT.get_or_init(|| common::unpacked("servers", &["nginx", "openssl", "curl"])), path)
}

/// A running server; it ends with this.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Running {
    fn start(command: &mut Command, log: &Path, port: u16) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        let mut running = Self { child, port };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(running.child.try_wait().unwrap().is_none(), "{command:?} ended at once");
            assert!(begun.elapsed() < Duration::from_secs(30), "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// nginx in a folder of its own; `server` is what stands in its `server` block besides `listen`. Its log has a line for each
/// request: method, path, status, run id, media type.
pub fn nginx(dir: &Path, port: u16, tls: bool, server: &str) -> Running {
    std::fs::create_dir_all(dir.join("files")).unwrap();
    let d = dir.display();
    let listen = if tls {
        format!(
            "listen 127.0.0.1:{port} ssl; ssl_certificate {d}/server.pem; ssl_certificate_key {d}/server.key;"
        )
    } else {
        format!("listen 127.0.0.1:{port};")
    };
    let config = format!(
        "daemon off; master_process off; pid {d}/pid; error_log stderr;\nevents {{}}\nhttp {{\n\
         log_format one '$request_method $uri $status $http_x_gdsboot_run_id $content_type $http_range';\n\
         access_log {d}/access.log one;\n\
         client_body_temp_path {d}/t1; proxy_temp_path {d}/t2; fastcgi_temp_path {d}/t3; uwsgi_temp_path {d}/t4; \
         scgi_temp_path {d}/t5;\n\
         client_max_body_size 64m; root {d}/files;\nserver {{\n{listen}\n{server}\n}}\n}}\n"
    );
    std::fs::write(dir.join("nginx.conf"), config).unwrap();
    let mut command = program("usr/sbin/nginx");
    command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf")).args(["-e", "stderr"]);
    Running::start(&mut command, &dir.join("nginx.log"), port)
}

/// What nginx logged, a line for each request.
pub fn requests(dir: &Path) -> Vec<String> {
    let log = std::fs::read_to_string(dir.join("access.log")).unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}

/// Makes an authority (`ca.pem`) and a certificate of it for 10.0.2.2, which is what a guest calls this host.
pub fn certificates(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let openssl = |args: &[&str]| {
        let mut command = program("usr/bin/openssl");
        command.current_dir(dir).env("OPENSSL_CONF", "/dev/null").args(args);
        run_with_status(&mut command, 0);
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-x509"];
    let ca = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=gdsboot test authority"];
    openssl(&[&["req"][..], &key, &ca, &["-addext", "basicConstraints=critical,CA:TRUE"]].concat());
    let leaf = [
        "-keyout",
        "server.key",
        "-out",
        "server.pem",
        "-subj",
        "/CN=gdsboot test",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
    ];
    let name = ["-addext", "subjectAltName=IP:10.0.2.2", "-addext", "basicConstraints=critical,CA:FALSE"];
    openssl(&[&["req"][..], &key, &leaf, &name].concat());
}

/// The S3 server s3s-fs, which checks signatures, with a bucket `reports` and one account, whose name and secret are both
/// `GDSBOOT`. It is installed by cargo, once: as a dependency it would cost every other test its time.
pub fn s3(dir: &Path, port: u16) -> Running {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    let program = INSTALLED.get_or_init(|| {
        let root = folder().join("s3s");
        let program = root.join("bin/s3s-fs");
        if !program.exists() {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args([
                "install",
                "s3s-fs",
                "--version",
                "0.14.1",
                "--features",
                "binary",
                "--debug",
                "--locked",
            ]);
            cargo.arg("--root").arg(&root).arg("--target-dir").arg(root.join("target"));
            run_with_status(&mut cargo, 0);
        }
        program
    });
    std::fs::create_dir_all(dir.join("reports")).unwrap();
    let mut command = Command::new(program);
    command.args(["--access-key", "GDSBOOT", "--secret-key", "GDSBOOT", "--host", "127.0.0.1"]);
    command.args(["--port", &port.to_string()]).arg(dir);
    Running::start(&mut command, &dir.with_extension("log"), port)
}

/// A pre-signed URL for a PUT, good for an hour, as S3 libraries make them (AWS Signature Version 4, query parameters).
pub fn presign(scheme: &str, host: &str, path: &str, now: u64) -> String {
    let time = gdsboot::report::utc::Utc(now).compact();
    let day = &time[..8];
    let scope = format!("{day}/us-east-1/s3/aws4_request");
    let query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=GDSBOOT%2F{}&X-Amz-Date={time}&X-Amz-Expires=3600&X-Amz-SignedHeaders=host",
        scope.replace('/', "%2F")
    );
    let canonical = format!("PUT\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD");
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
    let parts = [day, "us-east-1", "s3", "aws4_request", &to_sign];
    let signature = parts.iter().fold(b"AWS4GDSBOOT".to_vec(), |key, part| hmac(&key, part.as_bytes()));
    format!("{scheme}://{host}{path}?{query}&X-Amz-Signature={}", hex::encode(signature))
}

/// HMAC-SHA256 (RFC 2104) with a key of one block at most.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let pad = |with: u8| (0..64).map(|n| key.get(n).copied().unwrap_or(0) ^ with).collect::<Vec<u8>>();
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

/// The status that a server answers a PUT with.
pub fn put_status(url: &str, body: &Path) -> String {
    let mut curl = program("usr/bin/curl");
    curl.args([
        "--disable",
        "--silent",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        "--noproxy",
        "*",
        "--upload-file",
    ]);
    String::from_utf8(run_with_status(curl.arg(body).arg(url), 0).stdout).unwrap()
}
