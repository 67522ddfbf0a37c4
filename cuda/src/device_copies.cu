// Copies from the host beside the other work of a device.
#include <algorithm>

#include "device.cuh"

namespace recfuse::cuda {

Gpu::Upload::Upload(Gpu&) {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  for (Slot& slot : slots_) {
    slot.data = static_cast<float*>(pinned(kFloats * sizeof(float)));
    check(cudaEventCreateWithFlags(&slot.sent, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  }
}

Gpu::Upload::~Upload() {
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  for (const Slot& slot : slots_) {
    if (slot.sent != nullptr) cudaEventDestroy(slot.sent);
    if (slot.data != nullptr) cudaFreeHost(slot.data);
  }
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

/// What goes where the last run ends joins it.
void Gpu::Upload::append(float* to, const float* from, std::int64_t n) {
  if (filled_ > 0 && to != to_ + filled_) send();
  while (n > 0) {
    if (filled_ == kFloats) send();
    if (filled_ == 0) {
      check(cudaEventSynchronize(slots_[slot_].sent), "cudaEventSynchronize");
      to_ = to;
    }
    const std::int64_t now = std::min(n, kFloats - filled_);
    std::copy_n(from, now, slots_[slot_].data + filled_);
    filled_ += now;
    from += now;
    to += now;
    n -= now;
  }
}

void Gpu::Upload::send() {
  if (filled_ == 0) return;
  Slot& slot = slots_[slot_];
  const std::size_t bytes = static_cast<std::size_t>(std::exchange(filled_, 0)) * sizeof(float);
  check(cudaMemcpyAsync(to_, slot.data, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
  check(cudaEventRecord(slot.sent, stream_), "cudaEventRecord");
  slot_ = 1 - slot_;
}

Gpu::Feed::Feed(Gpu& device) : device_(device) {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  for (cudaEvent_t* const event : {&sent_[0], &sent_[1], &freed_[0], &freed_[1]}) {
    check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  }
}

Gpu::Feed::~Feed() {
  cudaStreamSynchronize(stream_);  // or a place would be given back while a copy is on its way there
  for (const cudaEvent_t event : {sent_[0], sent_[1], freed_[0], freed_[1]}) cudaEventDestroy(event);
  cudaStreamDestroy(stream_);
}

void Gpu::Feed::send(int place, void* to, const void* from, std::size_t bytes) {
  if (silent_) return;
  check(cudaStreamWaitEvent(stream_, freed_[place], 0), "cudaStreamWaitEvent");
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
  check(cudaEventRecord(sent_[place], stream_), "cudaEventRecord");
}

void Gpu::Feed::await(int place) {
  if (silent_) return;
  check(cudaStreamWaitEvent(device_.stream_, sent_[place], 0), "cudaStreamWaitEvent");
}

void Gpu::Feed::free(int place) {
  if (silent_) return;
  check(cudaEventRecord(freed_[place], device_.stream_), "cudaEventRecord");
}

void Gpu::Upload::finish() { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

}  // namespace recfuse::cuda
