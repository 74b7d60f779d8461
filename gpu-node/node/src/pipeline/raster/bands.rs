//! Rows worked on by several threads. Each row depends on its number alone, so the result does not depend on how
//! many threads there are.

use std::num::NonZero;
use std::sync::OnceLock;

/// Fewer samples than this are done before a second thread has started.
const SAMPLES_MIN: usize = 1 << 15;

/// More threads than this would take the machine from the jobs' neighbours for a few milliseconds' gain.
const THREADS_MAX: usize = 4;

/// Calls `work(y, row)` for each row of `width` samples.
pub(super) fn for_each_row<T: Send>(samples: &mut [T], width: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let width = width.max(1);
    let height = samples.len() / width;
    let threads = if samples.len() < SAMPLES_MIN { 1 } else { threads().min(height.max(1)) };
    if threads == 1 {
        samples.chunks_exact_mut(width).enumerate().for_each(|(y, row)| work(y, row));
        return;
    }
    let band = height.div_ceil(threads);
    let work = &work;
    std::thread::scope(|scope| {
        for (index, rows) in samples.chunks_mut(band * width).enumerate() {
            let mut run = move || {
                for (y, row) in rows.chunks_exact_mut(width).enumerate() {
                    work(index * band + y, row);
                }
            };
            // The last band is this thread's own.
            if (index + 1) * band >= height { run() } else { drop(scope.spawn(run)) }
        }
    });
}

fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_worked_on_once_whatever_the_size() {
        for (width, height) in [(1, 1), (7, 3), (300, 301), (40_000, 3), (1, 70_000)] {
            let mut samples = vec![0; width * height];
            for_each_row(&mut samples, width, |y, row| {
                row.iter_mut().enumerate().for_each(|(x, sample)| *sample += 1 + y * width + x);
            });
            assert!(
                samples.iter().enumerate().all(|(index, sample)| *sample == index + 1),
                "{width} x {height}"
            );
        }
    }
}
