// A pretend accelerator on PyTorch's PrivateUse1: its memory is host memory, its kernels are the CPU's, so its numbers are
// the CPU's to the bit. What a CPU tensor gets wrong on a real device is an error here too. No streams: all is done at once.
#include <ATen/EmptyTensor.h>
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#include <atomic>
#include <mutex>
#include <set>
#include <string>

namespace {
using at::Tensor;
using MaybeTensor = std::optional<Tensor>;
using Ints = at::IntArrayRef;
constexpr auto NPU = c10::DeviceType::PrivateUse1;
constexpr auto KEY = c10::DispatchKey::PrivateUse1;
constexpr size_t HEADER = 64;  // before each block: its size; the block stays as aligned as the CPU's

thread_local c10::DeviceIndex current = 0;
c10::DeviceIndex devices = 2;
std::atomic<int64_t> allocated{0}, peak{0}, limit{0};

// ---- memory ----
void release(void* data) {
  auto* block = static_cast<char*>(data) - HEADER;
  allocated -= *reinterpret_cast<int64_t*>(block);
  c10::free_cpu(block);
}

struct DeviceMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    c10::Device device(NPU, current);
    if (!size) return {nullptr, nullptr, &release, device};
    TORCH_CHECK_WITH(OutOfMemoryError, !limit || allocated + int64_t(size) <= limit,
                     "NPU out of memory. Tried to allocate ", size, " bytes; ", limit.load(), " in all");
    auto* block = static_cast<char*>(c10::alloc_cpu(size + HEADER));
    *reinterpret_cast<int64_t*>(block) = size;
    allocated += size;
    if (allocated > peak) peak = allocated.load();
    return {block + HEADER, block + HEADER, &release, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t size) const override { memcpy(to, from, size); }
} device_memory;
REGISTER_ALLOCATOR(NPU, &device_memory);

std::mutex pinned_mutex;
std::set<const void*> pinned;
void unpin(void* data) {
  std::lock_guard<std::mutex> lock(pinned_mutex);
  pinned.erase(data);
  c10::free_cpu(data);
}

struct PinnedMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    void* data = c10::alloc_cpu(size);
    std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned.insert(data);
    return {data, data, &unpin, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &unpin; }
  void copy_data(void* to, const void* from, size_t size) const override { memcpy(to, from, size); }
} pinned_memory;

// ---- which device ----
struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return NPU; }
  c10::Device getDevice() const override { return {NPU, current}; }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() < devices, "invalid NPU index ", int(device.index()));
    uncheckedSetDevice(device);
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.index() >= 0) current = device.index();
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    auto before = getDevice();
    setDevice(device);
    return before;
  }
  c10::DeviceIndex deviceCount() const noexcept override { return devices; }
  c10::Stream getStream(c10::Device device) const override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return getStream(stream.device()); }
  void record(void** event, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {
    *event = const_cast<Guard*>(this);  // events are always over
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return devices > 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return devices; }
  c10::DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(c10::DeviceIndex index) const override { Guard().setDevice({NPU, index}); }
  at::Device getDeviceFromPtr(void*) const override { return {NPU, current}; }
  at::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  bool isPinnedPtr(const void* data) const override {
    std::lock_guard<std::mutex> lock(pinned_mutex);
    return pinned.count(data) > 0;
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t size) const override {
    auto data = device_memory.allocate(size);
    if (storage.nbytes()) memcpy(data.get(), storage.data(), std::min(size, storage.nbytes()));
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(data));
    storage.unsafeGetStorageImpl()->set_nbytes(size);
  }
};

// ---- kernels ----
Tensor host(const Tensor& t) {  // the same memory, seen as a CPU tensor
  if (!t.defined() || t.is_cpu()) return t;
  return at::from_blob(t.data_ptr(), t.sizes(), t.strides(), t.options().device(at::kCPU).requires_grad(false));
}
MaybeTensor host(const MaybeTensor& t) { return t && t->defined() ? MaybeTensor(host(*t)) : std::nullopt; }
Tensor wide(const Tensor& t) { return t.scalar_type() == at::kHalf ? host(t).to(at::kFloat) : host(t); }
Tensor back(const Tensor& result, const Tensor& like) { return result.defined() ? result.to(like.options()) : result; }

void check_same_device(const std::string& name, at::ArrayRef<Tensor> tensors) {
  std::optional<c10::Device> device;
  for (const Tensor& t : tensors) {
    if (!t.defined() || (t.dim() == 0 && t.is_cpu())) continue;  // a number may come from the CPU
    TORCH_CHECK(!device || *device == t.device(), name, ": Expected all tensors to be on the same device, but found ",
                *device, " and ", t.device());
    device = t.device();
  }
}

