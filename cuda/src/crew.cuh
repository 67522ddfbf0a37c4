// Blocks whose warps have different work: one loads, groups of four multiply, and barriers in shared memory tell when
// a stage is full or may be filled again. What a role does is written once: on a device the roles are warps, in the
// emulator threads that take turns (emulated_crew.hpp).
//
// A role waits for phase p of a barrier: until it has been completed p + 1 times; -1 never waits. Nobody may be two
// phases behind, for the hardware tells the last two apart by their parity alone.
#pragma once

#include <cstdint>

#include "block.cuh"
#include "wgmma.cuh"

namespace recfuse::cuda {

struct alignas(8) Barrier {
#if defined(__CUDACC__)
  std::uint64_t state;
#else
  std::uint8_t expected, missing;  // arrivals
  std::uint16_t phase;             // that is not completed yet
  std::int32_t bytes;              // that copies still bring
#endif
};

template <class Block>
class Crew;

#if defined(__CUDACC__)

RECFUSE_DEVICE std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

template <>
class Crew<DeviceBlock> {
  static constexpr unsigned kAll = 0xFFFFFFFFU;
  static constexpr unsigned kPatience = 1U << 26;  // seconds of tries: an error is better than a device that hangs

  /// An error that the driver reports: a write to nowhere. A trap would do, but with one in the kernel the compiler
  /// gives no role more registers than it has at the start.
  RECFUSE_DEVICE static void fail() { asm volatile("st.shared.u32 [%0], %0;" ::"r"(0xFFFFFFF0U) : "memory"); }

  /// What all roles can do.
  struct Role {
    RECFUSE_DEVICE static void wait(Barrier& barrier, int phase) {
      const std::uint32_t at = shared_address(&barrier);
      std::uint32_t done = 0;
      for (unsigned tries = 0; done == 0; ++tries) {
        asm volatile(
            "{\n"
            ".reg .pred done;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
            "selp.b32 %0, 1, 0, done;\n"
            "}\n"
            : "=r"(done)
            : "r"(at), "r"(static_cast<unsigned>(phase) & 1U)
            : "memory");
        if (tries == kPatience) fail();
      }
    }
  };

 public:
  /// By one thread, before all others may use it.
  RECFUSE_DEVICE static void start(Barrier& barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals) : "memory");
  }
  /// The matrix unit permutes by bits of the address: this is what operand_at() counts on.
  RECFUSE_DEVICE static void require_alignment(const char* shared) {
    if (shared_address(shared) % kAtomBytes != 0) fail();
  }
  /// After the last start(): copies see the barriers, too.
  RECFUSE_DEVICE static void publish_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }

  class Loader : public Role {
   public:
    /// Arrives, and keeps the barrier's phase open until copies have brought so many bytes.
    RECFUSE_DEVICE void expect(Barrier& barrier, int bytes) const {
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes)
                   : "memory");
    }
    /// From global to shared memory, in the background: a multiple of 16 bytes.
    RECFUSE_DEVICE void copy(char* to, const char* from, int bytes, Barrier& barrier) const {
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                       shared_address(to)),
                   "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(&barrier))
                   : "memory");
    }
  };

  /// Four warps that multiply together, and are otherwise on their own.
  class Group : public Role {
   public:
    RECFUSE_DEVICE explicit Group(int index) : index_(index) {}
    RECFUSE_DEVICE int index() const { return index_; }

    template <class T>
    class PerThread {
     public:
      RECFUSE_DEVICE explicit PerThread(const Group&) {}
      RECFUSE_DEVICE T& operator[](int) { return value_; }

     private:
      T value_;
    };
    template <class T>
    class PerWarp {
     public:
      RECFUSE_DEVICE PerWarp(const Group&, T value) : value_(value) {}
      RECFUSE_DEVICE T& operator[](int) { return value_; }

     private:
      T value_;
    };

    template <class F>
    RECFUSE_DEVICE void each_warp(F&& f) const {
      f(thread() / kWarp);
    }
    template <class F>
    RECFUSE_DEVICE void each_lane(int, F&& f) const {
      f(thread(), thread() % kWarp);
    }
    /// What lanes have written to shared memory, the others see.
    RECFUSE_DEVICE void sync_warp(int) const { __syncwarp(); }
    template <class F>
    RECFUSE_DEVICE std::uint32_t ballot(int, F&& f) const {
      return __ballot_sync(kAll, f(thread(), thread() % kWarp));
    }
    template <class F>
    RECFUSE_DEVICE std::uint32_t any_bits(int, F&& f) const {
      return __reduce_or_sync(kAll, f(thread(), thread() % kWarp));
    }
    /// Within each_lane(), for all lanes alike: of(thread) of another lane.
    template <class F>
    RECFUSE_DEVICE float from_lane(int, int lane, F&& of) const {
      return __shfl_sync(kAll, of(thread()), lane);
    }
    /// Once for the warp; returns what was there before.
    RECFUSE_DEVICE int add_atomically(int, int* to, int value) const {
      int before = 0;
      if (thread() % kWarp == 0) before = atomicAdd(to, value);
      return __shfl_sync(kAll, before, 0);
    }

    /// Every warp, once: after all that its threads have done.
    RECFUSE_DEVICE void arrive(Barrier& barrier) const {
      __syncwarp();
      if (thread() % kWarp == 0) {
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
      }
    }

    RECFUSE_DEVICE std::uint32_t address(const char* shared) const { return shared_address(shared); }
    /// Before products: what the threads did with their sums is over.
    RECFUSE_DEVICE void begin_products() const {
#if RECFUSE_HOPPER
      __syncwarp();  // lanes leave a wait one after the other, and multiply together
      asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
    }
    template <class Sums>
    RECFUSE_DEVICE void multiply(Sums&& sums, std::uint64_t a, std::uint64_t b, bool add) const {
      multiply_operands(sums(thread()).value, a, b, add);
    }
    RECFUSE_DEVICE void end_products() const {
#if RECFUSE_HOPPER
      asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
    }
    /// Until all products are done but those of the last `kPending` end_products().
    template <int kPending>
    RECFUSE_DEVICE void wait_for_products() const {
#if RECFUSE_HOPPER
      asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#endif
    }
    /// The compiler moves no use of the sums across this.
    template <class Sums>
    RECFUSE_DEVICE void pin(Sums&& sums) const {
      RECFUSE_UNROLL
      for (float& value : sums(thread()).value) asm volatile("" : "+f"(value)::"memory");
    }

   private:
    RECFUSE_DEVICE static int thread() { return static_cast<int>(threadIdx.x) % kGroupThreads; }
    int index_;
  };

  /// load(loader) by one thread, multiply(group) by the `kGroups` groups after the first. Those who multiply need the
  /// registers.
  template <int kGroups, class Load, class Multiply>
  RECFUSE_DEVICE static void run(DeviceBlock&, Load&& load, Multiply&& multiply) {
    static_assert(kGroups == 2);  // 40 + 2 * 232 registers of 512 for every thread of a group
    // From one lane, so that the compiler knows it is the same in all and computes operands once for a warp.
    const int role = __shfl_sync(kAll, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
    if (role == 0) {
#if RECFUSE_HOPPER
      asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
#endif
      if (threadIdx.x == 0) {
        Loader loader;
        load(loader);
      }
    } else {
#if RECFUSE_HOPPER
      asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
#endif
      Group group(role - 1);
      multiply(group);
    }
  }
};

#endif

}  // namespace recfuse::cuda
