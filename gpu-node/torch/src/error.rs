//! What went wrong inside libtorch, as far as a caller can act on it.
//!
//! tch reports every C++ exception as text, so the class of a failure is read
//! off the message's first line. [`attempt`] also catches the panics of tch's
//! convenience methods: network code can then be written in plain operators,
//! with one fallible border around each step.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Once;

/// A failure of libtorch, its loading, or its weights files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// The machine has no accelerator, or the CUDA libraries are not loaded.
    #[error("no accelerator is available")]
    NoAccelerator,
    /// An operation failed inside libtorch.
    #[error("torch operation failed: {message}")]
    Operation {
        /// What a caller can do about it.
        class: FailureClass,
        /// The first line of libtorch's message.
        message: String,
    },
    /// The device of this name does not exist here.
    #[error("device {name} does not exist here ({count} CUDA devices)")]
    NoSuchDevice {
        /// The name asked for.
        name: String,
        /// CUDA devices that there are.
        count: usize,
    },
    /// libtorch_cuda is there but would not load.
    #[error("cannot load {}: {reason}", path.display())]
    Backend {
        /// The library.
        path: PathBuf,
        /// The dynamic linker's message.
        reason: String,
    },
    /// A weights file could not be opened or mapped.
    #[error("cannot open weights {}", path.display())]
    OpenWeights {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A weights file is not well-formed safetensors.
    #[error("cannot read weights {}", path.display())]
    ParseWeights {
        /// The file.
        path: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A tensor's element type has no counterpart in libtorch.
    #[error("tensor {name} in {} has the unsupported type {dtype}", path.display())]
    UnsupportedType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type, as the file calls it.
        dtype: String,
    },
    /// A weights file has no tensor of this name.
    #[error("weights {} have no tensor {name}", path.display())]
    NoSuchTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
}

/// What a caller can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// Memory ran out: release some and try again, with less.
    OutOfMemory,
    /// The device's context is gone: only a new process helps.
    DeviceLost,
    /// Anything else: trying again does not help.
    Other,
}

/// First-line marks of failures to allocate, on CPU, in the caching allocator,
/// in the driver, and in cuBLAS's and cuDNN's own workspaces.
const OUT_OF_MEMORY: [&str; 6] = [
    "CUDA out of memory",
    "CUDA error: out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
];

/// First-line marks of errors after which the CUDA context refuses all work.
const DEVICE_LOST: [&str; 9] = [
    "an illegal memory access was encountered",
    "unspecified launch failure",
    "device-side assert triggered",
    "uncorrectable ECC error",
    "the launch timed out",
    "misaligned address",
    "hardware stack error",
    "CUDA-capable device(s) is/are busy or unavailable",
    "driver shutting down",
];

impl FailureClass {
    /// Classifies a message of libtorch by its first line: the lines below it
    /// are a backtrace, whose symbol names would match by chance.
    pub fn of_message(message: &str) -> Self {
        let line = first_line(message);
        if OUT_OF_MEMORY.iter().any(|mark| line.contains(mark)) {
            Self::OutOfMemory
        } else if DEVICE_LOST.iter().any(|mark| line.contains(mark)) {
            Self::DeviceLost
        } else {
            Self::Other
        }
    }
}

/// Classifies an error of tch.
pub fn classify(error: &tch::TchError) -> FailureClass {
    match error {
        tch::TchError::Torch(message) => FailureClass::of_message(message),
        _ => FailureClass::Other,
    }
}

impl TorchError {
    pub(crate) fn torch(message: String) -> Self {
        let class = FailureClass::of_message(&message);
        Self::Operation { class, message: first_line(&message).to_owned() }
    }

    /// What a caller can do about this error.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Operation { class, .. } => *class,
            _ => FailureClass::Other,
        }
    }
}

impl From<tch::TchError> for TorchError {
    fn from(error: tch::TchError) -> Self {
        match error {
            tch::TchError::Torch(message) => Self::torch(message),
            other => Self::torch(other.to_string()),
        }
    }
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default().trim()
}

thread_local! {
    static ATTEMPTS: Cell<usize> = const { Cell::new(0) };
}

