// What tch does not expose of libtorch: the device allocator, and tensors over
// foreign memory with a destructor. Device-neutral headers only, so that the
// same object links against the CPU libraries and serves CUDA when
// libtorch_cuda.so is loaded at run time. No exception leaves this file.

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <exception>
#include <string>

namespace {

// Mirrored by `Status` in src/ffi.rs.
enum Status : int { kOk = 0, kError = 1, kNoAccelerator = 2 };

thread_local std::string last_error;

int fail(const char* message, Status status = kError) noexcept {
  try {
    last_error = message;
  } catch (...) {
    last_error.clear();
  }
  return status;
}

template <class F>
int guarded(F&& body) noexcept {
  try {
    return body();
  } catch (const c10::Error& e) {
    return fail(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return fail(e.what());
  } catch (...) {
    return fail("unknown C++ exception");
  }
}

// Runs `body` with the allocator of the accelerator, or says that there is none.
template <class F>
int with_allocator(F&& body) noexcept {
  return guarded([&]() -> int {
    const auto accelerator = at::accelerator::getAccelerator(false);
    if (!accelerator.has_value() || at::accelerator::deviceCount() == 0) {
      return fail("no accelerator", kNoAccelerator);
    }
    // The allocator's per-device state does not exist before this.
    at::globalContext().lazyInitDevice(*accelerator);
    body(*c10::getDeviceAllocator(*accelerator));
    return kOk;
  });
}

}  // namespace

extern "C" {

// Mirrored by `RawStats` in src/ffi.rs.
struct OrfeasMemoryStats {
  uint64_t free_bytes;
  uint64_t total_bytes;
  int64_t allocated_bytes;
  int64_t reserved_bytes;
  int64_t allocated_peak_bytes;
  int64_t reserved_peak_bytes;
  int64_t num_ooms;
  int64_t num_alloc_retries;
};

// Valid until the calling thread's next call into this file.
const char* orfeas_torch_last_error() { return last_error.c_str(); }

int orfeas_torch_memory_stats(int device, OrfeasMemoryStats* out) {
  return with_allocator([&](c10::DeviceAllocator& allocator) {
    const auto index = static_cast<c10::DeviceIndex>(device);
    const auto [free_bytes, total_bytes] = allocator.getMemoryInfo(index);
    const auto stats = allocator.getDeviceStats(index);
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    *out = OrfeasMemoryStats{
        static_cast<uint64_t>(free_bytes), static_cast<uint64_t>(total_bytes),
        stats.allocated_bytes[all].current, stats.reserved_bytes[all].current,
        stats.allocated_bytes[all].peak,    stats.reserved_bytes[all].peak,
        stats.num_ooms,                     stats.num_alloc_retries};
  });
}

int orfeas_torch_reset_peak(int device) {
  return with_allocator([&](c10::DeviceAllocator& allocator) {
    allocator.resetPeakStats(static_cast<c10::DeviceIndex>(device));
  });
}

int orfeas_torch_empty_cache() {
  return with_allocator([](c10::DeviceAllocator& allocator) { allocator.emptyCache(); });
}

int orfeas_torch_synchronize(int device) {
  return with_allocator([&](c10::DeviceAllocator&) {
    at::accelerator::synchronizeDevice(static_cast<c10::DeviceIndex>(device));
  });
}

// A CPU tensor over `data`. `release(context)` runs once: when the tensor's
// storage goes, or before this returns with an error.
int orfeas_torch_borrow(void* data, const int64_t* sizes, size_t num_sizes, int kind, void* context,
                        void (*release)(void*), at::Tensor** out) {
  // The maker owns `context` from the first line on, also when a later one throws.
  auto maker = at::for_blob(data, at::IntArrayRef(sizes, num_sizes));
  maker.context(context, release);
  return guarded([&]() -> int {
    const auto options = at::TensorOptions().dtype(static_cast<at::ScalarType>(kind)).device(at::kCPU);
    *out = new at::Tensor(maker.options(options).make_tensor());
    return kOk;
  });
}

}  // extern "C"
