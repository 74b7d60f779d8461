//! One entropy-coded image of a VP8L stream (RFC 9649, 3.5 to 3.7): the picture itself, the data of a
//! transform, or the entropy image that says which prefix codes hold for which tile of the picture.
//!
//! Of an entropy image the values are needed, so they are kept. Of all others only the positions matter:
//! a back-reference must lie within what has been coded, and the last one must end with the image.

use super::super::corrupt;
use super::bits::{Bits, REFILL_BITS};
use super::distance::plane_distance;
use super::prefix::{PrefixCode, read_code};
use super::values::Values;
use crate::webp::container::Size;
use crate::{ImageFormat, Rejection};

/// Memory for prefix codes. A thousand groups, far more than encoders write, take a few MiB.
const CODES_BYTES_MAX: usize = 24 * 1024 * 1024;

/// Bytes that one pixel cannot exceed: five codes of 15 bits, or two with their extra bits.
const PIXEL_BYTES_MAX: usize = 16;

const LITERALS: u16 = 256;
const LENGTH_CODES: u16 = 24;
const DISTANCE_CODES: usize = 40;

/// What an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The picture: may be tiled by an entropy image.
    Picture,
    /// An entropy image: its values are needed.
    Tiles,
    /// Data of a transform: read and forgotten.
    Transform,
}

/// An image being read.
#[derive(Debug)]
pub(super) struct EntropyImage {
    role: Role,
    width: usize,
    pixels: usize,
    stage: Stage,
    cache_bits: u32,
    tiles: Option<Tiles>,
    groups: Groups,
    cursor: Cursor,
    values: Option<Values>,
}

/// The place of the next pixel.
#[derive(Debug, Default)]
struct Cursor {
    at: usize,
    x: usize,
    y: usize,
}

#[derive(Debug)]
enum Stage {
    ColourCache,
    Tiling,
    TileImage { bits: u32, image: Box<EntropyImage> },
    Codes(Vec<PrefixCode>),
    Pixels,
    Done,
}

/// Which group of prefix codes holds where.
#[derive(Debug)]
struct Tiles {
    bits: u32,
    width: usize,
    groups: Vec<u16>,
}

/// The groups of prefix codes. Those that no tile names are read and dropped.
#[derive(Debug, Default)]
struct Groups {
    /// By number: whether a tile names it.
    used: Vec<bool>,
    read: Vec<Option<Box<Group>>>,
    heap_bytes: usize,
}

/// The five codes of a group.
#[derive(Debug)]
struct Group {
    /// Green values, lengths and colour cache indexes.
    main: PrefixCode,
    red: PrefixCode,
    blue: PrefixCode,
    alpha: PrefixCode,
    distance: PrefixCode,
    /// Whether a green value is all that a literal takes bits for.
    is_green_only: bool,
}

/// One symbol of the main code, with what belongs to it.
enum Step {
    Literal(u32),
    Copy { length: usize, distance_code: usize },
    Cached(usize),
}

impl EntropyImage {
    pub(super) fn new(role: Role, (width, height): Size) -> Self {
        let (width, pixels) = (width as usize, width as usize * height as usize);
        let values = (role == Role::Tiles).then(|| Values::new(pixels));
        Self {
            role,
            width,
            pixels,
            stage: Stage::ColourCache,
            cache_bits: 0,
            tiles: None,
            groups: Groups::default(),
            cursor: Cursor::default(),
            values,
        }
    }

    /// Reads on; says whether the image is complete.
    pub(super) fn read(&mut self, bits: &mut Bits<'_>) -> Result<bool, Rejection> {
        loop {
            let went_on = match &mut self.stage {
                Stage::ColourCache => self.read_colour_cache(bits)?,
                Stage::Tiling => self.read_tiling(bits)?,
                Stage::TileImage { bits: tile_bits, image } => {
                    let is_complete = image.read(bits)?;
                    if is_complete {
                        let groups = image.values.take().map(Values::into_groups).unwrap_or_default();
                        let has_tiles = groups.iter().any(|&group| group > 0);
                        self.tiles =
                            has_tiles.then_some(Tiles { bits: *tile_bits, width: image.width, groups });
                        self.prepare_groups();
                    }
                    is_complete
                }
                Stage::Codes(_) => self.read_codes(bits)?,
                Stage::Pixels => self.read_pixels(bits)?,
                Stage::Done => return Ok(true),
            };
            if !went_on {
                return Ok(false);
            }
        }
    }

