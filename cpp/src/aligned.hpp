// Vectors that start on a cache line: no register of theirs straddles two. Large ones start on a huge page and ask
// for more of them: rows gathered at random from small pages cost a page walk each (docs/performance.md).
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <utility>
#include <vector>

namespace recfuse {

template <class T>
struct AlignedAllocator {
  using value_type = T;

  AlignedAllocator() = default;
  template <class U>
  AlignedAllocator(const AlignedAllocator<U>&) {}

  T* allocate(std::size_t n) {
    const std::size_t bytes = n * sizeof(T);
    void* p = ::operator new(bytes, alignment(n));
    if (alignment(n) == kHugePage) madvise(p, bytes, MADV_HUGEPAGE);  // a wish: failure changes nothing but speed
    return static_cast<T*>(p);
  }
  void deallocate(T* p, std::size_t n) { ::operator delete(p, alignment(n)); }

  template <class U>
  bool operator==(const AlignedAllocator<U>&) const {
    return true;
  }

 private:
  static constexpr std::align_val_t kLine{64};
  static constexpr std::align_val_t kHugePage{std::size_t{2} << 20};

  static std::align_val_t alignment(std::size_t n) {
    return n * sizeof(T) >= 2 * static_cast<std::size_t>(kHugePage) ? kHugePage : kLine;
  }
};

template <class T>
using AlignedVector = std::vector<T, AlignedAllocator<T>>;

/// Aligned room for n elements that nobody has written yet: large tables are filled by all threads, and pages that
/// nobody needs are never touched.
template <class T>
class Room {
 public:
  Room() = default;
  explicit Room(std::size_t n) : begin_(n == 0 ? nullptr : AlignedAllocator<T>().allocate(n)), size_(n) {}
  Room(Room&& other) noexcept : begin_(std::exchange(other.begin_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Room& operator=(Room&& other) noexcept {
    std::swap(begin_, other.begin_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Room() {
    if (begin_ != nullptr) AlignedAllocator<T>().deallocate(begin_, size_);
  }

  T* data() const { return begin_; }
  T& operator[](std::size_t i) const { return begin_[i]; }

 private:
  T* begin_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace recfuse