Tensor empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  c10::DeviceGuard guard(device.value_or(c10::Device(NPU, current)));
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &device_memory, c10::DispatchKeySet(KEY),
                                   c10::dtype_or_default(dtype), format);
}
Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  c10::DeviceGuard guard(device.value_or(c10::Device(NPU, current)));
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
                                           &device_memory, c10::DispatchKeySet(KEY), c10::dtype_or_default(dtype));
}
const Tensor& resize_(const Tensor& t, c10::SymIntArrayRef size, std::optional<at::MemoryFormat> format) {
  auto sizes = C10_AS_INTARRAYREF_SLOW(size);
  auto bytes = at::detail::computeStorageNbytesContiguous(sizes, t.itemsize(), t.storage_offset());
  if (bytes > t.storage().nbytes()) at::detail::getPrivateUse1Hooks().resizePrivateUse1Bytes(t.storage(), bytes);
  t.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  if (format) t.unsafeGetTensorImpl()->empty_tensor_restride(*format);
  return t;
}
Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  host(to).copy_(host(from));
  return to;
}
Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  if (from.sizes() != to.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}
at::Scalar item(const Tensor& t) { return at::_local_scalar_dense(host(t)); }
Tensor& set_storage(Tensor& t, at::Storage storage, int64_t offset, Ints size, Ints stride) {
  auto* impl = t.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(storage);
  impl->set_storage_offset(offset);
  if (stride.size() == size.size()) impl->set_sizes_and_strides(size, stride);
  else impl->set_sizes_contiguous(size);
  return t;
}
Tensor convolution(const Tensor& x, const Tensor& w, const MaybeTensor& b, Ints stride, Ints padding, Ints dilation,
                   bool transposed, Ints output_padding, int64_t groups) {
  check_same_device("convolution", {x, w, b.value_or(Tensor())});
  return back(at::convolution(host(x), host(w), host(b), stride, padding, dilation, transposed, output_padding, groups),
              x);
}
std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& grad, const Tensor& x, const Tensor& w, Ints stride, Ints padding, Ints dilation, bool transposed,
    Ints output_padding, int64_t groups, std::array<bool, 3> wanted) {
  check_same_device("convolution_backward", {grad, x, w});
  int64_t channels = transposed ? w.size(1) * groups : w.size(0);
  at::OptionalIntArrayRef bias = wanted[2] ? at::OptionalIntArrayRef(Ints(channels)) : std::nullopt;
  // In fp16 by way of fp32, where the CPU's kernel is not fifty times slower.
  auto [gx, gw, gb] = at::convolution_backward(wide(grad), wide(x), wide(w), bias, stride, padding, dilation,
                                               transposed, output_padding, groups, wanted);
  return {back(gx, x), back(gw, x), back(gb, x)};
}
// It writes its running statistics though its schema does not say so: the boxed fallback would lose them.
std::tuple<Tensor, Tensor, Tensor> batch_norm(
    const Tensor& x, const MaybeTensor& w, const MaybeTensor& b, const MaybeTensor& mean, const MaybeTensor& var,
    bool training, double momentum, double eps) {
  check_same_device("batch_norm", {x, w.value_or(Tensor()), b.value_or(Tensor()), mean.value_or(Tensor()),
                                   var.value_or(Tensor())});
  auto [y, m, v] =
      at::native_batch_norm(host(x), host(w), host(b), host(mean), host(var), training, momentum, eps);
  return {y.to(x.device()), m.to(x.device()), v.to(x.device())};
}
// Everything else. PyTorch's own fallback takes CPU tensors as they come; a real device does not.
void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  static const std::set<std::string> indexing{"aten::index", "aten::index_put_", "aten::_index_put_impl_"};
  if (!indexing.count(op.operator_name().name)) {
    std::vector<Tensor> tensors;
    for (const auto& value : torch::jit::last(*stack, op.schema().arguments().size())) {
      if (value.isTensor()) tensors.push_back(value.toTensor());
      else if (value.isTensorList()) for (const Tensor& t : value.toTensorVector()) tensors.push_back(t);
    }
    check_same_device(op.operator_name().name, tensors);
  }
  at::native::cpu_fallback(op, stack);
}
Hooks hooks;
}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("resize_", &resize_);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &item);
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("set_.source_Storage", TORCH_FN(at::native::set_));
  m.impl("set_.source_Tensor", TORCH_FN(at::native::set_tensor_));
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
  m.impl("native_batch_norm", &batch_norm);
}
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  KERNEL_PRIVATEUSEONE(conv3d, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(addmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(mm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(bmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(cross_entropy_loss, fp32)
}
TORCH_LIBRARY(npu_sim, m) {
  at::RegisterPrivateUse1HooksInterface(&hooks);
  m.def("device_count() -> int", []() { return int64_t(devices); });
  m.def("set_device_count(int count) -> ()", [](int64_t count) { devices = c10::DeviceIndex(count); });
  m.def("current_device() -> int", []() { return int64_t(current); });
  m.def("set_device(int index) -> ()", [](int64_t index) { Guard().setDevice({NPU, c10::DeviceIndex(index)}); });
  m.def("set_memory(int size) -> ()", [](int64_t size) { limit = size; });
  m.def("memory_allocated() -> int", []() { return allocated.load(); });
  m.def("max_memory_allocated() -> int", []() { return peak.load(); });
  m.def("reset_peak_memory_stats() -> ()", []() { peak = allocated.load(); });
}
