//! JPEG (ITU-T T.81): reads every marker segment and passes over every entropy-coded bit up to the end of
//! image, without dequantising, transforming or storing anything but non-zero maps.
//!
//! Accepted is what common decoders share: Huffman coding, 8 bits, sequential or progressive, 1, 3 or 4
//! components. Refused is whatever a decoder would have to paper over: missing or excess data in a segment,
//! missing restart markers or tables, components without data, no end of image.
//!
//! ```text
//!  mod: segments ─▶ frame (SOF) ─▶ scan (SOS): MCUs, restarts ─▶ huffman, progressive ─▶ bits
//! ```

mod bits;
mod frame;
mod huffman;
pub(crate) mod marker;
mod progressive;
mod scan;

use crate::exif::{self, EXIF_IDENTIFIER, Orientation};
use crate::inspector::Picture;
use crate::{ImageFormat, Limits, Rejection};
use frame::{Frame, Process};
use huffman::Definition;
use marker::{APP1, DAC, DHT, DNL, DQT, DRI, EOI, JPG, SOI, SOS, TEM};
use scan::{Progress, Scan};

/// Scans of one file. Encoders write about ten; each may cost a pass over all blocks for a few bytes.
const SCANS_MAX: u32 = 256;

/// Reads one JPEG file from SOI to EOI.
#[derive(Debug)]
pub(crate) struct JpegWalker {
    limits: Limits,
    state: State,
    tables: Tables,
    frame: Option<Frame>,
    scans: u32,
    orientation: Option<Orientation>,
}

#[derive(Debug)]
enum State {
    Start,
    /// At a marker.
    Marker,
    /// Within a segment whose rest does not matter.
    Skipping {
        bytes: usize,
    },
    Scan(Box<Scan>),
    End,
}

/// What segments between scans define.
#[derive(Debug, Default)]
struct Tables {
    dc: [Option<Definition>; 4],
    ac: [Option<Definition>; 4],
    quantisation_defined: [bool; 4],
    restart_interval: Option<u32>,
}

fn corrupt(reason: &'static str) -> Rejection {
    Rejection::Corrupt { format: ImageFormat::Jpeg, reason }
}

