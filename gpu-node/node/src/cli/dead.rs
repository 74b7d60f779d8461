//! `dead`: the jobs that were given up, for an operator to look at, to try again or to forget.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use orfeas_protocol::{JobId, Region};

use super::connect;
use crate::config::NatsFlags;
use crate::service::{DeadLetter, DeadLetters};

/// Letters shown unless asked otherwise.
const LIMIT_DEFAULT: usize = 1_000;
/// Characters of a message in a table's line.
const MESSAGE_CHARS: usize = 60;

#[derive(Debug, Args)]
pub(super) struct Dead {
    #[command(flatten)]
    nats: NatsFlags,
    /// Deployment region
    #[arg(long, env = "ORFEAS_REGION", value_name = "NAME", default_value = "local", global = true)]
    region: Region,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Shows the jobs that were given up, the newest last
    List {
        /// As a JSON array of the letters
        #[arg(long)]
        json: bool,
        /// The newest so many
        #[arg(long, value_name = "N", default_value_t = LIMIT_DEFAULT)]
        limit: usize,
    },
    /// Prints all that is known of a job that was given up, as JSON
    Show {
        /// The job
        id: JobId,
    },
    /// Queues jobs once more, each as a new job that names the old one, and removes their letters
    Retry(Chosen),
    /// Removes letters; the jobs stay failed
    Drop(Chosen),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Chosen {
    /// The jobs
    ids: Vec<JobId>,
    /// All that there are
    #[arg(long)]
    all: bool,
}

impl Dead {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let connection = connect(self.nats).await?;
        let letters = DeadLetters::open(connection, self.region).await;
        let letters = letters.context("is there a node that serves this region? it creates the streams")?;
        match self.action {
            Action::List { json, limit } => list(&letters, json, limit).await,
            Action::Show { id } => {
                println!("{}", serde_json::to_string_pretty(&letters.get(id).await?)?);
                Ok(())
            }
            Action::Retry(chosen) => each(&letters, chosen, Each::Retry).await,
            Action::Drop(chosen) => each(&letters, chosen, Each::Drop).await,
        }
    }
}

async fn list(letters: &DeadLetters, json: bool, limit: usize) -> anyhow::Result<()> {
    let found = letters.list(limit).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else if found.is_empty() {
        eprintln!("no job was given up");
    } else {
        print!("{}", table(&found));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Each {
    Retry,
    Drop,
}

/// Does all that can be done, and fails if anything could not.
async fn each(letters: &DeadLetters, chosen: Chosen, action: Each) -> anyhow::Result<()> {
    let ids = if chosen.all {
        letters.list(usize::MAX).await?.iter().map(|letter| letter.job.job.id).collect()
    } else {
        chosen.ids
    };
    let mut failures = 0;
    for id in &ids {
        let done = match action {
            Each::Retry => letters.retry(*id).await.map(|new| format!("{id} queued again as {new}")),
            Each::Drop => letters.remove(*id).await.map(|()| format!("{id} dropped")),
        };
        match done {
            Ok(text) => println!("{text}"),
            Err(error) => {
                failures += 1;
                eprintln!("error: {:#}", anyhow::Error::from(error));
            }
        }
    }
    if failures > 0 {
        bail!("{failures} of {} jobs were left as they are", ids.len());
    }
    Ok(())
}

/// A line per letter, in columns.
fn table(letters: &[DeadLetter]) -> String {
    let header = ["JOB", "GIVEN UP AT", "STARTS", "CODE", "MODEL", "TENANT", "MESSAGE"];
    let rows = letters.iter().map(|letter| {
        let job = &letter.job.job;
        [
            job.id.to_string(),
            letter.given_up_at.to_string(),
            letter.attempts.to_string(),
            letter.reason.code.as_str().to_owned(),
            job.model.family.clone().unwrap_or_else(|| "-".to_owned()),
            letter.job.tenant.as_str().to_owned(),
            one_line(&letter.reason.message),
        ]
    });
    let rows: Vec<_> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn one_line(message: &str) -> String {
    let line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= MESSAGE_CHARS {
        return line;
    }
    let cut: String = line.chars().take(MESSAGE_CHARS - 1).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use orfeas_protocol::{JobRecord, Timestamp};

    use super::*;
    use crate::fixtures::new_job;

    #[test]
    fn a_message_takes_one_line_of_bounded_length() {
        assert_eq!(one_line("a\nb"), "a b");
        assert_eq!(one_line(&"ü".repeat(100)).chars().count(), MESSAGE_CHARS);
    }

    #[test]
    fn the_table_has_a_line_per_letter_under_its_header() {
        let created_at = Timestamp::from_unix_ms(1_000);
        let json = serde_json::json!({
            "given_up_at": "2026-11-23T14:00:00.000Z",
            "reason": {"code": "internal", "message": "Something went wrong on our side", "retryable": true},
            "attempts": 5,
            "job": JobRecord::new(new_job(created_at), created_at),
        });
        let letter: DeadLetter = serde_json::from_value(json).unwrap();
        let text = table(&[letter.clone(), letter]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("JOB") && lines[1].contains("  5       internal  "), "{text}");
        assert_eq!(lines[0].find("CODE"), lines[1].find("internal"), "{text}");
    }
}
