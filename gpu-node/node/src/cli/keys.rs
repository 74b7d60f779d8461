//! `keys`: the keys by which callers are let in at the edge, in the bucket `orfeas_keys`. A key is printed once, when
//! it is made; what is stored is its SHA-256. Edges look keys up on each request, so a change is seen at once.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use anyhow::{Context, bail, ensure};
use async_nats::jetstream::kv::Store;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use futures::TryStreamExt;
use orfeas_protocol::subjects::KEYS_BUCKET;
use orfeas_protocol::{KeyLimits, KeyRecord, Scope, Sha256Digest, TenantId, Timestamp};

use super::connect;
use crate::config::NatsFlags;

/// What a key begins with, so that it can be told from other secrets where it has leaked to.
const KEY_PREFIX: &str = "orfeas_";
/// 256 bits: nobody guesses them, so one round of SHA-256 is all the hiding that they need.
const KEY_BYTES: usize = 32;
/// Digits of the digest that name a key in lists.
const ID_DIGITS: usize = 12;
/// Fewer digits could name the wrong key by a slip.
const ID_DIGITS_MIN: usize = 6;
/// A note is for people; the record has a bound.
const NOTE_CHARS_MAX: usize = 200;

#[derive(Debug, Args)]
pub(super) struct Keys {
    #[command(flatten)]
    nats: NatsFlags,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes a key and prints it, this once
    Add(Add),
    /// Ends keys: from now on they are not known
    Revoke {
        /// Keys, or their ids as `list` prints them
        #[arg(required = true, value_name = "KEY|ID")]
        keys: Vec<String>,
    },
    /// Prints id, tenant, scopes, limits, time and note of every key
    List,
}

#[derive(Debug, Args)]
struct Add {
    /// Whose key it is: its jobs are seen by all keys of this tenant ([A-Za-z0-9_-], up to 64 characters)
    #[arg(long)]
    tenant: TenantId,
    /// What it allows: submit, read, admin
    #[arg(long = "scopes", value_name = "SCOPES", value_delimiter = ',', default_value = "submit,read")]
    scopes: Vec<Scope>,
    /// Jobs of the tenant that have not ended, at one time [default: any number]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroU32>,
    /// Uploads and submissions of the tenant in a minute [default: any number]
    #[arg(long, value_name = "N")]
    per_minute: Option<NonZeroU32>,
    /// What to remember of it
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

impl Keys {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let record = match &self.action {
            Action::Add(add) => Some(add.record(crate::service::now())?),
            _ => None,
        };
        let connection = connect(self.nats).await?;
        let bucket = connection.bucket(KEYS_BUCKET).await;
        let bucket = bucket.context("is there a node that serves? it creates the bucket of keys")?;
        match self.action {
            Action::Add(_) => {
                let Some(record) = record else { return Ok(()) };
                let key = new_key().context("cannot draw a key")?;
                let digest = Sha256Digest::of(&key);
                let json = serde_json::to_vec(&record).context("cannot write the record")?;
                bucket.create(digest.to_string(), json.into()).await.context("cannot store the key")?;
                println!("{key}");
                eprintln!("key {} of tenant {}; it is not shown again", id(&digest), record.tenant);
            }
            Action::Revoke { keys } => {
                let known = read_all(&bucket).await?;
                let digests = keys.iter().map(|key| find(key, &known)).collect::<anyhow::Result<Vec<_>>>()?;
                for digest in digests {
                    bucket.purge(digest.to_string()).await.context("cannot remove a key")?;
                    println!("revoked {}", id(&digest));
                }
            }
            Action::List => {
                let known = read_all(&bucket).await?;
                for (digest, record) in &known {
                    println!("{}", line(digest, record.as_ref()));
                }
                eprintln!("{} keys", known.len());
            }
        }
        Ok(())
    }
}

impl Add {
    /// The record of the key to make.
    fn record(&self, now: Timestamp) -> anyhow::Result<KeyRecord> {
        let mut scopes = self.scopes.clone();
        scopes.sort();
        scopes.dedup();
        let within = |limit: Option<NonZeroU32>, max: u32| limit.is_none_or(|limit| limit.get() <= max);
        ensure!(within(self.jobs, KeyLimits::JOBS_MAX), "--jobs is at most {}", KeyLimits::JOBS_MAX);
        let max = KeyLimits::PER_MINUTE_MAX;
        ensure!(within(self.per_minute, max), "--per-minute is at most {max}");
        let note_chars = self.note.as_ref().map_or(0, |note| note.chars().count());
        ensure!(note_chars <= NOTE_CHARS_MAX, "--note has at most {NOTE_CHARS_MAX} characters");
        Ok(KeyRecord {
            tenant: self.tenant.clone(),
            scopes,
            limits: KeyLimits { jobs: self.jobs, per_minute: self.per_minute },
            created_at: Some(now),
            note: self.note.clone(),
        })
    }
}

