// Where in a block's memory the sum of an id is.
#pragma once

#include <cstdint>

#include "list_kernels.cuh"

namespace recfuse::cuda {

/// Sums of a strip lie side by side.
class StripPlaces {
 public:
  using Id = std::uint16_t;
  static constexpr std::int64_t kBytes = 0;  // of a place, beside its sum

  RECFUSE_DEVICE StripPlaces(char*, int) {}

  template <class Lists>
  RECFUSE_DEVICE void enter(const Lists& lists, int strip) {
    first_ = lists.first_id(strip);
    size_ = lists.size(strip);
  }
  RECFUSE_DEVICE int size() const { return size_; }
  RECFUSE_DEVICE void clear(int) const {}
  template <class Block>
  RECFUSE_DEVICE int of(const Block&, int id) const {
    return id;
  }
  RECFUSE_DEVICE std::int64_t id_at(int place) const { return first_ + place; }

 private:
  std::int64_t first_ = 0;
  int size_ = 0;
};

/// A table by hashes of all ids, for rows that meet few of them. It has more places than such a row has additions, so
/// it never is full, whatever the ids are; which place an id gets is left to chance, and does not matter.
class TablePlaces {
 public:
  using Id = std::int32_t;
  static constexpr std::int64_t kBytes = sizeof(int);

  /// `size` is a power of two.
  RECFUSE_DEVICE TablePlaces(char* memory, int size) : ids_(reinterpret_cast<int*>(memory)), size_(size) {}

  template <class Lists>
  RECFUSE_DEVICE void enter(const Lists&, int) {}
  RECFUSE_DEVICE int size() const { return size_; }
  RECFUSE_DEVICE void clear(int place) const { ids_[place] = kNone; }
  template <class Block>
  RECFUSE_DEVICE int of(const Block& block, int id) const {
    int place = first_place(id);
    while (!block.claim(ids_ + place, kNone, id)) place = (place + 1) & (size_ - 1);
    return place;
  }
  /// Negative: nobody's.
  RECFUSE_DEVICE std::int64_t id_at(int place) const { return ids_[place]; }

 private:
  static constexpr int kNone = -1;

  /// The high bits of the id times 2^32 over the golden ratio: neighbours come far apart.
  RECFUSE_DEVICE int first_place(int id) const {
    const std::uint64_t mixed = static_cast<std::uint32_t>(id) * 0x9E3779B1U;
    return static_cast<int>(mixed * static_cast<std::uint32_t>(size_) >> 32);
  }

  int* ids_;
  int size_;
};

}  // namespace recfuse::cuda
