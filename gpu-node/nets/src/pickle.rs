//! Weights out of PyTorch's own files, without running them.
//!
//! ```text
//! .pth/.ckpt ─ archive.rs: zip of data.pkl and storages, or the older stream ─┐
//!              machine.rs: a pickle machine that can build dictionaries and    ├─▶ convert: FILE.safetensors
//!              describe tensors, and nothing else                              ┘
//! ```
//!
//! A pickle is a program for a stack machine that may call any function of any
//! Python module. This machine has the few instructions that `torch.save`
//! writes for a state dictionary; of calls it knows an ordered dictionary and
//! the rebuilding of a tensor, as data. Any other name is refused, with the
//! name.

mod archive;
mod machine;
mod object;

use crate::Error;
use archive::{Archive, StorageRange};
use object::TensorDescription;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What a conversion wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The new file.
    pub path: PathBuf,
    /// How many tensors it has.
    pub tensors: usize,
    /// Bytes of their data.
    pub bytes: u64,
}

/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

/// Reads a state dictionary that `torch.save` wrote and writes it as
/// safetensors. Nested dictionaries become prefixes: `{"vae": {"post_kl.weight"
/// …}}` gives `vae.post_kl.weight`.
///
/// # Errors
/// [`Error::NotConvertible`]: the file is no such dictionary, holds anything
/// but tensors in contiguous memory, or ends early. `to` is then not written.
pub fn convert(from: &Path, to: &Path) -> Result<Converted, Error> {
    let refused = |reason: String| Error::NotConvertible { path: from.to_owned(), reason };
    let archive = Archive::open(from).map_err(refused)?;
    let mut tensors = archive.tensors().map_err(refused)?;
    if tensors.is_empty() {
        return Err(refused("it holds no tensors".to_owned()));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let partial = to.with_extension("partial");
    let written = write(&archive, &tensors, &partial);
    let written = written.and_then(|bytes| match std::fs::rename(&partial, to) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    });
    match written {
        Ok(bytes) => Ok(Converted { path: to.to_owned(), tensors: tensors.len(), bytes }),
        Err(reason) => {
            let _ = std::fs::remove_file(&partial);
            Err(refused(reason))
        }
    }
}

fn write(archive: &Archive, tensors: &[(String, TensorDescription)], path: &Path) -> Result<u64, String> {
    let mut header = Map::new();
    let mut ranges: Vec<StorageRange> = Vec::with_capacity(tensors.len());
    let mut end = 0_u64;
    for (name, tensor) in tensors {
        let range = archive.range(tensor).map_err(|reason| format!("tensor {name}: {reason}"))?;
        let start = end;
        end += range.bytes;
        let shape: Vec<Value> = tensor.shape.iter().map(|&size| size.into()).collect();
        let entry = serde_json::json!({
            "dtype": tensor.element.safetensors_name(), "shape": shape, "data_offsets": [start, end],
        });
        if header.insert(name.clone(), entry).is_some() {
            return Err(format!("tensor {name} is there twice"));
        }
        ranges.push(range);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // The data begins on a multiple of eight, so that it can be mapped.
    header.resize(header.len().next_multiple_of(8), b' ');
    let file = File::create(path).map_err(|error| error.to_string())?;
    let mut out = BufWriter::with_capacity(COPY_BYTES, file);
    let copied = out
        .write_all(&(header.len() as u64).to_le_bytes())
        .and_then(|()| out.write_all(&header))
        .and_then(|()| ranges.iter().try_for_each(|range| copy(archive.file(), range, &mut out)))
        .and_then(|()| out.flush());
    copied.map_err(|error| error.to_string())?;
    Ok(end)
}

fn copy(file: &File, range: &StorageRange, out: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut done = 0;
    while done < range.bytes {
        let length = (range.bytes - done).min(COPY_BYTES as u64) as usize;
        let part = &mut buffer[..length];
        file.read_exact_at(part, range.start + done)?;
        out.write_all(part)?;
        done += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