fn new_key() -> Result<String, getrandom::Error> {
    let mut random = [0; KEY_BYTES];
    getrandom::fill(&mut random)?;
    Ok(format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// Every key's record; `None` where it cannot be read.
async fn read_all(bucket: &Store) -> anyhow::Result<BTreeMap<Sha256Digest, Option<KeyRecord>>> {
    let names = bucket.keys().await.context("cannot list the keys")?;
    let names: Vec<String> = names.try_collect().await.context("cannot list the keys")?;
    let mut known = BTreeMap::new();
    for name in names {
        let Ok(digest) = name.parse() else { continue };
        if let Some(json) = bucket.get(&name).await.context("cannot read a key's record")? {
            known.insert(digest, serde_json::from_slice(&json).ok());
        }
    }
    Ok(known)
}

/// The digest of a key that is named by itself, by its digest, or by the first digits of it.
fn find(named: &str, known: &BTreeMap<Sha256Digest, Option<KeyRecord>>) -> anyhow::Result<Sha256Digest> {
    let as_key = Sha256Digest::of(named);
    if known.contains_key(&as_key) {
        return Ok(as_key);
    }
    let prefix = named.to_ascii_lowercase();
    // Whoever mistypes a key must not find it in the message.
    ensure!(!named.starts_with(KEY_PREFIX), "this key is not known");
    ensure!(
        prefix.len() >= ID_DIGITS_MIN,
        "`{named}` is too short for an id: give {ID_DIGITS_MIN} digits or more"
    );
    let mut found = known.keys().filter(|digest| digest.to_string().starts_with(&prefix));
    match (found.next(), found.next()) {
        (Some(digest), None) => Ok(*digest),
        (None, _) => bail!("no key has the id `{named}`"),
        (Some(_), Some(_)) => bail!("more than one key begins with `{named}`: give more digits"),
    }
}

fn id(digest: &Sha256Digest) -> String {
    digest.to_string().chars().take(ID_DIGITS).collect()
}

fn line(digest: &Sha256Digest, record: Option<&KeyRecord>) -> String {
    let Some(record) = record else { return format!("{}  (not readable)", id(digest)) };
    let limit = |limit: Option<NonZeroU32>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
    let scopes: Vec<_> = record.scopes.iter().map(|scope| scope.as_str()).collect();
    format!(
        "{}  {}  {}  jobs {}  per-minute {}  {}  {}",
        id(digest),
        record.tenant,
        scopes.join(","),
        limit(record.limits.jobs),
        limit(record.limits.per_minute),
        record.created_at.map_or_else(|| "-".to_owned(), |at| at.to_string()),
        record.note.as_deref().unwrap_or("-"),
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(keys: &[&str]) -> BTreeMap<Sha256Digest, Option<KeyRecord>> {
        keys.iter().map(|key| (Sha256Digest::of(key), None)).collect()
    }

    #[test]
    fn keys_are_long_different_and_safe_in_a_header() {
        let (a, b) = (new_key().unwrap(), new_key().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.len(), KEY_PREFIX.len() + 43);
        assert!(a.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')), "{a}");
    }

    #[test]
    fn a_key_is_found_by_itself_and_by_the_digits_that_lists_show() {
        let known = known(&["orfeas_a", "orfeas_b"]);
        let digest = Sha256Digest::of("orfeas_a");
        assert_eq!(find("orfeas_a", &known).unwrap(), digest);
        assert_eq!(find(&id(&digest), &known).unwrap(), digest);
        assert_eq!(find(&digest.to_string().to_uppercase(), &known).unwrap(), digest);
        for bad in ["orfeas_c", "abc", "000000000000"] {
            assert!(find(bad, &known).is_err(), "{bad}");
        }
        assert!(!find("orfeas_secret", &known).unwrap_err().to_string().contains("secret"));
    }

    #[test]
    fn limits_beyond_what_edges_can_count_are_refused() {
        let add = |jobs| Add {
            tenant: "acme".parse().unwrap(),
            scopes: vec![Scope::Read, Scope::Submit, Scope::Read],
            jobs: NonZeroU32::new(jobs),
            per_minute: None,
            note: None,
        };
        let record = add(3).record(Timestamp::from_unix_ms(1)).unwrap();
        assert_eq!(record.scopes, [Scope::Submit, Scope::Read]);
        assert!(add(KeyLimits::JOBS_MAX + 1).record(Timestamp::from_unix_ms(1)).is_err());
    }
}
