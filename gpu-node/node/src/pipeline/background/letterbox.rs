//! Bars that a player or an editor put at two opposite sides of a picture. They are plain and touch the border, so a
//! segmentation would take them for the background and the whole picture for the subject.

use std::ops::Range;

use crate::pipeline::raster::Raster;

/// Colours of a bar differ by no more than this: lossy compression and resampling.
const BAR_SPREAD: f32 = 12.0 / 255.0;

/// This part of a bar's line is of its colour.
const UNIFORM_PART: f32 = 0.98;

/// Where the picture begins, at least this part of a line is of other colours, and so is this part of each end of
/// the line: a subject before a plain background rarely reaches from border to border, a picture always does.
const CONTENT_PART: f32 = 0.85;
const CONTENT_END_PART: f32 = 0.5;

/// How much of a line is its end.
const END: f32 = 0.04;

/// Lines between bar and picture that compression has mixed: one block of JPEG.
const MIXED_LINES_MAX: usize = 8;

/// Lines that are looked at where the picture begins.
const CONTENT_LINES: usize = 4;

/// The picture is at least this part of the whole.
const CONTENT_MIN: f32 = 0.3;

/// The columns and the rows between the bars: all of them where there are none.
pub(super) fn content(colour: &Raster<[f32; 3]>) -> (Range<usize>, Range<usize>) {
    let (width, height) = (colour.width(), colour.height());
    let rows = between_bars(height, width, |line, place| colour.at(place, line)).unwrap_or(0..height);
    let columns = between_bars(width, rows.len(), |line, place| colour.at(line, rows.start + place));
    (columns.unwrap_or(0..width), rows)
}

/// The lines between two bars of one colour, `None` unless both are there.
fn between_bars(lines: usize, length: usize, at: impl Fn(usize, usize) -> [f32; 3]) -> Option<Range<usize>> {
    let bar_colour = at(0, 0);
    let first = bar(lines, length, bar_colour, &at)?;
    let last = bar(lines, length, bar_colour, |line, place| at(lines - 1 - line, place))?;
    let content = first..lines.checked_sub(last)?;
    (content.len() as f32 >= CONTENT_MIN * lines as f32).then_some(content)
}

/// How many lines from the first one are a bar, with those that it is mixed into.
fn bar(
    lines: usize,
    length: usize,
    bar_colour: [f32; 3],
    at: impl Fn(usize, usize) -> [f32; 3],
) -> Option<usize> {
    let of_bar = |line: usize, places: Range<usize>| {
        let total = places.len().max(1) as f32;
        places.filter(|place| is_near(at(line, *place), bar_colour)).count() as f32 / total
    };
    let end = (0..lines).find(|line| of_bar(*line, 0..length) < UNIFORM_PART)?;
    let last_start = (end + MIXED_LINES_MAX).min(lines.checked_sub(CONTENT_LINES)?);
    let end_length = ((length as f32 * END) as usize).max(1);
    let is_content = |start: usize| {
        let other = |places: Range<usize>| {
            let sum: f32 =
                (start..start + CONTENT_LINES).map(|line| 1.0 - of_bar(line, places.clone())).sum();
            sum / CONTENT_LINES as f32
        };
        other(0..length) >= CONTENT_PART
            && other(0..end_length) >= CONTENT_END_PART
            && other(length - end_length..length) >= CONTENT_END_PART
    };
    if end == 0 { None } else { (end..=last_start).find(|start| is_content(*start)) }
}

fn is_near(a: [f32; 3], b: [f32; 3]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= BAR_SPREAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noisy(x: usize, y: usize) -> [f32; 3] {
        [0.4 + 0.3 * ((x * 7 + y * 3) % 10) as f32 / 10.0, 0.5, 0.3]
    }

    #[test]
    fn bars_above_and_below_or_at_both_sides_are_found() {
        let wide = Raster::from_fn(80, 60, |x, y| if (9..50).contains(&y) { noisy(x, y) } else { [0.0; 3] });
        let (columns, rows) = content(&wide);
        assert_eq!((columns, rows), (0..80, 9..50));
        // Ringing of a lossy codec round the edge.
        let ringing = |x: usize, y: usize| y.abs_diff(9) < 3 && (x + y).is_multiple_of(9);
        let rough = Raster::from_fn(80, 60, |x, y| match (ringing(x, y), wide.at(x, y)) {
            (true, colour) => colour.map(|v| v + 0.1),
            (false, colour) => colour,
        });
        assert_eq!(content(&rough), (0..80, 9..50));
        let tall = Raster::from_fn(80, 60, |x, y| if (20..61).contains(&x) { noisy(x, y) } else { [1.0; 3] });
        let (columns, rows) = content(&tall);
        assert_eq!((columns, rows), (20..61, 0..60));
    }

    #[test]
    fn a_subject_before_a_plain_background_is_no_picture_between_bars() {
        let inside = |x: usize, y: usize| (8..72).contains(&x) && (10..50).contains(&y);
        let boxed = Raster::from_fn(80, 60, |x, y| if inside(x, y) { noisy(x, y) } else { [1.0; 3] });
        assert_eq!(content(&boxed), (0..80, 0..60));
        let plain = Raster::filled(80, 60, [0.5; 3]);
        assert_eq!(content(&plain), (0..80, 0..60));
        let one_sided = Raster::from_fn(80, 60, |x, y| if y > 12 { noisy(x, y) } else { [0.0; 3] });
        assert_eq!(content(&one_sided), (0..80, 0..60));
    }
}
