//! The long form of the fault tests: `cargo xtask faults`.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use orfeas_tests::faults::{Scenario, run_and_tell, table};

/// Kills, fills and misleads the service, and audits what is left.
#[derive(Debug, Parser)]
struct Options {
    /// Jobs of each scenario
    #[arg(long, default_value_t = 200)]
    jobs: usize,
    /// What the schedules are drawn from [default: the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Goes on with further seeds until so many minutes are over
    #[arg(long)]
    minutes: Option<u64>,
    /// Only the scenarios whose names contain this
    #[arg(long, default_value = "")]
    scenario: String,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let rows = runtime.block_on(rows(&options));
    print!("\n{}", table(&rows));
    let defects: usize = rows.iter().map(|row| row.defects().len()).sum();
    if defects > 0 {
        println!("\n{defects} defects");
    }
    if defects == 0 && !rows.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn rows(options: &Options) -> Vec<orfeas_tests::faults::Row> {
    let scenarios: Vec<_> =
        Scenario::ALL.into_iter().filter(|scenario| scenario.name().contains(&options.scenario)).collect();
    let of_the_time =
        || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs() % 1_000_000);
    let mut seed = options.seed.unwrap_or_else(of_the_time);
    let until = options.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let mut rows = Vec::new();
    loop {
        for &scenario in &scenarios {
            let row = run_and_tell(scenario, options.jobs, seed).await;
            let verdict = if row.defects().is_empty() { "as promised" } else { "NOT as promised" };
            println!("{} (seed {seed}): {verdict}, {:.0} s", scenario.name(), row.wall.as_secs_f64());
            rows.push(row);
        }
        match until {
            Some(until) if Instant::now() < until && !scenarios.is_empty() => seed += 1,
            _ => return rows,
        }
    }
}
