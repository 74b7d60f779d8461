//! Pictures that others made, good and bad, through the public edge.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use orfeas_tests::stack::Stack;
use orfeas_tests::{corpus, pictures};

/// Under this on a side a picture may be refused.
const SIDE_MIN: u32 = 16;

#[tokio::test]
async fn bad_pictures_are_told_from_good_ones_without_an_error_of_ours() {
    let Some(folder) = corpus::find() else { return };
    let stack = Stack::start().await;
    let client = stack.client();
    let mut score: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let mut misses = Vec::new();
    for row in corpus::bad(&folder) {
        let Ok(bytes) = std::fs::read(folder.join("bad").join(&row.file)) else { continue };
        // The manifest asks decoders, which show the first frame; the contract refuses more than one.
        let animated = bytes.windows(4).any(|kind| kind == b"acTL" || kind == b"ANIM");
        let start = Instant::now();
        let response = client.post_raw("/api/uploads", &row.send_as, bytes).await;
        let status = response.status().as_u16();
        assert!(status < 500, "{}: {status} {}", row.file, response.text().await.unwrap());
        assert!(start.elapsed() < Duration::from_secs(30), "{}: {:?}", row.file, start.elapsed());
        let tiny = row.dims.is_some_and(|(w, h)| w < SIDE_MIN || h < SIDE_MIN);
        let right = match row.expected.as_str() {
            "reject" => matches!(status, 413 | 415 | 422),
            "accept" => tiny || (animated && status == 422) || matches!(status, 200 | 201),
            _ => true,
        };
        let entry = score.entry(format!("{}/{}", row.expected, row.class)).or_default();
        entry.0 += u32::from(right);
        entry.1 += 1;
        if !right {
            misses.push(format!("{} ({}, {}): {status}", row.file, row.expected, row.class));
        }
    }
    for (class, (right, all)) in &score {
        println!("{class}: {right}/{all}");
    }
    assert!(misses.is_empty(), "{} misses:\n{}", misses.len(), misses.join("\n"));
    // The edge is as well as before.
    client.submit_png(pictures::png(64, 1), &[]).await;
}