    fn read_colour_cache(&mut self, bits: &mut Bits<'_>) -> Result<bool, Rejection> {
        let cache_bits = bits.attempt(|bits| match bits.take(1) {
            0 => Ok(0),
            _ => match bits.take(4) {
                valid @ 1..=11 => Ok(valid),
                _ => Err(corrupt("the colour cache has an invalid size")),
            },
        })?;
        let Some(cache_bits) = cache_bits else { return Ok(false) };
        self.cache_bits = cache_bits;
        if let Some(values) = &mut self.values {
            values.set_cache(cache_bits);
        }
        self.stage = Stage::Tiling;
        Ok(true)
    }

    fn read_tiling(&mut self, bits: &mut Bits<'_>) -> Result<bool, Rejection> {
        if self.role != Role::Picture {
            self.prepare_groups();
            return Ok(true);
        }
        let tile_bits = bits.attempt(|bits| Ok((bits.take(1) == 1).then(|| 2 + bits.take(3))))?;
        match tile_bits {
            None => return Ok(false),
            Some(None) => self.prepare_groups(),
            Some(Some(bits)) => {
                let height = self.pixels / self.width;
                let size = (self.width.div_ceil(1 << bits) as u32, height.div_ceil(1 << bits) as u32);
                self.stage = Stage::TileImage { bits, image: Box::new(Self::new(Role::Tiles, size)) };
            }
        }
        Ok(true)
    }

    fn prepare_groups(&mut self) {
        let named = self.tiles.as_ref().map_or(&[0][..], |tiles| &tiles.groups);
        let last = named.iter().copied().max().unwrap_or_default();
        self.groups.used = vec![false; usize::from(last) + 1];
        for &group in named {
            if let Some(used) = self.groups.used.get_mut(usize::from(group)) {
                *used = true;
            }
        }
        self.stage = Stage::Codes(Vec::with_capacity(5));
    }

    /// Reads one prefix code, the next of the group that is being read.
    fn read_codes(&mut self, bits: &mut Bits<'_>) -> Result<bool, Rejection> {
        let Stage::Codes(codes) = &mut self.stage else { return Ok(true) };
        let cache_symbols = if self.cache_bits > 0 { 1 << self.cache_bits } else { 0 };
        let alphabet = match codes.len() {
            0 => usize::from(LITERALS + LENGTH_CODES) + cache_symbols,
            4 => DISTANCE_CODES,
            _ => usize::from(LITERALS),
        };
        let Some(code) = bits.attempt(|bits| read_code(bits, alphabet))? else { return Ok(false) };
        codes.push(code);
        if let Ok(five) = <[PrefixCode; 5]>::try_from(std::mem::take(codes)).map_err(|fewer| *codes = fewer)
            && self.groups.add(Group::new(five))?
        {
            self.stage = Stage::Pixels;
        }
        Ok(true)
    }

    /// Reads pixels up to the end of the image or of the window.
    fn read_pixels(&mut self, bits: &mut Bits<'_>) -> Result<bool, Rejection> {
        let Self { cursor, tiles, groups, values, width, pixels, .. } = self;
        while cursor.at < *pixels {
            let (number, run) = match tiles {
                Some(tiles) => tiles.at(cursor, *width),
                None => (0, *pixels - cursor.at),
            };
            let group = groups.read.get(number).and_then(Option::as_deref);
            let group = group.ok_or_else(|| corrupt("a tile names a group that does not exist"))?;
            let (passed, end) = group.read_run(bits, run, values)?;
            cursor.advance(passed, *width);
            match end {
                RunEnd::Complete => {}
                RunEnd::Paused => return Ok(false),
                RunEnd::Copy { length, distance_code } => {
                    let distance = plane_distance(distance_code, *width);
                    if distance > cursor.at || length > *pixels - cursor.at {
                        return Err(corrupt("a back-reference reaches out of the picture"));
                    }
                    if let Some(values) = values {
                        values.copy(distance, length);
                    }
                    cursor.advance(length, *width);
                }
            }
        }
        self.stage = Stage::Done;
        self.groups = Groups::default();
        self.tiles = None;
        Ok(true)
    }
}

impl Cursor {
    fn advance(&mut self, pixels: usize, width: usize) {
        self.at += pixels;
        self.x += pixels;
        if self.x >= width {
            self.y += self.x / width;
            self.x %= width;
        }
    }
}

