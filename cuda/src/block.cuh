// What a kernel is written against: a block of threads in phases. A phase is what every thread does between two
// barriers. On a device it is that, and a barrier; in the emulator it is a loop over the threads, so that the same
// kernel runs on a CPU under sanitizers and a debugger. The emulator shows that the logic is right; it cannot show
// a missing barrier within a phase, or a copy that is read before it is waited for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "half.cuh"
#include "portable.cuh"

#if !defined(__CUDACC__)
#include <bit>
#include <vector>
#endif

namespace recfuse::cuda {

constexpr int kWarp = 32;

RECFUSE_DEVICE int ones_in(std::uint32_t bits) {
#if defined(__CUDACC__)
  return __popc(bits);
#else
  return std::popcount(bits);
#endif
}

/// Registers of a thread that multiply() works on: fragments as mma.m16n8k16 lays them out over a warp.
struct FragmentA {
  std::uint32_t pair[4];  // two float16 each: rows L/4 and L/4 + 8, columns 2 (L % 4) and 8 more
};
struct FragmentB {
  std::uint32_t pair[2];
};
struct FragmentC {
  float value[4];  // rows L/4, L/4, L/4 + 8, L/4 + 8; columns 2 (L % 4) + 0, 1, 0, 1
};

/// The same of whole numbers, which mma.m16n8k32 makes of bytes: four instead of two float16 in each word of A and B.
struct FragmentSums {
  std::int32_t value[4];
};

/// Where value i of a FragmentC of lane L lies in its 16 x 8 block.
RECFUSE_DEVICE int fragment_row(int lane, int i) { return lane / 4 + (i / 2) * 8; }
RECFUSE_DEVICE int fragment_column(int lane, int i) { return 2 * (lane % 4) + i % 2; }

#if defined(__CUDACC__)

class DeviceBlock {
 public:
  RECFUSE_DEVICE int x() const { return static_cast<int>(blockIdx.x); }
  RECFUSE_DEVICE int y() const { return static_cast<int>(blockIdx.y); }
  RECFUSE_DEVICE int n_threads() const { return static_cast<int>(blockDim.x); }
  RECFUSE_DEVICE char* shared() const {
    extern __shared__ __align__(1024) char memory[];
    return memory;
  }

  /// A value that a thread keeps from phase to phase.
  template <class T>
  class PerThread {
   public:
    RECFUSE_DEVICE explicit PerThread(const DeviceBlock&) {}
    RECFUSE_DEVICE T& operator[](int) { return value_; }

   private:
    T value_;
  };

  /// One phase.
  template <class F>
  RECFUSE_DEVICE void each_thread(F&& f) const {
    f(static_cast<int>(threadIdx.x));
    __syncthreads();
  }
  /// The same by warps, without a barrier at its end: f(warp) may use the functions below.
  template <class F>
  RECFUSE_DEVICE void each_warp(F&& f) const {
    f(static_cast<int>(threadIdx.x) / kWarp);
  }
  /// Within each_warp: every lane.
  template <class F>
  RECFUSE_DEVICE void each_lane(int warp, F&& f) const {
    f(static_cast<int>(threadIdx.x), static_cast<int>(threadIdx.x) % kWarp);
  }

  /// Within each_warp: what its lanes have written is there for all of them.
  RECFUSE_DEVICE void sync_warp() const { __syncwarp(); }
  /// Within each_warp: the value of every lane becomes the sum over those that differ from it in bits kFirst, 2 kFirst,
  /// ... kLast of their numbers: the same bits in all of them.
  template <int kFirst, int kLast, class Value>
  RECFUSE_DEVICE void add_across(int, Value&& value_of) const {
    float& own = value_of(static_cast<int>(threadIdx.x));
    RECFUSE_UNROLL
    for (int bit = kFirst; bit <= kLast; bit *= 2) own += __shfl_xor_sync(0xFFFFFFFFU, own, bit);
  }

