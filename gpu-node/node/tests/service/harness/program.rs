//! The node as a program: `orfeas-gpu-node serve`.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Server, until};

/// A process that does not outlive its test.
pub(crate) struct Program(Child);

impl Program {
    /// With the family `noop`, and these arguments beside.
    pub(crate) fn serve(server: &Server, models: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orfeas-gpu-node"));
        command.args([
            "serve",
            "--nats",
            &server.url(),
            "--admin",
            "127.0.0.1:0",
            "--noop-family",
            "--models",
        ]);
        // What it keeps for later stays in the test's folder.
        command.arg(models).args(arguments).current_dir(models).env("XDG_STATE_HOME", models);
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// Waits for the end of the process; its code, or none where a signal ended it.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        until("the program ends", async || self.0.try_wait().unwrap()).await.code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
