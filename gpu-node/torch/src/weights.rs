//! Safetensors files: mapped without a copy on the CPU, streamed to a device.
//!
//! Opening reads the header alone. A tensor on the CPU in the file's own type
//! is a view into the mapping, which lives as long as its last tensor; pages
//! come in when they are first used. Any other device or type copies tensor by
//! tensor and gives the pages back behind itself, so that loading 5 GB never
//! keeps 5 GB of file resident beside the copy.
//!
//! Format: <https://huggingface.co/docs/safetensors>.

use crate::TorchError;
use crate::ffi::{self, check};
use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// An open weights file.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    map: Arc<MmapRaw>,
    header: Metadata,
    /// Where the tensors' bytes begin in the file.
    data_start: usize,
}

/// What the header says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Sizes, outermost first.
    pub shape: Vec<i64>,
    /// The element type, or its name in the file where libtorch has none such.
    pub kind: Result<Kind, String>,
    /// Length in the file.
    pub bytes: u64,
}

impl WeightsFile {
    /// Maps a file and reads its header.
    ///
    /// The file must not be truncated while it or a tensor of it lives
    /// (replace model files by renaming): the kernel answers a read past the
    /// new end with SIGBUS.
    pub fn open(path: &Path) -> Result<Self, TorchError> {
        let cannot_open = |source| TorchError::OpenWeights { path: path.to_owned(), source };
        let file = File::open(path).map_err(cannot_open)?;
        // SAFETY: private and writable. A tensor operation in place writes to a
        // private copy of the page, never to the file nor into a fault. No swap
        // is reserved, because in normal use nobody writes.
        let map = unsafe { MmapOptions::new().no_reserve_swap().map_copy(&file) }.map_err(cannot_open)?;
        let (header_bytes, header) = SafeTensors::read_metadata(&map)
            .map_err(|source| TorchError::ParseWeights { path: path.to_owned(), source })?;
        let data_start = header_bytes + size_of::<u64>();
        Ok(Self { path: path.to_owned(), map: Arc::new(MmapRaw::from(map)), header, data_start })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// The header's free-form texts (`__metadata__`).
    pub fn texts(&self) -> Option<&HashMap<String, String>> {
        self.header.metadata().as_ref()
    }

    /// The tensors, in file order.
    pub fn tensors(&self) -> impl Iterator<Item = (String, TensorInfo)> {
        self.header.offset_keys().into_iter().filter_map(|name| {
            let info = self.info(&name)?;
            Some((name, info))
        })
    }

    /// What the header says of a tensor.
    pub fn info(&self, name: &str) -> Option<TensorInfo> {
        let info = self.header.info(name)?;
        Some(TensorInfo {
            shape: info.shape.iter().map(|&size| size as i64).collect(),
            kind: kind_of(info.dtype).ok_or_else(|| format!("{:?}", info.dtype)),
            bytes: (info.data_offsets.1 - info.data_offsets.0) as u64,
        })
    }

    /// A tensor on the CPU in the file's own type, without a copy.
    pub fn view(&self, name: &str) -> Result<Tensor, TorchError> {
        let no_such = || TorchError::NoSuchTensor { path: self.path.clone(), name: name.to_owned() };
        let info = self.info(name).ok_or_else(no_such)?;
        let kind = info.kind.map_err(|dtype| TorchError::UnsupportedType {
            path: self.path.clone(),
            name: name.to_owned(),
            dtype,
        })?;
        let (start, end) = self.range(name).ok_or_else(no_such)?;
        if kind == Kind::Bool {
            // A byte that is neither 0 nor 1 must not become a C++ bool.
            Ok(self.borrow(start, &info.shape, Kind::Uint8)?.f_ne(0)?)
        } else if start % kind.elt_size_in_bytes() == 0 {
            self.borrow(start, &info.shape, kind)
        } else {
            // The header need not be padded, and the CPU kernels want whole elements.
            let bytes = self.borrow(start, &[(end - start) as i64], Kind::Uint8)?;
            Ok(bytes.f_detach_copy()?.f_view_dtype(kind)?.f_reshape(&info.shape)?)
        }
    }

    /// A tensor on a device in a type. It is a view into the mapping where
    /// nothing has to change; else a copy, and the file's pages are released.
    pub fn load(&self, name: &str, device: Device, kind: Kind) -> Result<Tensor, TorchError> {
        let view = self.view(name)?;
        if device == Device::Cpu && view.kind() == kind {
            return Ok(view);
        }
        // To the device first: it converts faster, and half types halve the transfer.
        let loaded = view.f_to_device(device)?.f_to_kind(kind)?;
        drop(view);
        if let Some((start, end)) = self.range(name) {
            self.release(start, end);
        }
        Ok(loaded)
    }

    /// A tensor's byte range in the file. The header was checked against the file's length.
    fn range(&self, name: &str) -> Option<(usize, usize)> {
        let (start, end) = self.header.info(name)?.data_offsets;
        Some((self.data_start + start, self.data_start + end))
    }

    fn borrow(&self, start: usize, shape: &[i64], kind: Kind) -> Result<Tensor, TorchError> {
        unsafe extern "C" fn release(map: *mut c_void) {
            // SAFETY: the pointer that `into_raw` gave, once.
            drop(unsafe { Arc::from_raw(map.cast::<MmapRaw>()) });
        }
        let mut tensor = std::ptr::null_mut();
        // SAFETY: `start` plus the shape's bytes lie within the mapping
        // (`Metadata` is validated), which the tensor's storage keeps alive
        // through the `Arc` that it now owns.
        unsafe {
            check(ffi::orfeas_torch_borrow(
                self.map.as_mut_ptr().add(start).cast(),
                shape.as_ptr(),
                shape.len(),
                scalar_type(kind),
                Arc::into_raw(Arc::clone(&self.map)).cast_mut().cast(),
                release,
                &mut tensor,
            ))?;
            Ok(Tensor::from_ptr(tensor))
        }
    }

    /// Drops the pages that lie wholly inside a range from this process; they stay in the page cache.
    fn release(&self, start: usize, end: usize) {
        const PAGE_BYTES: usize = 4096;
        let first = start.next_multiple_of(PAGE_BYTES);
        let last = end / PAGE_BYTES * PAGE_BYTES;
        if first < last {
            // SAFETY: the range holds this tensor alone. A view of it that is
            // still about reads the file's bytes again. Failure costs memory only.
            let _ =
                unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, first, last - first) };
        }
    }
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::BOOL => Kind::Bool,
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        _ => return None,
    })
}