  /// 16 bytes from global to shared memory, not before wait_for_copies().
  RECFUSE_DEVICE void copy_16(void* to, const void* from) const {
    const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
  }
  RECFUSE_DEVICE void copy_4(void* to, const void* from) const {
    const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at), "l"(from) : "memory");
  }
  RECFUSE_DEVICE void end_copies() const { asm volatile("cp.async.commit_group;" ::: "memory"); }
  /// A barrier, after all copies but those of the last `kPending` end_copies() have arrived.
  template <int kPending>
  RECFUSE_DEVICE void wait_for_copies() const {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
    __syncthreads();
  }

  /// Four 8 x 8 matrices of float16: address(lane) is where row lane % 8 of matrix lane / 8 begins in shared memory.
  template <class Registers, class Address>
  RECFUSE_DEVICE void load_matrices(int, Registers&& registers, Address&& address) const {
    const int thread = static_cast<int>(threadIdx.x);
    std::uint32_t* const r = registers(thread);
    const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(address(thread % kWarp)));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
  }
  /// The same, each matrix transposed.
  template <class Registers, class Address>
  RECFUSE_DEVICE void load_transposed(int, Registers&& registers, Address&& address) const {
    const int thread = static_cast<int>(threadIdx.x);
    std::uint32_t* const r = registers(thread);
    const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(address(thread % kWarp)));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
  }
  /// c += a b: 16 x 16 float16 times 16 x 8 float16, in float32.
  template <class A, class B, class C>
  RECFUSE_DEVICE void multiply(int, A&& a_of, B&& b_of, C&& c_of) const {
    const int thread = static_cast<int>(threadIdx.x);
    const FragmentA& a = a_of(thread);
    const FragmentB& b = b_of(thread);
    FragmentC& c = c_of(thread);
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c.value[0]), "+f"(c.value[1]), "+f"(c.value[2]), "+f"(c.value[3])
        : "r"(a.pair[0]), "r"(a.pair[1]), "r"(a.pair[2]), "r"(a.pair[3]), "r"(b.pair[0]), "r"(b.pair[1]));
  }

  /// The same of bytes with a sign: 16 x 32 times 32 x 8, exactly.
  template <class A, class B, class C>
  RECFUSE_DEVICE void multiply_bytes(int, A&& a_of, B&& b_of, C&& c_of) const {
    const int thread = static_cast<int>(threadIdx.x);
    const FragmentA& a = a_of(thread);
    const FragmentB& b = b_of(thread);
    FragmentSums& c = c_of(thread);
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(c.value[0]), "+r"(c.value[1]), "+r"(c.value[2]), "+r"(c.value[3])
        : "r"(a.pair[0]), "r"(a.pair[1]), "r"(a.pair[2]), "r"(a.pair[3]), "r"(b.pair[0]), "r"(b.pair[1]));
  }

  /// The largest f(thread, lane) of a warp.
  template <class F>
  RECFUSE_DEVICE std::uint32_t largest(int, F&& f) const {
    const int thread = static_cast<int>(threadIdx.x);
    return __reduce_max_sync(0xFFFFFFFFU, f(thread, thread % kWarp));
  }

  RECFUSE_DEVICE int add_atomically(int* to, int value) const { return atomicAdd(to, value); }
  /// Writes `value` where `empty` is; whether it is there now, by whomever.
  RECFUSE_DEVICE bool claim(int* to, int empty, int value) const {
    const int seen = *static_cast<volatile int*>(to);  // most often it is there already, and reading is cheaper
    if (seen != empty) return seen == value;
    const int before = atomicCAS(to, empty, value);
    return before == empty || before == value;
  }
  RECFUSE_DEVICE void raise_atomically(std::uint32_t* to, std::uint32_t value) const { atomicMax(to, value); }
};

#else

class HostBlock {
 public:
  HostBlock(int x, int y, int n_threads, char* shared) : x_(x), y_(y), n_threads_(n_threads), shared_(shared) {}

  int x() const { return x_; }
  int y() const { return y_; }
  int n_threads() const { return n_threads_; }
  char* shared() const { return shared_; }

  template <class T>
  class PerThread {
   public:
    explicit PerThread(const HostBlock& block) : values_(static_cast<std::size_t>(block.n_threads())) {}
    T& operator[](int thread) { return values_[static_cast<std::size_t>(thread)]; }

   private:
    std::vector<T> values_;
  };

  /// Backwards: an order that a device may take, and that a phase which depends on one does not survive.
  template <class F>
  void each_thread(F&& f) const {
    for (int thread = n_threads_ - 1; thread >= 0; --thread) f(thread);
  }
  template <class F>
  void each_warp(F&& f) const {
    for (int warp = n_threads_ / kWarp - 1; warp >= 0; --warp) f(warp);
  }
  template <class F>
  void each_lane(int warp, F&& f) const {
    for (int lane = 0; lane < kWarp; ++lane) f(warp * kWarp + lane, lane);
  }

  void sync_warp() const {}
  template <int kFirst, int kLast, class Value>
  void add_across(int warp, Value&& value_of) const {
    for (int bit = kFirst; bit <= kLast; bit *= 2) {
      float before[kWarp];
      for (int lane = 0; lane < kWarp; ++lane) before[lane] = value_of(warp * kWarp + lane);
      for (int lane = 0; lane < kWarp; ++lane) value_of(warp * kWarp + lane) += before[lane ^ bit];
    }
  }

