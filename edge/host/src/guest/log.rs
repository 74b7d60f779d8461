//! What a component prints, line by line, as log events of the host.

use crate::manifest::ComponentSpec;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

/// A longer line is cut into several events.
const LINE_BYTES_MAX: usize = 4096;

/// A component's standard output or error.
#[derive(Clone, Debug)]
pub(super) struct GuestLog {
    spec: Arc<ComponentSpec>,
}

impl GuestLog {
    pub(super) fn new(spec: &Arc<ComponentSpec>) -> Self {
        Self { spec: Arc::clone(spec) }
    }
}

impl IsTerminal for GuestLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestLog {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        let spec = Arc::clone(&self.spec);
        Box::new(LineWriter::new(move |line| {
            tracing::info!(target: "guest", component = spec.id, "{}", String::from_utf8_lossy(line));
        }))
    }
}

/// Gathers bytes into lines and hands each on; never waits.
struct LineWriter<F: Fn(&[u8])> {
    line: Vec<u8>,
    emit: F,
}

impl<F: Fn(&[u8])> LineWriter<F> {
    fn new(emit: F) -> Self {
        Self { line: Vec::new(), emit }
    }

    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_BYTES_MAX) {
                if self.line.len() + part.len() > LINE_BYTES_MAX {
                    self.finish_line();
                }
                self.line.extend_from_slice(part);
            }
            if piece.ends_with(b"\n") {
                self.finish_line();
            }
        }
    }

    fn finish_line(&mut self) {
        let line = self.line.trim_ascii_end();
        if !line.is_empty() {
            (self.emit)(line);
        }
        self.line.clear();
    }
}

impl<F: Fn(&[u8])> Drop for LineWriter<F> {
    fn drop(&mut self) {
        self.finish_line();
    }
}

impl<F: Fn(&[u8]) + Unpin> AsyncWrite for LineWriter<F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn check(pieces: &[&str], expected: &[&str]) {
        let lines = RefCell::new(Vec::new());
        let mut writer =
            LineWriter::new(|line| lines.borrow_mut().push(String::from_utf8(line.to_vec()).unwrap()));
        for piece in pieces {
            writer.push(piece.as_bytes());
        }
        drop(writer);
        assert_eq!(*lines.borrow(), expected);
    }

    #[test]
    fn lines_are_whole_however_they_are_written() {
        check(&["a\nb", "c\n", "\r\n", "d"], &["a", "bc", "d"]);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let long = "x".repeat(LINE_BYTES_MAX + 10);
        check(&[&long], &[&long[..LINE_BYTES_MAX], &long[LINE_BYTES_MAX..]]);
    }
}
