use super::*;

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = Hasher::new();
    crc.update(kind);
    crc.update(data);
    [&(data.len() as u32).to_be_bytes(), &kind[..], data, &crc.finalize().to_be_bytes()].concat()
}

/// A 16 by 16 header of this colour type, 8 bits a sample.
fn header(colour: u8) -> Vec<u8> {
    chunk(b"IHDR", &[0, 0, 0, 16, 0, 0, 0, 16, 8, colour, 0, 0, 0])
}

fn pixels(samples: usize) -> Vec<u8> {
    chunk(b"IDAT", &fdeflate::compress_to_vec(&vec![0; 16 * (1 + 16 * samples)]))
}

fn walk(chunks: &[Vec<u8>]) -> Result<Option<Picture>, Rejection> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    file.extend(chunks.iter().flatten());
    let mut walker = PngWalker::new(Limits::default());
    walker.read(&file)?;
    Ok(walker.picture())
}

#[track_caller]
fn check(chunks: &[Vec<u8>], expected: Result<(), &'static str>) {
    match (walk(chunks), expected) {
        (Ok(picture), Ok(())) => assert!(picture.is_some()),
        (refused, Err(reason)) => assert_eq!(refused, Err(corrupt(reason))),
        (refused, _) => panic!("{refused:?}"),
    }
}

fn end() -> Vec<u8> {
    chunk(b"IEND", b"")
}

#[test]
fn chunks_in_order_pass() {
    check(&[header(0), pixels(1), end()], Ok(()));
    check(
        &[
            header(2),
            chunk(b"PLTE", &[0; 6]),
            chunk(b"tEXt", b"a"),
            pixels(3),
            chunk(b"tIME", &[0; 7]),
            end(),
        ],
        Ok(()),
    );
    check(&[header(3), chunk(b"PLTE", &[0; 768]), pixels(1), end()], Ok(()));
}

#[test]
fn pixels_may_be_cut_into_chunks_but_not_interrupted() {
    let compressed = fdeflate::compress_to_vec(&[0; 16 * 17]);
    let (first, second) = compressed.split_at(5);
    let (first, second) = (chunk(b"IDAT", first), chunk(b"IDAT", second));
    let empty = chunk(b"IDAT", b"");
    check(&[header(0), empty.clone(), first.clone(), empty, second.clone(), end()], Ok(()));
    let interrupted = [header(0), first, chunk(b"tEXt", b"a"), second, end()];
    assert!(matches!(walk(&interrupted), Err(Rejection::Corrupt { .. })));
    let twice = [header(0), pixels(1), chunk(b"tEXt", b"a"), pixels(1), end()];
    check(&twice, Err("the pixel data is interrupted by another chunk"));
}

#[test]
fn chunks_out_of_order_are_refused() {
    check(&[pixels(1)], Err("the header is not the first chunk"));
    check(&[header(0), header(0)], Err("a second header"));
    check(&[header(0), end()], Err("there is no pixel data"));
    check(&[header(3), pixels(1), end()], Err("the palette is missing"));
    let palette = || chunk(b"PLTE", &[0; 3]);
    check(&[header(3), palette(), palette()], Err("the palette has a wrong length or place"));
    check(&[header(2), pixels(3), palette()], Err("the palette has a wrong length or place"));
    check(&[header(3), chunk(b"PLTE", &[0; 4])], Err("the palette has a wrong length or place"));
    check(&[header(0), chunk(b"ABCD", b"")], Err("an unknown critical chunk"));
    check(&[header(0), pixels(1), chunk(b"IEND", b"x")], Err("the end chunk is not empty"));
}

#[test]
fn animations_are_told_from_pictures_by_their_frames() {
    let animation = |frames: u8| chunk(b"acTL", &[0, 0, 0, frames, 0, 0, 0, 0]);
    let refused = walk(&[header(0), animation(2), pixels(1), end()]);
    assert_eq!(refused, Err(Rejection::MultipleFrames { format: ImageFormat::Png }));
    check(&[header(0), animation(1), pixels(1), end()], Ok(()));
    check(&[header(0), pixels(1), animation(9), end()], Ok(()));
}

#[test]
fn a_wrong_checksum_is_refused_in_every_chunk() {
    for broken in 0..4 {
        let mut chunks = [header(0), chunk(b"tEXt", b"a"), pixels(1), end()];
        *chunks[broken].last_mut().unwrap() ^= 1;
        check(&chunks, Err("a chunk's checksum is wrong"));
    }
}
