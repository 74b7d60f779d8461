//! A child process that we answer for: its output goes to a log, its readiness is a line that it
//! prints, its end is noticed, and it never outlives us.
//!
//! ```text
//!   spawn ──▶ await_line ──▶ running ──▶ stop: SIGTERM, wait, SIGKILL
//!     └──────────┴──────────────┴──drop──▶ SIGKILL
//! ```

use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::interrupt::Interrupt;
use crate::setup::tools::last_lines;

/// How often an end of the process or a Ctrl-C is looked for.
const LOOK_EACH: Duration = Duration::from_millis(20);

/// As many last lines of a log as fit under an error message.
const LOG_TAIL_LINES: usize = 20;

/// A running child process.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    ready: Receiver<String>,
}

impl Process {
    /// Starts `command` with its output in `<log_dir>/<name>.log`; the first line that contains
    /// `ready_text` is kept for [`Process::await_line`].
    pub(crate) fn spawn(
        name: &'static str,
        mut command: Command,
        log_dir: &Path,
        ready_text: &'static str,
    ) -> Result<Self> {
        fs::create_dir_all(log_dir).with_context(|| format!("create {}", log_dir.display()))?;
        let log = log_dir.join(format!("{name}.log"));
        let log_file = File::create(&log).with_context(|| format!("create log {}", log.display()))?;
        let (reader, writer) = std::io::pipe().context("create a pipe for the log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(writer.try_clone().context("copy the log's pipe")?)
            .stderr(writer)
            // Its own group: Ctrl-C in the terminal reaches us alone, and we stop things in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name} ({})", command.get_program().display()))?;
        // The command keeps its ends of the pipe open; without them the log ends with the child.
        drop(command);
        let (found, ready) = sync_channel(1);
        std::thread::spawn(move || copy_output(reader, log_file, ready_text, &found));
        Ok(Self { name, child, log, ready })
    }

    /// Waits until the child has printed its line; fails when it ends or the limit passes first.
    pub(crate) fn await_line(&mut self, limit: Duration, interrupt: &Interrupt) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.ready.recv_timeout(LOOK_EACH) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) => self.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    // Its output has ended; give the status a moment to arrive.
                    interrupt.wait(LOOK_EACH);
                    self.check()?;
                }
            }
            interrupt.check()?;
            if Instant::now() >= deadline {
                bail!(self.report(&format!("was not ready within {} s", limit.as_secs())));
            }
        }
    }

    /// Fails if the child has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.status()? {
            None => Ok(()),
            Some(status) => Err(anyhow!(self.report(&format!("ended with {status}")))),
        }
    }

    /// Ends the child: SIGTERM, and SIGKILL when `grace` has passed or the user insists.
    pub(crate) fn stop(mut self, grace: Duration, interrupt: &Interrupt) -> Result<()> {
        if self.status()?.is_some() {
            return Ok(());
        }
        signal::kill(self.pid()?, Signal::SIGTERM)
            .with_context(|| format!("send SIGTERM to {}", self.name))?;
        let deadline = Instant::now() + grace;
        while self.status()?.is_none() {
            if Instant::now() >= deadline || interrupt.insisted() {
                bail!("{} did not stop within {} s and was killed", self.name, grace.as_secs());
            }
            interrupt.wait(LOOK_EACH);
        }
        Ok(())
    }

    fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("wait for {}", self.name))
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id()).context("process id out of range")?))
    }

    /// What happened, and the last lines of the log.
    fn report(&self, what: &str) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let tail = last_lines(&String::from_utf8_lossy(&log), LOG_TAIL_LINES);
        format!("{} {what}; the end of {}:\n{tail}", self.name, self.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // Unreaped, so the id is still its own; the group takes along what it may have started.
        if let Ok(pid) = self.pid() {
            let _ = signal::killpg(pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// Copies lines to the log until the output ends, and hands on the first that has the text.
fn copy_output(reader: PipeReader, mut log: File, ready_text: &str, found: &SyncSender<String>) {
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    let mut sent = false;
    while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        // A full disk must not block the child on a full pipe.
        let _ = log.write_all(&line);
        if !sent {
            let text = String::from_utf8_lossy(&line);
            if text.contains(ready_text) {
                sent = found.try_send(text.trim_end().to_owned()).is_ok();
            }
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str, scratch: &Scratch) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("child", command, scratch.path(), "ready on").unwrap()
    }

    fn is_gone(pid: Pid) -> bool {
        signal::kill(pid, None).is_err()
    }

    #[test]
    fn ready_line_is_found_among_others_on_either_stream() {
        let scratch = Scratch::new("process-ready");
        let mut process = shell("echo starting; echo 'ready on port 7' >&2; exec sleep 60", &scratch);
        let line = process.await_line(LIMIT, &Interrupt::default()).unwrap();
        assert_eq!(line, "ready on port 7");
        process.check().unwrap();
    }

    #[test]
    fn early_end_is_reported_with_the_end_of_the_log() {
        let scratch = Scratch::new("process-early");
        let mut process = shell("echo 'no such bucket' >&2; exit 3", &scratch);
        let error = process.await_line(LIMIT, &Interrupt::default()).unwrap_err().to_string();
        assert!(error.starts_with("child ended with exit status: 3"), "{error}");
        assert!(error.contains("no such bucket"), "{error}");
    }

    #[test]
    fn silent_child_is_given_up_at_the_limit() {
        let scratch = Scratch::new("process-silent");
        let mut process = shell("exec sleep 60", &scratch);
        let error = process.await_line(Duration::from_millis(50), &Interrupt::default()).unwrap_err();
        assert!(error.to_string().contains("was not ready within"), "{error}");
    }

    #[test]
    fn stop_lets_the_child_finish_its_work() {
        let scratch = Scratch::new("process-stop");
        let mark = scratch.path().join("drained");
        let mut process = shell(
            &format!(
                "trap 'touch {}; exit 0' TERM; echo ready on; while :; do sleep 0.01; done",
                mark.display()
            ),
            &scratch,
        );
        let interrupt = Interrupt::default();
        process.await_line(LIMIT, &interrupt).unwrap();
        process.stop(LIMIT, &interrupt).unwrap();
        assert!(mark.exists());
    }

    #[test]
    fn child_that_ignores_sigterm_is_killed_after_the_grace() {
        let scratch = Scratch::new("process-stubborn");
        let mut process = shell("trap '' TERM; echo ready on; while :; do sleep 0.01; done", &scratch);
        let interrupt = Interrupt::default();
        process.await_line(LIMIT, &interrupt).unwrap();
        let pid = process.pid().unwrap();
        process.stop(Duration::from_millis(100), &interrupt).unwrap_err();
        assert!(is_gone(pid));
    }

    #[test]
    fn dropped_process_is_killed() {
        let scratch = Scratch::new("process-drop");
        let mut process = shell("echo ready on; exec sleep 60", &scratch);
        process.await_line(LIMIT, &Interrupt::default()).unwrap();
        let pid = process.pid().unwrap();
        drop(process);
        assert!(is_gone(pid));
    }
}