impl Tiles {
    /// The group at a place, and for how many pixels of the row it holds.
    fn at(&self, cursor: &Cursor, width: usize) -> (usize, usize) {
        let tile = (cursor.y >> self.bits) * self.width + (cursor.x >> self.bits);
        let tile_end = ((cursor.x >> self.bits) + 1) << self.bits;
        (self.groups.get(tile).copied().unwrap_or_default().into(), tile_end.min(width) - cursor.x)
    }
}

impl Groups {
    /// Adds the next group; says whether it was the last.
    fn add(&mut self, group: Group) -> Result<bool, Rejection> {
        if self.used.get(self.read.len()) == Some(&true) {
            self.heap_bytes +=
                size_of::<Group>() + group.codes().iter().map(|code| code.heap_bytes()).sum::<usize>();
            if self.heap_bytes > CODES_BYTES_MAX {
                let feature = "an extreme number of prefix codes";
                return Err(Rejection::UnsupportedFeature { format: ImageFormat::Webp, feature });
            }
            self.read.push(Some(Box::new(group)));
        } else {
            self.read.push(None);
        }
        Ok(self.read.len() == self.used.len())
    }
}

/// What ended a run of pixels with the same group.
enum RunEnd {
    Complete,
    Paused,
    Copy { length: usize, distance_code: usize },
}

impl Group {
    fn new([main, red, blue, alpha, distance]: [PrefixCode; 5]) -> Self {
        let is_green_only = [&red, &blue, &alpha].iter().all(|code| code.is_trivial());
        Self { main, red, blue, alpha, distance, is_green_only }
    }

    fn codes(&self) -> [&PrefixCode; 5] {
        [&self.main, &self.red, &self.blue, &self.alpha, &self.distance]
    }

    /// Reads up to `run` pixels, up to and with the first back-reference; says how many pixels stand before it.
    fn read_run(
        &self,
        bits: &mut Bits<'_>,
        run: usize,
        values: &mut Option<Values>,
    ) -> Result<(usize, RunEnd), Rejection> {
        // A picture of one colour takes no bits, so that a few bytes may stand for all of its pixels.
        if self.main.is_trivial() && self.is_green_only && values.is_none() {
            let is_literal = matches!(self.step(&mut bits.clone()), Step::Literal(_));
            if is_literal {
                return Ok((run, RunEnd::Complete));
            }
        }
        for passed in 0..run {
            let step = if bits.unread() >= PIXEL_BYTES_MAX {
                self.step(bits)
            } else {
                match bits.attempt(|bits| Ok::<_, Rejection>(self.step(bits)))? {
                    Some(step) => step,
                    None => return Ok((passed, RunEnd::Paused)),
                }
            };
            match (step, values.as_mut()) {
                (Step::Copy { length, distance_code }, _) => {
                    return Ok((passed, RunEnd::Copy { length, distance_code }));
                }
                (Step::Literal(value), Some(values)) => values.push(value),
                (Step::Cached(index), Some(values)) => values.push_cached(index),
                (_, None) => {}
            }
        }
        Ok((run, RunEnd::Complete))
    }

    #[inline(always)]
    fn step(&self, bits: &mut Bits<'_>) -> Step {
        bits.refill();
        let symbol = self.main.take(bits);
        if symbol < LITERALS {
            let red = self.red.take(bits);
            let blue = self.blue.take(bits);
            if !self.is_green_only {
                bits.refill();
            }
            let alpha = self.alpha.take(bits);
            return Step::Literal(argb(alpha, red, symbol, blue));
        }
        if symbol < LITERALS + LENGTH_CODES {
            let length = prefixed(bits, symbol - LITERALS);
            let distance_symbol = self.distance.take(bits);
            return Step::Copy { length, distance_code: prefixed(bits, distance_symbol) };
        }
        Step::Cached(usize::from(symbol - LITERALS - LENGTH_CODES))
    }
}

fn argb(alpha: u16, red: u16, green: u16, blue: u16) -> u32 {
    u32::from(alpha) << 24 | u32::from(red) << 16 | u32::from(green) << 8 | u32::from(blue)
}

/// A length or distance: a prefix symbol and its extra bits (RFC 9649, 3.6.2.2).
#[inline]
fn prefixed(bits: &mut Bits<'_>, symbol: u16) -> usize {
    let symbol = u32::from(symbol);
    if symbol < 4 {
        return symbol as usize + 1;
    }
    let extra_bits = (symbol - 2) >> 1;
    let offset = (2 + (symbol & 1)) << extra_bits;
    (offset + bits.take(extra_bits)) as usize + 1
}

const _: () = assert!(3 * 15 <= REFILL_BITS && 15 + 10 + 15 <= REFILL_BITS);
