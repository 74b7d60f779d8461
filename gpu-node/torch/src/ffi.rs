//! The C interface of `shim.cpp`, and the one place that turns its status codes into errors.

use crate::TorchError;
use std::ffi::{CStr, c_char, c_int, c_void};
use torch_sys::C_tensor;

/// `OrfeasMemoryStats` in `shim.cpp`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct RawStats {
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) allocated_bytes: i64,
    pub(crate) reserved_bytes: i64,
    pub(crate) allocated_peak_bytes: i64,
    pub(crate) reserved_peak_bytes: i64,
    pub(crate) num_ooms: i64,
    pub(crate) num_alloc_retries: i64,
}

unsafe extern "C" {
    fn orfeas_torch_last_error() -> *const c_char;
    pub(crate) fn orfeas_torch_memory_stats(device: c_int, out: *mut RawStats) -> c_int;
    pub(crate) fn orfeas_torch_reset_peak(device: c_int) -> c_int;
    pub(crate) fn orfeas_torch_empty_cache() -> c_int;
    pub(crate) fn orfeas_torch_synchronize(device: c_int) -> c_int;
    pub(crate) fn orfeas_torch_borrow(
        data: *mut c_void,
        sizes: *const i64,
        num_sizes: usize,
        kind: c_int,
        context: *mut c_void,
        release: unsafe extern "C" fn(*mut c_void),
        out: *mut *mut C_tensor,
    ) -> c_int;
}

/// `Status` in `shim.cpp`.
const OK: c_int = 0;
const NO_ACCELERATOR: c_int = 2;

/// Turns a shim status into a result. Call on the thread that made the call:
/// the message is thread-local.
pub(crate) fn check(status: c_int) -> Result<(), TorchError> {
    match status {
        OK => Ok(()),
        NO_ACCELERATOR => Err(TorchError::NoAccelerator),
        _ => {
            // SAFETY: a C string owned by the shim, valid until this thread's next shim call.
            let message = unsafe { CStr::from_ptr(orfeas_torch_last_error()) };
            Err(TorchError::torch(message.to_string_lossy().into_owned()))
        }
    }
}
