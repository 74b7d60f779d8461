//! `blocklist`: the digests of files that are refused everywhere, in the bucket `orfeas_blocklist`.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use async_nats::HeaderMap;
use async_nats::header::{NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use clap::{Args, Subcommand};
use futures::{StreamExt, TryStreamExt};
use orfeas_protocol::Sha256Digest;
use orfeas_protocol::subjects::{BLOCKLIST_BUCKET, blocklist_key};
use sha2::{Digest, Sha256};

use super::connect;
use crate::config::NatsFlags;
use crate::service::Connection;

/// Messages in flight: enough to keep the server's disk busy, few enough to fit its buffers.
const IN_FLIGHT: usize = 512;
/// Messages of an atomic batch: the server's own bound.
const BATCH_MAX: usize = 1_000;
/// Fewer are written faster one by one: the server makes a folder for each batch.
const BATCH_MIN: usize = 64;
/// Bad lines that are named before the rest is only counted.
const BAD_LINES_NAMED: usize = 5;

#[derive(Debug, Args)]
pub(super) struct Blocklist {
    #[command(flatten)]
    nats: NatsFlags,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Adds the digests in text files: a SHA-256 per line (as sha256sum writes them), # for comments, - for stdin
    Import {
        /// Text files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Adds files, or digests
    Add {
        /// Files to digest, or SHA-256 digests
        #[arg(required = true, value_name = "FILE|SHA256")]
        entries: Vec<String>,
    },
    /// Removes files, or digests
    Remove {
        /// Files to digest, or SHA-256 digests
        #[arg(required = true, value_name = "FILE|SHA256")]
        entries: Vec<String>,
    },
    /// Prints every digest
    List,
}

impl Blocklist {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let began = Instant::now();
        match self.action {
            Action::Import { files } => {
                let digests = read_lists(&files)?;
                let connection = connect(self.nats).await?;
                write(&connection, &digests, Write::Add).await?;
                println!("imported {} digests in {:.1} s", digests.len(), began.elapsed().as_secs_f64());
            }
            Action::Add { entries } => {
                let digests = digests_of(&entries)?;
                write(&connect(self.nats).await?, &digests, Write::Add).await?;
                println!("added {} digests", digests.len());
            }
            Action::Remove { entries } => {
                let digests = digests_of(&entries)?;
                write(&connect(self.nats).await?, &digests, Write::Remove).await?;
                println!("removed {} digests", digests.len());
            }
            Action::List => {
                let digests = list(&connect(self.nats).await?).await?;
                for digest in &digests {
                    println!("{digest}");
                }
                eprintln!("{} digests", digests.len());
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Write {
    Add,
    Remove,
}

impl Write {
    fn payload(self) -> Bytes {
        match self {
            Self::Add => Bytes::from_static(b"{}"),
            Self::Remove => Bytes::new(),
        }
    }

    /// What ADR-8 marks a deleted key with.
    fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if matches!(self, Self::Remove) {
            headers.insert("KV-Operation", "DEL");
        }
        headers
    }
}

/// Writes many keys at once: the KV store's own calls wait for each acknowledgement.
async fn write(
    connection: &Connection,
    digests: &BTreeSet<Sha256Digest>,
    write: Write,
) -> anyhow::Result<()> {
    // Fails with a clear message where there is no list yet.
    let bucket = connection
        .bucket(BLOCKLIST_BUCKET)
        .await
        .context("is there a node that serves? it creates the block list")?;
    let has_batches = bucket.stream.cached_info().config.allow_atomic_publish;
    let digests: Vec<_> = digests.iter().collect();
    let written = if has_batches && digests.len() >= BATCH_MIN {
        write_in_batches(connection, &digests, write).await
    } else {
        write_one_by_one(connection, &digests, write).await
    };
    written.context("cannot write the block list; what was written before stays")
}

/// Each message is acknowledged, and flushed to the server's disk, by itself.
async fn write_one_by_one(
    connection: &Connection,
    digests: &[&Sha256Digest],
    write: Write,
) -> anyhow::Result<()> {
    let jetstream = connection.jetstream();
    let acknowledged = futures::stream::iter(digests).map(|digest| async move {
        let message = PublishMessage::build().payload(write.payload()).headers(write.headers());
        let sent = jetstream.send_publish(subject(digest), message).await?;
        sent.await.map(drop)
    });
    Ok(acknowledged.buffer_unordered(IN_FLIGHT).try_collect::<()>().await?)
}

/// Atomic batches (NATS ADR-50): one flush and one acknowledgement for a thousand messages.
async fn write_in_batches(
    connection: &Connection,
    digests: &[&Sha256Digest],
    write: Write,
) -> anyhow::Result<()> {
    for batch in digests.chunks(BATCH_MAX) {
        let Some((last, others)) = batch.split_last() else { continue };
        let id = connection.client().new_inbox();
        let headers = |sequence: usize| {
            let mut headers = write.headers();
            headers.insert(NATS_BATCH_ID, id.as_str());
            headers.insert(NATS_BATCH_SEQUENCE, sequence.to_string());
            headers
        };
        for (at, digest) in others.iter().enumerate() {
            let sent =
                connection.client().publish_with_headers(subject(digest), headers(at + 1), write.payload());
            sent.await?;
        }
        let mut commit = headers(batch.len());
        commit.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
        let message = PublishMessage::build().payload(write.payload()).headers(commit);
        connection.jetstream().send_publish(subject(last), message).await?.await?;
    }
    Ok(())
}

fn subject(digest: &Sha256Digest) -> String {
    format!("$KV.{BLOCKLIST_BUCKET}.{}", blocklist_key(digest))
}

async fn list(connection: &Connection) -> anyhow::Result<BTreeSet<Sha256Digest>> {
    let bucket = connection.bucket(BLOCKLIST_BUCKET).await?;
    let mut keys = bucket.keys().await.context("cannot list the block list")?;
    let mut digests = BTreeSet::new();
    while let Some(key) = keys.try_next().await.context("cannot list the block list")? {
        if let Some(digest) = key.strip_prefix("sha256.").and_then(|digits| digits.parse().ok()) {
            digests.insert(digest);
        }
    }
    Ok(digests)
}

fn read_lists(files: &[PathBuf]) -> anyhow::Result<BTreeSet<Sha256Digest>> {
    let mut digests = BTreeSet::new();
    for file in files {
        let text = read_list(file).with_context(|| format!("cannot read {}", file.display()))?;
        digests.append(&mut parse_list(&text).with_context(|| format!("cannot use {}", file.display()))?);
    }
    Ok(digests)
}

fn read_list(file: &Path) -> std::io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}

/// Reads one digest per line. A list with a bad line is refused as a whole: a block list that is quietly
/// shorter than its file would be worse.
fn parse_list(text: &str) -> anyhow::Result<BTreeSet<Sha256Digest>> {
    let mut digests = BTreeSet::new();
    let mut bad = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // sha256sum writes `digest  name`, and `\digest  name` where the name is escaped.
        let first = line.split_whitespace().next().unwrap_or_default().trim_start_matches('\\');
        match first.parse() {
            Ok(digest) => drop(digests.insert(digest)),
            Err(_) => bad.push((number + 1).to_string()),
        }
    }
    if !bad.is_empty() {
        let named = bad.iter().take(BAD_LINES_NAMED).cloned().collect::<Vec<_>>().join(", ");
        bail!("{} lines do not begin with a SHA-256 digest: {named} …", bad.len());
    }
    Ok(digests)
}

fn digests_of(entries: &[String]) -> anyhow::Result<BTreeSet<Sha256Digest>> {
    entries.iter().map(|entry| digest_of(entry)).collect()
}

/// A digest if it is one, else the digest of the file with that name.
fn digest_of(entry: &str) -> anyhow::Result<Sha256Digest> {
    if let Ok(digest) = entry.parse() {
        return Ok(digest);
    }
    let not_there = || format!("`{entry}` is neither a SHA-256 digest nor a file that can be read");
    let mut file = std::fs::File::open(entry).with_context(not_there)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer).with_context(not_there)?;
        match buffer.get(..read) {
            Some(bytes) if !bytes.is_empty() => hash.update(bytes),
            _ => return Ok(Sha256Digest::from_bytes(hash.finalize().into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_comments_both_cases_and_the_form_of_sha256sum() {
        let (a, b, c) = (Sha256Digest::of("a"), Sha256Digest::of("b"), Sha256Digest::of("c"));
        let upper = b.to_string().to_uppercase();
        let text = format!("\u{feff}# bad files\n\n{a}\r\n  {upper}  picture.png\n\\{c} *odd\\nname\n{a}\n");
        assert_eq!(parse_list(&text).unwrap(), BTreeSet::from([a, b, c]));
    }

    #[test]
    fn a_list_with_a_bad_line_is_refused_with_its_number() {
        let text = format!("{}\nd41d8cd98f00b204e9800998ecf8427e  md5.png\n", Sha256Digest::of("a"));
        let error = parse_list(&text).unwrap_err().to_string();
        assert!(error.starts_with("1 lines") && error.contains(": 2 "), "{error}");
    }

    #[test]
    fn an_entry_is_a_digest_or_a_file() {
        let digest = Sha256Digest::of("x");
        assert_eq!(digest_of(&digest.to_string()).unwrap(), digest);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "x").unwrap();
        assert_eq!(digest_of(file.path().to_str().unwrap()).unwrap(), digest);
        assert!(digest_of("no such file").is_err());
    }
}
