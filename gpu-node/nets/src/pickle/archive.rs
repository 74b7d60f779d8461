//! Where a PyTorch file keeps what: the zip archive of today, and the plain stream of before 1.6.
//!
//! ```text
//! zip     NAME/data.pkl, NAME/data/KEY …                             entries are stored, not compressed
//! stream  magic ‖ version ‖ system ‖ dictionary ‖ keys  (five pickles) ‖ for each key: u64 elements, bytes
//! ```
//!
//! Zip: PKWARE's APPNOTE 6.3.10, §4.3 and §4.5.3 (64-bit sizes).

use super::machine;
use super::object::{Element, TensorDescription};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The part of the file that holds one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StorageRange {
    pub(super) start: u64,
    pub(super) bytes: u64,
}

/// An open file, with the places of its storages.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    pickle: Vec<u8>,
    /// By key: where its bytes begin, and how many there are.
    storages: HashMap<String, StorageRange>,
}

/// Longer pickles describe no state dictionary.
const PICKLE_BYTES_MAX: u64 = 64 << 20;
const ZIP_SIGNATURE: u32 = 0x0403_4b50;
/// The first pickle of the older form: `0x1950a86a20f9469cfc6c`, as a long of ten bytes.
const STREAM_START: [u8; 14] =
    [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Storages of the older form.
const KEYS_MAX: usize = 1 << 16;

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let length = file.metadata().map_err(|error| error.to_string())?.len();
        let reader = Reader { file: &file, length };
        let start = reader.bytes(0, length.min(STREAM_START.len() as u64))?;
        let (pickle, storages) = if start.starts_with(&ZIP_SIGNATURE.to_le_bytes()) {
            zip(&reader)?
        } else if start == STREAM_START {
            stream(&reader)?
        } else {
            return Err("it is neither of the forms that torch.save writes".to_owned());
        };
        Ok(Self { file, pickle, storages })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// What the dictionary describes.
    pub(super) fn tensors(&self) -> Result<Vec<(String, TensorDescription)>, String> {
        machine::run(&self.pickle)?.tensors()
    }

    /// Where a tensor's bytes are.
    pub(super) fn range(&self, tensor: &TensorDescription) -> Result<StorageRange, String> {
        let elements = tensor.contiguous_elements().ok_or("it is not in one piece of memory")?;
        let storage = self.storages.get(&tensor.storage).ok_or("its storage is missing")?;
        let size = tensor.element.bytes;
        let range = tensor.offset.checked_mul(size).zip(elements.checked_mul(size));
        let (offset, bytes) = range.ok_or("its size overflows")?;
        match offset.checked_add(bytes) {
            Some(end) if end <= storage.bytes => Ok(StorageRange { start: storage.start + offset, bytes }),
            _ => Err("it reaches beyond its storage".to_owned()),
        }
    }
}

type Places = (Vec<u8>, HashMap<String, StorageRange>);

/// Reads within the file's length.
struct Reader<'a> {
    file: &'a File,
    length: u64,
}

impl Reader<'_> {
    fn bytes(&self, start: u64, length: u64) -> Result<Vec<u8>, String> {
        if start.checked_add(length).is_none_or(|end| end > self.length) {
            return Err("it ends early".to_owned());
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, start).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

/// Little-endian numbers of a record.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (part, rest) = self.0.split_at_checked(length).ok_or("its directory ends early")?;
        self.0 = rest;
        Ok(part)
    }

    fn number(&mut self, bytes: usize) -> Result<u64, String> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }
}

fn zip(reader: &Reader<'_>) -> Result<Places, String> {
    /// The end record, and the longest comment behind it.
    const END_BYTES_MAX: u64 = 22 + 65_535;
    const END: [u8; 4] = *b"PK\x05\x06";
    let tail_start = reader.length.saturating_sub(END_BYTES_MAX);
    let tail = reader.bytes(tail_start, reader.length - tail_start)?;
    let at = tail.windows(4).rposition(|window| window == END).ok_or("its directory is missing")?;
    let mut end = Fields(&tail[at + 4..]);
    end.take(6)?;
    let (mut entries, mut size, mut offset) = (end.number(2)?, end.number(4)?, end.number(4)?);
    if end.number(2)? != end.0.len() as u64 {
        return Err("it ends early".to_owned());
    }
    if entries == 0xffff || size == 0xffff_ffff || offset == 0xffff_ffff {
        (entries, size, offset) = end64(reader, tail_start + at as u64)?;
    }
    let directory = reader.bytes(offset, size.min(PICKLE_BYTES_MAX))?;
    let mut fields = Fields(&directory);
    let (mut pickle, mut storages) = (None, HashMap::new());
    for _ in 0..entries {
        let entry = Entry::read(&mut fields)?;
        // The folder has the archive's name.
        let name = entry.name.split_once('/').map_or(entry.name.as_str(), |(_, name)| name).to_owned();
        let wanted = name == "data.pkl" || name.starts_with("data/");
        if !wanted {
            continue;
        }
        if entry.method != 0 {
            return Err(format!("{} is compressed, which torch.save never does", entry.name));
        }
        let range = entry.data(reader)?;
        match name.strip_prefix("data/") {
            Some(key) => drop(storages.insert(key.to_owned(), range)),
            None if range.bytes > PICKLE_BYTES_MAX => return Err("its dictionary is too long".to_owned()),
            None => pickle = Some(reader.bytes(range.start, range.bytes)?),
        }
    }
    Ok((pickle.ok_or("it has no data.pkl")?, storages))
}

