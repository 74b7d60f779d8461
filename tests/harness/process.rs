//! A child process that logs to a file, says when it is ready, and never outlives its owner.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take to say that it is ready: the first start compiles the component.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a program may take to stop when asked.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A running program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts a program with its output in two files of `dir`, named after it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(name: &str, dir: &Path, command: &mut Command) -> Self {
        let stdout = dir.join(format!("{name}.out"));
        let stderr = dir.join(format!("{name}.err"));
        let out = File::create(&stdout).unwrap();
        let err = File::options().create(true).append(true).open(&stderr).unwrap();
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.unwrap_or_else(|error| panic!("start {:?}: {error}", command.get_program()));
        Self { child, stdout, stderr }
    }

    /// Waits for a line on standard output that begins with `prefix`, and returns it.
    ///
    /// # Panics
    /// When the program ends or stays silent.
    pub fn ready_line(&mut self, prefix: &str) -> String {
        let stdout = self.stdout.clone();
        self.told(&stdout, |line| line.starts_with(prefix))
    }

    /// Waits for a line of the log with `words`, and returns it.
    ///
    /// # Panics
    /// When the program ends or stays silent.
    pub fn logged(&mut self, words: &str) -> String {
        let stderr = self.stderr.clone();
        self.told(&stderr, |line| line.contains(words))
    }

    /// Waits for a whole line in a file.
    fn told(&mut self, file: &Path, is_it: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let text = std::fs::read_to_string(file).unwrap();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(line) = whole.lines().find(|line| is_it(line)) {
                return line.to_owned();
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended with {status} before it was ready\n{}", self.log());
            }
            assert!(start.elapsed() < READY_LIMIT, "not ready within {READY_LIMIT:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the program has written to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the program still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits for the end; returns whether it ended well.
    ///
    /// # Panics
    /// When the program does not stop within its limit.
    pub fn stop(&mut self) -> bool {
        self.signal(Signal::TERM);
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            assert!(start.elapsed() < STOP_LIMIT, "still runs {STOP_LIMIT:?} after SIGTERM\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.stderr.display(), self.log());
        }
    }
}
