//! A region of its own per test: server, node, script, client.

mod caller;
mod node;
mod program;
mod script;
mod server;

use std::time::{Duration, Instant};

use orfeas_node::config::{Config, File, Flags};

pub(crate) use caller::{Caller, body};
pub(crate) use node::Node;
pub(crate) use program::Program;
pub(crate) use script::Script;
pub(crate) use server::Server;

/// Long enough for two busy cores, short enough to notice.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn config(server: &Server, toml: &str) -> Config {
    let name = if toml.starts_with("node_id") { "" } else { "node_id = \"test\"" };
    let toml = format!("{name}\n{toml}\n[nats]\nurls = [\"{}\"]\n", server.url());
    let file: File = toml::from_str(&toml).unwrap();
    Config::resolve(file, Flags::default()).unwrap()
}

/// The longest of some times but one. A machine stalls now and then; what is slow by itself is slow each time.
pub(crate) fn longest_but_one(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() - 2]
}

/// A small PNG; each marker gives another file.
pub(crate) fn picture(marker: u8) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let pixels = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([x as u8, y as u8, marker]));
    pixels.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up_at = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < give_up_at, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
