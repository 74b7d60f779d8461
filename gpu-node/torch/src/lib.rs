//! libtorch for the GPU node: linking, the choice of a device, device memory, failures, weights.
//!
//! ```text
//! build.rs ── finds libtorch, hands the rpath to dependants
//! Backend ─── loads libtorch_cuda where there is one ──▶ Device
//! memory ──── the device allocator: figures, empty cache, synchronise
//! error ───── attempt(tensor code) → Result, FailureClass
//! weights ─── safetensors: mapped on CPU, streamed to a device
//! ```
//!
//! Neighbours: `orfeas-nets` builds networks on it, the node's `vram` and
//! `recovery` read its figures and classes. It is the one crate of the GPU node
//! with `unsafe` code: the C++ shim, `dlopen`, and tensors over mapped files.
#![allow(unsafe_code, reason = "foreign functions and mapped memory are this crate's job")]

mod backend;
mod error;
mod ffi;
pub mod memory;
mod weights;

pub use backend::{Backend, CUDA_FOLDER_VARIABLE, DeviceChoice, ParseDeviceError};
pub use error::{FailureClass, TorchError, attempt, classify};
pub use weights::{TensorInfo, WeightsFile};
