//! `rollout`: how much of the traffic the canary channel gets. Edges see a change within a second.

use anyhow::{Context, bail};
use async_nats::jetstream::kv;
use clap::{Args, Subcommand};
use orfeas_protocol::rollout::Rollout;
use orfeas_protocol::subjects::ROLLOUT_BUCKET;

use super::connect;
use crate::config::NatsFlags;

#[derive(Debug, Args)]
pub(super) struct RolloutCommand {
    #[command(flatten)]
    nats: NatsFlags,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Sets the canary's share
    Set {
        /// 0 to 100, in steps of 0.01
        percent: f64,
    },
    /// Prints the canary's share
    Show,
}

impl RolloutCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let connection = connect(self.nats).await?;
        let bucket = connection.bucket(ROLLOUT_BUCKET).await;
        let bucket = bucket.context("is there a node that serves? it creates the rollout's bucket")?;
        match self.action {
            Action::Set { percent } => set(&bucket, percent).await?,
            Action::Show => {}
        }
        println!("canary {} %", read(&bucket).await?.canary_percent);
        Ok(())
    }
}

/// Sets the share and keeps the salt, so that nobody who is on the canary moves away as it grows.
async fn set(bucket: &kv::Store, percent: f64) -> anyhow::Result<()> {
    if !(0.0..=100.0).contains(&percent) {
        bail!("{percent} is not a share from 0 to 100");
    }
    let rollout = Rollout { canary_percent: percent, ..read(bucket).await? };
    let value = serde_json::to_vec(&rollout).context("cannot write the rollout's state")?;
    bucket.put(Rollout::KEY, value.into()).await.context("cannot store the rollout's state")?;
    Ok(())
}

async fn read(bucket: &kv::Store) -> anyhow::Result<Rollout> {
    let value = bucket.get(Rollout::KEY).await.context("cannot read the rollout's state")?;
    value.map_or_else(
        || Ok(Rollout::default()),
        |value| serde_json::from_slice(&value).context("the rollout's state is not readable"),
    )
}