/// libtorch's number of a type (`c10::ScalarType`), which tch keeps to itself.
fn scalar_type(kind: Kind) -> c_int {
    match kind {
        Kind::Uint8 => 0,
        Kind::Int8 => 1,
        Kind::Int16 => 2,
        Kind::Int => 3,
        Kind::Int64 => 4,
        Kind::Half => 5,
        Kind::Double => 7,
        Kind::BFloat16 => 15,
        // Float, and the types that `kind_of` never gives.
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    /// Writes a file with the given tensors and opens it.
    fn written(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> (tempfile::TempDir, WeightsFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        safetensors::serialize_to_file(views, None, &path).unwrap();
        let file = WeightsFile::open(&path).unwrap();
        (folder, file)
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn vec(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.to_kind(Kind::Float).view(-1)).unwrap()
    }

    #[test]
    fn a_view_outlives_its_file_handle_and_the_file_itself() {
        let (folder, file) = written(&[("a", Dtype::F32, vec![2, 2], floats(&[1.0, 2.0, 3.0, 4.0]))]);
        let view = file.view("a").unwrap();
        drop(file);
        drop(folder);
        assert_eq!(view.size(), [2, 2]);
        assert_eq!(vec(&view), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn views_of_one_tensor_share_memory() {
        let (_folder, file) = written(&[("a", Dtype::F32, vec![3], floats(&[1.0, 2.0, 3.0]))]);
        let (first, second) = (file.view("a").unwrap(), file.view("a").unwrap());
        assert_eq!(first.data_ptr(), second.data_ptr());
        assert_eq!(file.load("a", Device::Cpu, Kind::Float).unwrap().data_ptr(), first.data_ptr());
    }

    #[test]
    fn a_write_in_place_stays_out_of_the_file() {
        let (_folder, file) = written(&[("a", Dtype::F32, vec![2], floats(&[1.0, 2.0]))]);
        let _ = file.view("a").unwrap().fill_(9.0);
        let again = WeightsFile::open(file.path()).unwrap();
        assert_eq!(vec(&again.view("a").unwrap()), [1.0, 2.0]);
    }

    #[test]
    fn another_type_is_a_copy_with_the_same_values() {
        let halves: Vec<u8> = [0x3c00_u16, 0xc000].iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let (_folder, file) = written(&[("a", Dtype::F16, vec![2], halves)]);
        assert_eq!(file.info("a").unwrap().kind, Ok(Kind::Half));
        let loaded = file.load("a", Device::Cpu, Kind::Float).unwrap();
        assert_eq!(loaded.kind(), Kind::Float);
        assert_eq!(vec(&loaded), [1.0, -2.0]);
    }

    #[test]
    fn a_misaligned_tensor_is_read_right() {
        // Written by hand: an odd header length puts the data at an odd offset.
        let header = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]} }"#;
        assert!(!header.len().is_multiple_of(2));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("odd.safetensors");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header);
        bytes.extend(floats(&[5.0, 6.0]));
        std::fs::write(&path, bytes).unwrap();
        let file = WeightsFile::open(&path).unwrap();
        assert_eq!(vec(&file.view("a").unwrap()), [5.0, 6.0]);
    }

    #[test]
    fn scalars_empty_tensors_and_booleans_are_read() {
        let (_folder, file) = written(&[
            ("scalar", Dtype::F32, vec![], floats(&[7.0])),
            ("empty", Dtype::F32, vec![0, 3], vec![]),
            ("flags", Dtype::BOOL, vec![3], vec![0, 1, 2]),
        ]);
        assert_eq!(vec(&file.view("scalar").unwrap()), [7.0]);
        assert_eq!(file.view("empty").unwrap().size(), [0, 3]);
        assert_eq!(vec(&file.view("flags").unwrap()), [0.0, 1.0, 1.0]);
        assert_eq!(file.tensors().count(), 3);
    }

    #[test]
    fn files_that_are_damaged_are_refused_with_their_path() {
        let (folder, file) = written(&[("a", Dtype::F32, vec![64], floats(&[1.0; 64]))]);
        let whole = std::fs::read(file.path()).unwrap();
        let damaged = [
            ("truncated", whole[..whole.len() - 1].to_vec()),
            ("header_cut", whole[..20].to_vec()),
            ("endless_header", u64::MAX.to_le_bytes().to_vec()),
            ("empty", Vec::new()),
            ("pickle", b"\x80\x02}q\x00(X\x05\x00\x00\x00model".to_vec()),
        ];
        for (name, bytes) in damaged {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let error = WeightsFile::open(&path).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        assert!(matches!(file.view("b"), Err(TorchError::NoSuchTensor { .. })));
        assert!(matches!(
            WeightsFile::open(Path::new("/nonexistent/w")),
            Err(TorchError::OpenWeights { .. })
        ));
    }

    #[test]
    fn a_type_without_counterpart_is_named() {
        let (_folder, file) = written(&[("a", Dtype::U32, vec![1], vec![0; 4])]);
        let error = file.view("a").unwrap_err().to_string();
        assert!(error.contains("U32") && error.contains('a'), "{error}");
    }

    #[test]
    fn converting_does_not_keep_the_file_resident() {
        const BYTES: usize = 64 << 20;
        let (_folder, file) = written(&[("a", Dtype::F16, vec![BYTES / 2], vec![0; BYTES])]);
        let loaded = file.load("a", Device::Cpu, Kind::Float).unwrap();
        assert_eq!(loaded.numel(), BYTES / 2);
        let resident = resident_bytes(file.path());
        assert!(resident < BYTES / 16, "{resident} bytes of the file stayed resident");
    }

    /// Bytes of a mapped file that are in this process's memory, by `/proc/self/smaps`.
    fn resident_bytes(path: &Path) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let name = path.to_str().unwrap();
        let mapping = maps.lines().skip_while(|line| !line.ends_with(name));
        let line = mapping.into_iter().find(|line| line.starts_with("Rss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }
}