  void copy_16(void* to, const void* from) const { std::memcpy(to, from, 16); }
  void copy_4(void* to, const void* from) const { std::memcpy(to, from, 4); }
  void end_copies() const {}
  template <int kPending>
  void wait_for_copies() const {}

  template <class Registers, class Address>
  void load_matrices(int warp, Registers&& registers, Address&& address) const {
    for (int matrix = 0; matrix < 4; ++matrix) {
      for (int lane = 0; lane < kWarp; ++lane) {
        const auto* const row = static_cast<const char*>(static_cast<const void*>(address(8 * matrix + lane / 4)));
        std::memcpy(&registers(warp * kWarp + lane)[matrix], row + 4 * (lane % 4), 4);
      }
    }
  }
  template <class Registers, class Address>
  void load_transposed(int warp, Registers&& registers, Address&& address) const {
    for (int matrix = 0; matrix < 4; ++matrix) {
      for (int lane = 0; lane < kWarp; ++lane) {
        half_bits pair[2];
        for (int i = 0; i < 2; ++i) {
          const auto* const row =
              static_cast<const char*>(static_cast<const void*>(address(8 * matrix + 2 * (lane % 4) + i)));
          std::memcpy(&pair[i], row + 2 * (lane / 4), 2);
        }
        std::memcpy(&registers(warp * kWarp + lane)[matrix], pair, 4);
      }
    }
  }
  template <class A, class B, class C>
  void multiply(int warp, A&& a_of, B&& b_of, C&& c_of) const {
    const auto element = [](const std::uint32_t* pairs, int pair, int which) {
      return float_of(static_cast<half_bits>(pairs[pair] >> (16 * which)));
    };
    float a[16][16], b[16][8];
    for (int lane = 0; lane < kWarp; ++lane) {
      const std::uint32_t *const pa = a_of(warp * kWarp + lane).pair, *const pb = b_of(warp * kWarp + lane).pair;
      const int group = lane / 4, within = 2 * (lane % 4);
      for (int which = 0; which < 2; ++which) {
        for (int pair = 0; pair < 4; ++pair) {
          a[group + (pair % 2) * 8][within + which + (pair / 2) * 8] = element(pa, pair, which);
        }
        for (int pair = 0; pair < 2; ++pair) b[within + which + pair * 8][group] = element(pb, pair, which);
      }
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      FragmentC& c = c_of(warp * kWarp + lane);
      for (int i = 0; i < 4; ++i) {
        float sum = c.value[i];
        for (int k = 0; k < 16; ++k) sum += a[fragment_row(lane, i)][k] * b[k][fragment_column(lane, i)];
        c.value[i] = sum;
      }
    }
  }

  template <class A, class B, class C>
  void multiply_bytes(int warp, A&& a_of, B&& b_of, C&& c_of) const {
    const auto element = [](const std::uint32_t* words, int word, int which) {
      return static_cast<std::int32_t>(static_cast<std::int8_t>(words[word] >> (8 * which)));
    };
    std::int32_t a[16][32], b[32][8];
    for (int lane = 0; lane < kWarp; ++lane) {
      const std::uint32_t *const pa = a_of(warp * kWarp + lane).pair, *const pb = b_of(warp * kWarp + lane).pair;
      const int group = lane / 4, within = 4 * (lane % 4);
      for (int which = 0; which < 4; ++which) {
        for (int word = 0; word < 4; ++word) {
          a[group + (word % 2) * 8][within + which + (word / 2) * 16] = element(pa, word, which);
        }
        for (int word = 0; word < 2; ++word) b[within + which + word * 16][group] = element(pb, word, which);
      }
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      FragmentSums& c = c_of(warp * kWarp + lane);
      for (int i = 0; i < 4; ++i) {
        for (int k = 0; k < 32; ++k) c.value[i] += a[fragment_row(lane, i)][k] * b[k][fragment_column(lane, i)];
      }
    }
  }

  template <class F>
  std::uint32_t largest(int warp, F&& f) const {
    std::uint32_t most = 0;
    each_lane(warp, [&](int thread, int lane) {
      const std::uint32_t value = f(thread, lane);
      most = most < value ? value : most;
    });
    return most;
  }

  int add_atomically(int* to, int value) const {
    const int before = *to;
    *to += value;
    return before;
  }
  bool claim(int* to, int empty, int value) const {
    if (*to == empty) *to = value;
    return *to == value;
  }
  void raise_atomically(std::uint32_t* to, std::uint32_t value) const { *to = *to < value ? value : *to; }

 private:
  int x_, y_, n_threads_;
  char* shared_;
};

#endif

}  // namespace recfuse::cuda