/// Entries, size and offset of the directory, from the 64-bit end record in front of the other.
fn end64(reader: &Reader<'_>, end: u64) -> Result<(u64, u64, u64), String> {
    let locator = reader.bytes(end.checked_sub(20).ok_or("it ends early")?, 20)?;
    let mut locator = Fields(&locator);
    if locator.take(4)? != b"PK\x06\x07" {
        return Err("its 64-bit directory is missing".to_owned());
    }
    locator.take(4)?;
    let record = reader.bytes(locator.number(8)?, 56)?;
    let mut record = Fields(&record);
    if record.take(4)? != b"PK\x06\x06" {
        return Err("its 64-bit directory is missing".to_owned());
    }
    record.take(28)?;
    Ok((record.number(8)?, record.number(8)?, record.number(8)?))
}

/// One file of the archive, as its directory has it.
struct Entry {
    name: String,
    method: u64,
    bytes: u64,
    header_start: u64,
}

impl Entry {
    fn read(fields: &mut Fields<'_>) -> Result<Self, String> {
        if fields.take(4)? != b"PK\x01\x02" {
            return Err("its directory is damaged".to_owned());
        }
        fields.take(6)?;
        let method = fields.number(2)?;
        fields.take(8)?;
        let (packed, mut bytes) = (fields.number(4)?, fields.number(4)?);
        let (name, extra, comment) = (fields.number(2)?, fields.number(2)?, fields.number(2)?);
        fields.take(8)?;
        let mut header_start = fields.number(4)?;
        let name = String::from_utf8_lossy(fields.take(name as usize)?).into_owned();
        let mut extra = Fields(fields.take(extra as usize)?);
        fields.take(comment as usize)?;
        while extra.0.len() >= 4 {
            let (id, length) = (extra.number(2)?, extra.number(2)?);
            let mut field = Fields(extra.take(length as usize)?);
            if id == 1 {
                // Only what does not fit above is here, in this order.
                if bytes == 0xffff_ffff {
                    bytes = field.number(8)?;
                }
                if packed == 0xffff_ffff {
                    field.number(8)?;
                }
                if header_start == 0xffff_ffff {
                    header_start = field.number(8)?;
                }
            }
        }
        Ok(Self { name, method, bytes, header_start })
    }

    /// Where the data is: behind a header of its own, whose extra field pads it.
    fn data(&self, reader: &Reader<'_>) -> Result<StorageRange, String> {
        const HEADER_BYTES: u64 = 30;
        let header = reader.bytes(self.header_start, HEADER_BYTES)?;
        let mut fields = Fields(&header);
        if fields.number(4)? != u64::from(ZIP_SIGNATURE) {
            return Err(format!("{} is damaged", self.name));
        }
        fields.take(22)?;
        let (name, extra) = (fields.number(2)?, fields.number(2)?);
        let start = self.header_start + HEADER_BYTES + name + extra;
        if start.checked_add(self.bytes).is_none_or(|end| end > reader.length) {
            return Err("it ends early".to_owned());
        }
        Ok(StorageRange { start, bytes: self.bytes })
    }
}

fn stream(reader: &Reader<'_>) -> Result<Places, String> {
    // Of unknown length: the pickles are small, the storages behind them are not read here.
    let head = reader.bytes(0, reader.length.min(PICKLE_BYTES_MAX))?;
    let mut at = 0;
    let mut next = || {
        let outcome = machine::run(head.get(at..).unwrap_or_default())?;
        let start = at;
        at += outcome.length;
        Ok::<_, String>((start, at, outcome))
    };
    for _ in 0..3 {
        next()?;
    }
    let (start, end, dictionary) = next()?;
    let (_, mut position, keys) = next().map(|(start, end, keys)| (start, end as u64, keys))?;
    let keys = keys.texts().filter(|keys| keys.len() <= KEYS_MAX).ok_or("its list of storages is damaged")?;
    let elements: HashMap<String, Element> =
        dictionary.tensors()?.into_iter().map(|(_, tensor)| (tensor.storage, tensor.element)).collect();
    let mut storages = HashMap::new();
    for key in keys {
        let count = Fields(&reader.bytes(position, 8)?).number(8)?;
        position += 8;
        // A storage that no tensor refers to has an unknown element size, and nothing can follow it.
        let element = elements.get(&key).ok_or("a storage in it belongs to no tensor")?;
        let bytes = count.checked_mul(element.bytes).ok_or("a storage in it is too large")?;
        let storage = StorageRange { start: position, bytes };
        position = position.checked_add(bytes).ok_or("a storage in it is too large")?;
        if position > reader.length {
            return Err("it ends early".to_owned());
        }
        storages.insert(key, storage);
    }
    let pickle = head.get(start..end).unwrap_or_default().to_vec();
    Ok((pickle, storages))
}
