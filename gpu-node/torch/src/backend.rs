//! Which device computes: loads the CUDA half of libtorch at run time and resolves a device's name.
//!
//! Binaries link libtorch's CPU libraries only, so one build serves every
//! machine. libtorch caches "no CUDA" at the first question it is asked, hence
//! the order that the types impose: [`Backend::load`] first, then
//! [`Backend::device`].

use crate::TorchError;
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Mutex;
use tch::Device;

/// Environment variable with the folder that holds `libtorch_cuda.so`: the
/// `lib` folder of libtorch, or the `torch` folder of a Python installation.
/// It must be the same libtorch version as the linked CPU libraries.
pub const CUDA_FOLDER_VARIABLE: &str = "ORFEAS_LIBTORCH_CUDA";

const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// libtorch with everything loaded that this machine has.
#[derive(Debug, Clone)]
pub struct Backend {
    cuda_library: Option<PathBuf>,
}

/// The one outcome of loading: a library cannot be unloaded, nor libtorch made to look again.
static LOADED: Mutex<Option<Backend>> = Mutex::new(None);

impl Backend {
    /// Loads `libtorch_cuda.so` if it can be found, once per process, before
    /// anything else asks libtorch for CUDA.
    ///
    /// `folder` (or [`CUDA_FOLDER_VARIABLE`], if it is `None`) is binding: no
    /// library there, or one that does not load, is an error. Without either,
    /// the folder of the linked `libtorch_cpu.so` is tried, and a failure there
    /// leaves the CPU. Later calls return what the first success found.
    pub fn load(folder: Option<&Path>) -> Result<Self, TorchError> {
        let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(backend) = loaded.as_ref() {
            return Ok(backend.clone());
        }
        let named =
            folder.map(Path::to_owned).or_else(|| std::env::var_os(CUDA_FOLDER_VARIABLE).map(PathBuf::from));
        let cuda_library = match named {
            Some(folder) => {
                let path = library_in(&folder).ok_or_else(|| TorchError::Backend {
                    path: folder.join(CUDA_LIBRARY),
                    reason: "no such file".to_owned(),
                })?;
                open_globally(&path)?;
                Some(path)
            }
            None => linked_folder().and_then(|folder| library_in(&folder)).filter(|path| {
                open_globally(path)
                    .inspect_err(|error| tracing::warn!(%error, "CUDA is not available, using the CPU"))
                    .is_ok()
            }),
        };
        Ok(loaded.insert(Self { cuda_library }).clone())
    }

    /// The CUDA library that was loaded, if any. That it loaded does not mean
    /// that there is a device: see [`Backend::cuda_devices`].
    pub fn cuda_library(&self) -> Option<&Path> {
        self.cuda_library.as_deref()
    }

    /// Number of CUDA devices that libtorch can use.
    pub fn cuda_devices(&self) -> usize {
        usize::try_from(tch::Cuda::device_count()).unwrap_or(0)
    }

    /// Resolves a choice to a device that exists. `auto` is the first CUDA device, else the CPU.
    pub fn device(&self, choice: DeviceChoice) -> Result<Device, TorchError> {
        let count = self.cuda_devices();
        match choice {
            DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Auto if count == 0 => Ok(Device::Cpu),
            DeviceChoice::Auto => Ok(Device::Cuda(0)),
            DeviceChoice::Cuda(index) if index < count => Ok(Device::Cuda(index)),
            DeviceChoice::Cuda(_) => Err(TorchError::NoSuchDevice { name: choice.to_string(), count }),
        }
    }
}

/// A device as an operator names it: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeviceChoice {
    /// The first CUDA device, or the CPU.
    #[default]
    Auto,
    /// The CPU, also where there is an accelerator.
    Cpu,
    /// The CUDA device of this index.
    Cuda(usize),
}

/// A text that names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a device: expected auto, cpu, cuda or cuda:N")]
pub struct ParseDeviceError(String);

impl FromStr for DeviceChoice {
    type Err = ParseDeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| ParseDeviceError(text.to_owned())),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

fn library_in(folder: &Path) -> Option<PathBuf> {
    [folder.join(CUDA_LIBRARY), folder.join("lib").join(CUDA_LIBRARY)].into_iter().find(|path| path.is_file())
}

/// Folder of the `libtorch_cpu.so` that this process runs on.
fn linked_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
    Path::new(&path[path.find('/')?..]).parent().map(Path::to_owned)
}

/// Opens a library so that its static initialisers register with the libtorch already here.
fn open_globally(path: &Path) -> Result<(), TorchError> {
    let failed = |reason: String| TorchError::Backend { path: path.to_owned(), reason };
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(error.to_string()))?;
    // SAFETY: a valid C string; the library's initialisers are libtorch's own.
    // Symbols resolve now, so that a library of another version fails here.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: after a failed dlopen on the same thread, dlerror gives null or a C string.
    let reason = unsafe {
        let text = libc::dlerror();
        if text.is_null() { None } else { Some(CStr::from_ptr(text).to_string_lossy().into_owned()) }
    };
    Err(failed(reason.unwrap_or_else(|| "the dynamic linker gave no reason".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_round_trip() {
        for name in ["auto", "cpu", "cuda:0", "cuda:7"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for name in ["", "gpu", "cuda:", "cuda:-1", "CPU"] {
            assert!(name.parse::<DeviceChoice>().is_err(), "{name}");
        }
    }

    #[test]
    fn the_linked_libtorch_is_found() {
        // The library is mapped only once something of it is linked in.
        let _ = tch::get_num_threads();
        let folder = linked_folder().unwrap();
        assert!(folder.join("libtorch_cpu.so").is_file(), "{}", folder.display());
    }

    #[test]
    fn a_device_beyond_the_last_one_is_refused() {
        let backend = Backend::load(None).unwrap();
        let error = backend.device(DeviceChoice::Cuda(4096)).unwrap_err();
        assert!(matches!(error, TorchError::NoSuchDevice { .. }), "{error}");
        assert_eq!(backend.device(DeviceChoice::Cpu).unwrap(), Device::Cpu);
    }

    #[test]
    fn a_file_that_is_no_library_is_an_error_with_the_linkers_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CUDA_LIBRARY);
        std::fs::write(&path, "not a library").unwrap();
        assert_eq!(library_in(folder.path()), Some(path.clone()));
        let error = open_globally(&path).unwrap_err();
        assert!(error.to_string().contains("cannot load"), "{error}");
    }
}
