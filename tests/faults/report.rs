//! A run's outcome as a row of a table.

use std::fmt::Write as _;
use std::time::Duration;

use super::audit::Findings;
use super::load::Submitted;
use super::plan::Plan;

/// One run.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was to happen.
    pub plan: Plan,
    /// Why it did not: the machine cannot do it.
    pub skipped: Option<String>,
    /// What became of the submissions.
    pub submitted: Submitted,
    /// Faults that struck.
    pub faults: usize,
    /// What the audit found.
    pub findings: Findings,
    /// Views of jobs that were checked.
    pub views: u64,
    /// Views that must not be.
    pub violations: Vec<String>,
    /// From the first submission to the last end.
    pub wall: Duration,
}

impl Row {
    /// A run that this machine cannot do.
    pub fn skipped(plan: Plan, reason: String) -> Row {
        Row {
            plan,
            skipped: Some(reason),
            submitted: Submitted::default(),
            faults: 0,
            findings: Findings::default(),
            views: 0,
            violations: Vec::new(),
            wall: Duration::ZERO,
        }
    }

    /// Everything that is wrong, a line each. A job that failed is wrong too: nothing that strikes here is the
    /// job's fault.
    pub fn defects(&self) -> Vec<String> {
        let findings = &self.findings;
        let failed = findings.by_status.get("failed").copied().unwrap_or_default();
        let named = |kind: &str, list: &[String]| -> Vec<String> {
            list.iter().map(|item| format!("{kind}: {item}")).collect()
        };
        let mut defects = [
            named("lost", &findings.lost),
            named("duplicated", &findings.duplicated),
            named("stuck", &findings.stuck),
            named("must not be seen", &self.violations),
        ]
        .concat();
        if failed > 0 {
            defects.push(format!("{failed} jobs failed"));
        }
        if self.submitted.gave_up > 0 {
            defects.push(format!("{} callers were never accepted", self.submitted.gave_up));
        }
        defects
    }

    fn count(&self, status: &str) -> usize {
        self.findings.by_status.get(status).copied().unwrap_or_default()
    }
}

/// A Markdown table.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| scenario | seed | faults | acknowledged | refused, asked again | completed | cancelled | failed \
         | lost | duplicated | stuck | illegal views (of) | starts, at most | ended after the last fault | wall |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let plan = &row.plan;
        if let Some(reason) = &row.skipped {
            let _ = writeln!(
                text,
                "| {} | {} | skipped: {reason} |||||||||||||",
                plan.scenario.name(),
                plan.seed
            );
            continue;
        }
        let findings = &row.findings;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} ({}) | {} | {:.1} s | {:.0} s |",
            plan.scenario.name(),
            plan.seed,
            row.faults,
            row.submitted.acknowledged.len(),
            row.submitted.refusals,
            row.count("completed"),
            row.count("cancelled"),
            row.count("failed"),
            findings.lost.len(),
            findings.duplicated.len(),
            findings.stuck.len(),
            row.violations.len(),
            row.views,
            findings.attempts_max,
            findings.settled_after.as_secs_f64(),
            row.wall.as_secs_f64(),
        );
    }
    text
}