/// Runs tensor code and turns the panic of a failed tch call into an error.
///
/// tch's operators panic where their `f_` twins return an error. A panic that
/// does not come from tch is a bug and goes on unwinding.
///
/// ```
/// use orfeas_torch::{FailureClass, attempt};
/// use tch::{Device, Kind, Tensor};
///
/// let a = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
/// let error = attempt(|| a.matmul(&a)).unwrap_err();
/// assert_eq!(error.class(), FailureClass::Other);
/// ```
pub fn attempt<T>(body: impl FnOnce() -> T) -> Result<T, TorchError> {
    install_quiet_hook();
    ATTEMPTS.set(ATTEMPTS.get() + 1);
    // Unwind safety: the closure's tensors are reference-counted handles that
    // libtorch leaves consistent when an operation throws.
    let outcome = catch_unwind(AssertUnwindSafe(body));
    ATTEMPTS.set(ATTEMPTS.get() - 1);
    outcome.or_else(|payload| match panic_text(payload.as_ref()).and_then(tch_message) {
        Some(message) => Err(TorchError::torch(message)),
        None => resume_unwind(payload),
    })
}

/// A failed tch call under [`attempt`] is an ordinary error: it is reported by
/// whoever handles it, so the default hook's message would be noise.
fn install_quiet_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let caught = ATTEMPTS.get() > 0 && panic_text(info.payload()).and_then(tch_message).is_some();
            if !caught {
                previous(info);
            }
        }));
    });
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> Option<&str> {
    payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied())
}

/// The message inside tch's ``called `Result::unwrap()` on an `Err` value: Torch("…")``.
fn tch_message(panic: &str) -> Option<String> {
    let error = panic.strip_prefix("called `Result::unwrap()` on an `Err` value: ")?;
    let quoted = match error.strip_prefix("Torch(\"") {
        Some(text) => text.strip_suffix("\")").unwrap_or(text),
        // Conversions between tensors and Rust values, shapes, kinds.
        None if ["Convert(", "Kind(", "Shape(", "UnknownKind("].iter().any(|v| error.starts_with(v)) => error,
        None => return None,
    };
    // Undo the escaping of `Debug` as far as the first line needs it.
    Some(quoted.replace("\\n", "\n").replace("\\'", "'").replace("\\\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    const TOO_MANY: [i64; 1] = [1 << 44];

    #[test]
    fn cpu_exhaustion_is_classified_from_an_error() {
        let error = Tensor::f_zeros(TOO_MANY, (Kind::Float, Device::Cpu)).unwrap_err();
        assert_eq!(classify(&error), FailureClass::OutOfMemory, "{error}");
    }

    #[test]
    fn cpu_exhaustion_is_classified_from_a_panic() {
        let error = attempt(|| Tensor::zeros(TOO_MANY, (Kind::Float, Device::Cpu))).unwrap_err();
        assert_eq!(error.class(), FailureClass::OutOfMemory, "{error}");
    }

    #[test]
    fn messages_are_classified_by_their_first_line_only() {
        for (message, class) in [
            ("CUDA out of memory. Tried to allocate 2.00 GiB.\nat x", FailureClass::OutOfMemory),
            ("CUDA error: out of memory\nCUDA kernel errors might be", FailureClass::OutOfMemory),
            ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`", FailureClass::OutOfMemory),
            ("CUDA error: an illegal memory access was encountered\n", FailureClass::DeviceLost),
            ("CUDA error: device-side assert triggered", FailureClass::DeviceLost),
            ("mat1 and mat2 shapes cannot be multiplied\nframe: CUDA out of memory", FailureClass::Other),
            ("", FailureClass::Other),
        ] {
            assert_eq!(FailureClass::of_message(message), class, "{message}");
        }
    }

    #[test]
    fn an_error_keeps_one_line_of_the_message() {
        let a = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        let text = attempt(|| a.matmul(&a)).unwrap_err().to_string();
        assert!(text.contains("shapes cannot be multiplied") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn a_panic_that_is_not_torchs_goes_on() {
        let outcome = std::panic::catch_unwind(|| attempt(|| panic!("a bug")));
        assert_eq!(panic_text(outcome.unwrap_err().as_ref()), Some("a bug"));
    }
}
