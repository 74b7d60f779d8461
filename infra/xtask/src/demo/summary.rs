//! What the demo prints about the model that came back.

use std::fmt::Write;
use std::path::Path;

use super::client::Job;
use crate::progress::human_bytes;

const STAGE_METRIC: &str = "orfeas_job_stage_duration_seconds_sum";

/// The closing lines: where the model lies, what it is, and how long each stage took.
pub(crate) fn text(job: &Job, file: &Path, file_bytes: u64, stages: &[(String, f64)]) -> String {
    let mut lines = String::new();
    let mut line = |label: &str, value: String| {
        // Writing into a String cannot fail.
        let _ = writeln!(lines, "  {label:<12} {value}");
    };
    line("model file", format!("{} ({})", file.display(), human_bytes(file_bytes)));
    line("job", job.id.clone());
    if let Some(channel) = &job.channel {
        line("channel", channel.clone());
    }
    if let Some(model) = &job.model {
        let family = model.family.as_deref().unwrap_or("unknown");
        let version = model.version.as_deref().unwrap_or("");
        line("family", format!("{family} {version}").trim_end().to_owned());
    }
    if let Some(result) = &job.result {
        if let (Some(vertices), Some(faces)) = (result.vertices, result.faces) {
            line("mesh", format!("{faces} faces, {vertices} vertices"));
        }
        if let Some(watertight) = result.watertight {
            line("watertight", if watertight { "yes" } else { "no" }.into());
        }
        if let Some(bounds) = &result.bounds {
            let corner = |c: [f64; 3]| format!("({:.3}, {:.3}, {:.3})", c[0], c[1], c[2]);
            line("bounds", format!("{} to {}", corner(bounds.min), corner(bounds.max)));
        }
    }
    let total: f64 = stages.iter().map(|(_, seconds)| seconds).sum();
    for (stage, seconds) in stages {
        line(stage, format!("{:>7.0} ms", seconds * 1000.0));
    }
    if !stages.is_empty() {
        line("all stages", format!("{:>7.0} ms", total * 1000.0));
    }
    lines
}

/// Seconds for each stage, the longest first, out of the node's metrics (Prometheus text format).
pub(crate) fn stage_seconds(metrics: &str) -> Vec<(String, f64)> {
    let mut stages: Vec<(String, f64)> = metrics
        .lines()
        .filter_map(|line| {
            let labels = line.strip_prefix(STAGE_METRIC)?.strip_prefix('{')?;
            let (labels, value) = labels.split_once("} ")?;
            let stage =
                labels.split(',').find_map(|label| label.strip_prefix("stage=\""))?.strip_suffix('"')?;
            let seconds = value.split(' ').next()?.parse().ok()?;
            Some((stage.to_owned(), seconds))
        })
        .collect();
    stages.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_times_are_read_from_prometheus_text() {
        let metrics = "# TYPE orfeas_job_stage_duration_seconds histogram\n\
            orfeas_job_stage_duration_seconds_sum{stage=\"texture\"} 0.125 1700000000\n\
            orfeas_job_stage_duration_seconds_sum{stage=\"surface\"} 0.25\n\
            orfeas_job_stage_duration_seconds_count{stage=\"surface\"} 1\n\
            orfeas_queue_wait_seconds_sum 3\n";
        assert_eq!(stage_seconds(metrics), [("surface".to_owned(), 0.25), ("texture".to_owned(), 0.125)]);
    }

    #[test]
    fn mesh_and_stages_are_told_in_words() {
        let job: Job = serde_json::from_str(
            r#"{"id":"j1","status":"completed","progress":100,"channel":"stable",
                "model":{"family":"silhouette","version":null},
                "result":{"bytes":9,"vertices":10,"faces":16,"watertight":true,
                          "bounds":{"min":[-0.5,-1,0],"max":[0.5,1,0.25]}}}"#,
        )
        .unwrap();
        let stages = [("surface".to_owned(), 0.25), ("texture".to_owned(), 0.1)];
        let text = text(&job, Path::new("m.glb"), 9, &stages);
        for line in [
            "  channel      stable\n",
            "  family       silhouette\n",
            "  mesh         16 faces, 10 vertices\n",
            "  watertight   yes\n",
            "  bounds       (-0.500, -1.000, 0.000) to (0.500, 1.000, 0.250)\n",
            "  all stages       350 ms\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn summary_tells_only_what_the_job_tells() {
        let job: Job = serde_json::from_str(r#"{"id":"j1","status":"completed","progress":100}"#).unwrap();
        let text = text(&job, Path::new("model.glb"), 1200, &[]);
        assert_eq!(text, "  model file   model.glb (1.2 kB)\n  job          j1\n");
    }
}
