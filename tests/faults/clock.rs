//! The wall clock of node and edge, which a test can set: a shim (`clock.c`) that is preloaded into them. The
//! machine's own clock stays as it is, and so does the server's, which is not linked to the C library.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The clock of the programs that were started with [`Clock::environment`].
#[derive(Debug)]
pub struct Clock {
    offset: File,
    offset_path: PathBuf,
    shim: PathBuf,
}

impl Clock {
    /// Compiles the shim into a folder.
    ///
    /// # Errors
    /// Why there is no such clock here: no C compiler.
    pub fn build(dir: &Path) -> Result<Clock, String> {
        let shim = dir.join("clock.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("faults/clock.c");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(compiler);
        command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source);
        match command.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => return Err(format!("no C compiler: {error}")),
        }
        let offset_path = dir.join("clock.offset");
        let offset = File::options().create(true).truncate(true).write(true).open(&offset_path).unwrap();
        let clock = Clock { offset, offset_path, shim };
        clock.set(0);
        Ok(clock)
    }

    /// What a program needs in its environment to read this clock.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        vec![
            ("LD_PRELOAD".to_owned(), text(&self.shim)),
            ("ORFEAS_TEST_CLOCK".to_owned(), text(&self.offset_path)),
        ]
    }

    /// Sets the clock so many seconds ahead of the true time, for programs that run already too.
    pub fn set(&self, ahead_s: i64) {
        self.offset.write_all_at(&ahead_s.to_ne_bytes(), 0).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_under_the_shim_reads_the_time_that_was_set() {
        let dir = tempfile::TempDir::new().unwrap();
        let Ok(clock) = Clock::build(dir.path()) else { return println!("skipped: no C compiler") };
        let seconds = || {
            let mut date = Command::new("date");
            let output = date.args(["-u", "+%s"]).envs(clock.environment()).output().unwrap();
            String::from_utf8_lossy(&output.stdout).trim().parse::<i64>().unwrap()
        };
        let (before, ahead_s) = (seconds(), 10 * 366 * 86_400);
        clock.set(ahead_s);
        let passed = seconds() - before;
        assert!((ahead_s..ahead_s + 3600).contains(&passed), "{passed}");
    }
}
