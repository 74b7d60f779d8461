//! What the user sees while something takes time: bars on a terminal, plain lines in a log.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts bytes; on a pipe, one line when it starts.
pub(crate) fn bytes(label: &str, total_bytes: u64) -> ProgressBar {
    announce(&format!("{label} ({})", human_bytes(total_bytes)));
    let bar = ProgressBar::new(total_bytes);
    bar.set_style(style("  {msg:<34} {bar:28} {decimal_bytes:>10} of {decimal_total_bytes:<10} {eta:>4}"));
    bar.set_message(label.to_owned());
    bar
}

/// A bar from 0 to 100 with a changing message.
pub(crate) fn percent(label: &str) -> ProgressBar {
    announce(label);
    let bar = ProgressBar::new(100);
    bar.set_style(style("  {msg:<34} {bar:28} {pos:>3} % {elapsed:>4}"));
    bar.set_message(label.to_owned());
    bar
}

/// A turning wheel for steps whose length is unknown.
pub(crate) fn spinner(label: &str) -> ProgressBar {
    announce(label);
    let bar = ProgressBar::new_spinner();
    bar.set_style(style("  {msg} {spinner} {elapsed}"));
    bar.set_message(label.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Gives a bar another message; on a pipe, that is another line.
pub(crate) fn rename(bar: &ProgressBar, message: &str) {
    announce(message);
    bar.set_message(message.to_owned());
}

fn announce(line: &str) {
    if !std::io::stderr().is_terminal() {
        eprintln!("  {line}");
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A heading for a step of a longer command, and its duration when it ends well.
pub(crate) fn step<T>(title: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    eprintln!("\n== {title}");
    let started = Instant::now();
    let value = work()?;
    eprintln!("== {title}: {}", human_duration(started.elapsed()));
    Ok(value)
}

/// `532.6 MB`, `12 B`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "kB", "MB", "GB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `0.25 s`, `41 s`, `12 min 05 s`.
pub(crate) fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 {
        format!("{seconds:.2} s")
    } else if seconds < 60.0 {
        format!("{seconds:.0} s")
    } else {
        let whole = duration.as_secs();
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_the_unit_a_person_would_choose() {
        assert_eq!(human_bytes(12), "12 B");
        assert_eq!(human_bytes(1_500), "1.5 kB");
        assert_eq!(human_bytes(999_960), "1.0 MB");
        assert_eq!(human_bytes(530_604_548), "530.6 MB");
    }

    #[test]
    fn durations_lose_precision_as_they_grow() {
        assert_eq!(human_duration(Duration::from_millis(250)), "0.25 s");
        assert_eq!(human_duration(Duration::from_secs(41)), "41 s");
        assert_eq!(human_duration(Duration::from_secs(725)), "12 min 05 s");
    }
}