impl JpegWalker {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Start,
            tables: Tables::default(),
            frame: None,
            scans: 0,
            orientation: None,
        }
    }

    pub(crate) fn picture(&self) -> Option<Picture> {
        let State::End = self.state else { return None };
        let frame = self.frame.as_ref()?;
        Some(Picture {
            format: ImageFormat::Jpeg,
            width: frame.width,
            height: frame.height,
            orientation: self.orientation.unwrap_or_default(),
        })
    }

    /// What is being read.
    pub(crate) fn part(&self) -> &'static str {
        match self.state {
            State::Scan(_) => "entropy-coded data",
            _ if self.frame.is_none() => "header",
            _ if self.scans == 0 => "tables",
            _ => "segments, before the end-of-image marker",
        }
    }

    /// Reads what it can of `window`; returns the number of bytes read.
    pub(crate) fn read(&mut self, window: &[u8]) -> Result<usize, Rejection> {
        let mut at = 0;
        loop {
            let rest = window.get(at..).unwrap_or_default();
            let read = match &mut self.state {
                State::Start => match rest {
                    [0xff, SOI, ..] => {
                        self.state = State::Marker;
                        2
                    }
                    [_, _, ..] => return Err(corrupt("the start-of-image marker is missing")),
                    _ => return Ok(at),
                },
                State::Marker => match self.read_segment(rest)? {
                    Some(read) => read,
                    None => return Ok(at),
                },
                State::Skipping { bytes } => {
                    let now = rest.len().min(*bytes);
                    *bytes -= now;
                    if *bytes > 0 {
                        return Ok(at + now);
                    }
                    self.state = State::Marker;
                    now
                }
                State::Scan(scan) => {
                    let components = self.frame.as_mut().map(|frame| frame.components.as_mut_slice());
                    let (read, progress) = scan.read(rest, components.unwrap_or_default())?;
                    if progress == Progress::Paused {
                        return Ok(at + read);
                    }
                    self.state = State::Marker;
                    read
                }
                State::End => return Ok(at),
            };
            at += read;
        }
    }

    /// Reads one marker segment; `None` if more bytes are needed.
    fn read_segment(&mut self, rest: &[u8]) -> Result<Option<usize>, Rejection> {
        let fill = rest.iter().take_while(|&&byte| byte == 0xff).count();
        let Some(&code) = rest.get(fill) else { return Ok(None) };
        if fill == 0 {
            return Err(corrupt("a marker is missing between segments"));
        }
        let start = fill + 1;
        match code {
            EOI => {
                self.end()?;
                return Ok(Some(start));
            }
            // Stray restart markers and TEM stand alone.
            TEM | 0xd0..=0xd7 => return Ok(Some(start)),
            SOI => return Err(corrupt("a second start-of-image marker")),
            0 => return Err(corrupt("data outside of a segment")),
            _ => {}
        }
        let Some(length) = rest.get(start..start + 2) else { return Ok(None) };
        let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        if length < 2 {
            return Err(corrupt("a segment length is too small"));
        }
        let body_start = start + 2;
        let body_end = start + length;
        if !self.matters(code, rest.get(body_start..).unwrap_or_default()) {
            self.state = State::Skipping { bytes: length - 2 };
            return Ok(Some(body_start));
        }
        let Some(body) = rest.get(body_start..body_end) else { return Ok(None) };
        self.read_body(code, body)?;
        Ok(Some(body_end))
    }

    /// Whether a segment has to be read whole. Application segments that may be EXIF wait for their identifier.
    fn matters(&self, code: u8, body: &[u8]) -> bool {
        match code {
            0xc0..=0xcf | SOS | DQT | DNL | DRI => true,
            APP1 => {
                let known = body.len().min(EXIF_IDENTIFIER.len());
                self.orientation.is_none() && body.get(..known) == EXIF_IDENTIFIER.get(..known)
            }
            _ => false,
        }
    }

    fn read_body(&mut self, code: u8, body: &[u8]) -> Result<(), Rejection> {
        match code {
            DHT => self.define_huffman(body),
            DQT => self.define_quantisation(body),
            DRI => {
                let &[high, low] = body else { return Err(corrupt("a restart interval has a wrong length")) };
                let interval = u32::from(u16::from_be_bytes([high, low]));
                self.tables.restart_interval = (interval > 0).then_some(interval);
                Ok(())
            }
            SOS => self.start_scan(body),
            APP1 => {
                self.orientation = exif::orientation(body);
                Ok(())
            }
            DNL => Err(corrupt("the height is given after the first scan")),
            JPG | DAC => {
                Err(Rejection::UnsupportedFeature { format: ImageFormat::Jpeg, feature: "arithmetic coding" })
            }
            _ if self.frame.is_some() => Err(corrupt("a second frame header")),
            _ => {
                self.frame = Some(Frame::read(code, body, &self.limits)?);
                Ok(())
            }
        }
    }

    fn define_huffman(&mut self, body: &[u8]) -> Result<(), Rejection> {
        let malformed = || corrupt("a Huffman table is malformed");
        let mut rest = body;
        while let Some((&class_and_number, definition)) = rest.split_first() {
            let (definition, length) = Definition::read(definition).ok_or_else(malformed)?;
            let tables = match class_and_number >> 4 {
                0 => &mut self.tables.dc,
                1 => &mut self.tables.ac,
                _ => return Err(malformed()),
            };
            *tables.get_mut(usize::from(class_and_number & 15)).ok_or_else(malformed)? = Some(definition);
            rest = rest.get(1 + length..).unwrap_or_default();
        }
        Ok(())
    }

    fn define_quantisation(&mut self, body: &[u8]) -> Result<(), Rejection> {
        let malformed = || corrupt("a quantisation table is malformed");
        let mut rest = body;
        while let Some((&precision_and_number, values)) = rest.split_first() {
            let length = match precision_and_number >> 4 {
                0 => 64,
                1 => 128,
                _ => return Err(malformed()),
            };
            let defined = self.tables.quantisation_defined.get_mut(usize::from(precision_and_number & 15));
            *defined.ok_or_else(malformed)? = true;
            rest = values.get(length..).ok_or_else(malformed)?;
        }
        Ok(())
    }

    fn start_scan(&mut self, body: &[u8]) -> Result<(), Rejection> {
        let frame = self.frame.as_mut().ok_or_else(|| corrupt("a scan comes before the frame header"))?;
        self.scans += 1;
        if self.scans > SCANS_MAX {
            return Err(corrupt("there are too many scans"));
        }
        self.state = State::Scan(Box::new(Scan::start(body, frame, &self.tables)?));
        Ok(())
    }

    fn end(&mut self) -> Result<(), Rejection> {
        let frame = self.frame.as_mut().ok_or_else(|| corrupt("there is no picture"))?;
        if !frame.components.iter().all(|component| component.seen) {
            return Err(corrupt(match frame.process {
                Process::Sequential => "a component has no data",
                Process::Progressive => "a component has no DC data",
            }));
        }
        for component in &mut frame.components {
            component.nonzero = Vec::new();
        }
        self.state = State::End;
        Ok(())
    }
}
