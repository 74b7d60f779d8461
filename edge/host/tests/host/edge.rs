//! A running `orfeas-edge` for a test: its own manifest, folder and ports; killed on drop.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longer than anything that a test waits for, so that a hang fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// The test component, built once per test run.
pub(crate) fn guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| {
        let built = Command::new(env!("CARGO"))
            .args(["build", "-p", "orfeas-edge-test-guest", "--target", "wasm32-wasip2"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(built.success(), "cannot build the test component; is the target wasm32-wasip2 installed?");
        let target = Path::new(env!("CARGO_BIN_EXE_orfeas-edge")).ancestors().nth(2).unwrap();
        target.join("wasm32-wasip2/debug/orfeas_edge_test_guest.wasm")
    })
}

/// How a test's edge differs from the usual one.
#[derive(Default)]
pub(crate) struct Setup<'s> {
    pub(crate) flags: &'s [&'s str],
    /// Lines of `[component.guest]`.
    pub(crate) component: &'s str,
    /// Tables after it.
    pub(crate) tables: &'s str,
}

pub(crate) struct Edge {
    process: Child,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
}

impl Edge {
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::with(&Setup { flags, ..Setup::default() })
    }

    pub(crate) fn with(setup: &Setup<'_>) -> Self {
        let folder = folder(setup);
        let mut process = command(&folder, setup.flags).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addresses = line
            .trim_end()
            .strip_prefix("orfeas-edge listening on http://")
            .and_then(|rest| rest.strip_suffix(')'))
            .and_then(|rest| rest.split_once(" (admin http://"));
        let (public, admin) = addresses.unwrap_or_else(|| panic!("unexpected ready line {line:?}"));
        Self { process, public: public.parse().unwrap(), admin: admin.parse().unwrap(), folder }
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.send(&format!("GET {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"))
    }

    /// Sends text on a connection of its own and reads the answer.
    pub(crate) fn send(&self, text: &str) -> Answer {
        self.open(text).answer()
    }

    /// Sends text and leaves the answer for later.
    pub(crate) fn open(&self, text: &str) -> Connection {
        let mut stream = TcpStream::connect(self.public).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        Connection(stream)
    }

    pub(crate) fn open_get(&self, target: &str) -> Connection {
        self.open(&format!("GET {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"))
    }

    /// The value of a metric line, or 0 where there is none.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.admin("/metrics").body;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric has come to `count`: the host counts when its part of a request has
    /// ended, which may be after the client has its answer.
    #[track_caller]
    pub(crate) fn counts(&self, name: &str, count: f64) {
        wait_until(&format!("{name} comes to {count}"), || self.metric(name) == count);
    }

    pub(crate) fn admin(&self, target: &str) -> Answer {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
        Connection(stream).answer()
    }

    pub(crate) fn terminate(&self) {
        let id = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for the end of the process; true for success.
    pub(crate) fn ended(&mut self) -> bool {
        let mut status = None;
        wait_until("the process ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().success()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("log of the edge:\n{}", self.log());
        }
    }
}

/// Runs `orfeas-edge` where it should not start; gives what it says.
pub(crate) fn fails_to_start(setup: &Setup<'_>) -> String {
    let folder = folder(setup);
    let mut command = command(&folder, setup.flags);
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut status = None;
    wait_until("the process refuses to start", || {
        status = process.try_wait().unwrap();
        status.is_some()
    });
    process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!status.unwrap().success(), "{said}");
    said
}

fn folder(setup: &Setup<'_>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let manifest = format!(
        "spin_manifest_version = 2\n[application]\nname = \"test\"\n\
         [variables]\ngreeting = {{ default = \"hi\" }}\nauth = {{ default = \"optional\" }}\n\
         [[trigger.http]]\nroute = \"/...\"\ncomponent = \"guest\"\n\
         [component.guest]\nsource = {:?}\n{}\n\
         [component.guest.variables]\ngreeting = \"{{{{ greeting }}}}!\"\nauth = \"{{{{ auth }}}}\"\n{}\n",
        guest(),
        setup.component,
        setup.tables,
    );
    std::fs::write(folder.path().join("spin.toml"), manifest).unwrap();
    std::fs::create_dir(folder.path().join("www")).unwrap();
    std::fs::write(folder.path().join("www/page.txt"), "a page").unwrap();
    std::fs::write(folder.path().join("secret.txt"), "a secret").unwrap();
    folder
}

fn command(folder: &tempfile::TempDir, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orfeas-edge"));
    command
        .args(["--admin=127.0.0.1:0", "--log-format=json"])
        .args(flags)
        .current_dir(folder.path())
        .stderr(std::fs::File::create(folder.path().join("log")).unwrap());
    // One cache for all tests, so that the component is compiled once.
    let cache = concat!("--cache-dir=", env!("CARGO_TARGET_TMPDIR"), "/edge-cache");
    for default in ["--listen=127.0.0.1:0", cache] {
        let (name, _) = default.split_once('=').unwrap();
        if !flags.iter().any(|flag| flag.starts_with(name)) {
            command.arg(default);
        }
    }
    command
}

pub(crate) struct Connection(pub(crate) TcpStream);

impl Connection {
    /// Reads to the end of the connection.
    pub(crate) fn answer(mut self) -> Answer {
        let mut bytes = Vec::new();
        // A reset after the answer is not the matter of most tests.
        let _ = self.0.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// Reads until `text` has come.
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        let mut read = String::new();
        let mut buffer = [0; 1024];
        while !read.contains(text) {
            let bytes = self.0.read(&mut buffer).unwrap();
            assert!(bytes > 0, "ended before {text:?}: {read:?}");
            read.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
        }
        read
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    /// 0 for a connection that ended without an answer.
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Checks a problem and its fields.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(json["code"], code, "{self:?}");
        assert_eq!(json["status"], status, "{self:?}");
        assert_eq!(json["request_id"].as_str(), self.header("x-request-id"), "{self:?}");
    }

    #[track_caller]
    pub(crate) fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.body.as_str()), (status, body), "{self:?}");
    }
}

/// Waits for a condition, not for a time.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
