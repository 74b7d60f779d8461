//! libtorch linking, device memory, run-time CUDA.
