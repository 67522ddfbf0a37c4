// The roles of a block (crew.cuh) as threads of which one runs at a time; who does so next is drawn by chance, the same
// at every run. Copies arrive, and products read what they multiply, as late as they may, and what is not
// there yet holds bytes that nobody expects. Whoever would on a device sometimes read too early, write too early or
// wait for ever does so here, and is told.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <functional>
#include <iterator>
#include <limits>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "crew.cuh"
#include "recfuse/errors.hpp"

namespace recfuse::cuda {

/// Threads that take turns.
class Turns {
 public:
  explicit Turns(unsigned seed) : chance_(seed) {}

  /// Runs the roles to their end; throws what the first that failed has thrown. `when_stuck` is asked when nobody can
  /// go on, and says whether it has changed that.
  void run(const std::vector<std::function<void()>>& roles, std::function<bool()> when_stuck) {
    when_stuck_ = std::move(when_stuck);
    ready_.assign(roles.size(), [] { return true; });
    ended_.assign(roles.size(), 0);
    std::vector<std::thread> threads;
    for (std::size_t role = 0; role < roles.size(); ++role) {
      threads.emplace_back([this, role, &roles] { play(role, roles[role]); });
    }
    {
      const std::lock_guard lock(mutex_);
      pass_on();
    }
    for (auto& thread : threads) thread.join();
    if (failure_) std::rethrow_exception(failure_);
  }

  /// By the role whose turn it is: others may go on, and it does not before `ready`.
  void pause_until(std::function<bool()> ready) {
    std::unique_lock lock(mutex_);
    const std::size_t role = turn_;
    ready_[role] = std::move(ready);
    pass_on();
    wait_for_turn(lock, role);
  }
  /// By the same: others may go on, sometimes.
  void pause() {
    if (draw(4) == 0) pause_until([] { return true; });
  }
  unsigned draw(std::size_t below) { return static_cast<unsigned>(chance_() % below); }

 private:
  static constexpr std::size_t kNobody = static_cast<std::size_t>(-1);
  struct Stopped {};  // another role has failed

  void play(std::size_t role, const std::function<void()>& body) {
    try {
      {
        std::unique_lock lock(mutex_);
        wait_for_turn(lock, role);
      }
      body();
    } catch (const Stopped&) {
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    ended_[role] = 1;
    pass_on();
  }

  void wait_for_turn(std::unique_lock<std::mutex>& lock, std::size_t role) {
    changed_.wait(lock, [&] { return turn_ == role || failure_; });
    if (failure_) throw Stopped{};
  }

  void pass_on() {
    turn_ = kNobody;
    try {
      while (!failure_ && turn_ == kNobody && std::find(ended_.begin(), ended_.end(), char{0}) != ended_.end()) {
        const std::vector<std::size_t> able = able_roles();
        if (!able.empty()) {
          turn_ = able[draw(able.size())];
        } else if (!when_stuck_()) {
          throw DeviceError("the roles of a block wait for each other");
        }
      }
    } catch (...) {
      if (!failure_) failure_ = std::current_exception();
    }
    changed_.notify_all();
  }

  std::vector<std::size_t> able_roles() const {
    std::vector<std::size_t> able;
    for (std::size_t role = 0; role < ready_.size(); ++role) {
      if (ended_[role] == 0 && ready_[role]()) able.push_back(role);
    }
    return able;
  }

  std::mt19937 chance_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t turn_ = kNobody;
  std::vector<std::function<bool()>> ready_;  // by role
  std::vector<char> ended_;
  std::function<bool()> when_stuck_;
  std::exception_ptr failure_;
};

/// What happens in the background of a block: copies, and who still reads what.
class Background {
 public:
  struct Range {
    const char* begin;
    const char* end;
    bool overlaps(const Range& other) const { return begin < other.end && other.begin < end; }
  };

  explicit Background(Turns& turns) : turns_(turns) {}

  void copy(char* to, const char* from, int bytes, Barrier& barrier) {
    const Range range{to, to + bytes};
    for (const Copy& copy : copies_) {
      if (range.overlaps(copy.range())) throw DeviceError("two copies to the same shared memory");
    }
    for (const Range& read : reads_) {
      if (range.overlaps(read)) throw DeviceError("a copy overwrites what a product still reads");
    }
    std::memset(to, kPoison, static_cast<std::size_t>(bytes));
    copies_.push_back({to, from, bytes, &barrier});
  }
  /// One copy arrives; false: there is none.
  bool deliver() {
    if (copies_.empty()) return false;
    std::swap(copies_[turns_.draw(copies_.size())], copies_.back());
    const Copy copy = copies_.back();
    copies_.pop_back();
    std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.bytes));
    copy.barrier->bytes -= copy.bytes;
    complete(*copy.barrier);
    return true;
  }

  void begin_read(const Range& range) {
    for (const Copy& copy : copies_) {
      if (range.overlaps(copy.range())) throw DeviceError("a product reads what a copy has not brought yet");
    }
    reads_.push_back(range);
  }
  void end_read(const Range& range) {
    reads_.erase(std::find_if(reads_.begin(), reads_.end(), [&](const Range& r) { return r.begin == range.begin; }));
  }

  static void arrive(Barrier& barrier) {
    if (barrier.missing == 0) throw DeviceError("more arrivals at a barrier than it expects");
    --barrier.missing;
    complete(barrier);
  }
  static bool is_over(const Barrier& barrier, int phase) {
    const auto passed = static_cast<std::uint16_t>(barrier.phase - static_cast<std::uint16_t>(phase));
    if (passed > 1) throw DeviceError("somebody waits for a phase that the parity of a barrier does not tell");
    return passed == 1;
  }

 private:
  struct Copy {
    char* to;
    const char* from;
    int bytes;
    Barrier* barrier;
    Range range() const { return {to, to + bytes}; }
  };

  static void complete(Barrier& barrier) {
    if (barrier.missing > 0 || barrier.bytes != 0) return;
    ++barrier.phase;
    barrier.missing = barrier.expected;
  }

  static constexpr int kPoison = 0xCB;
  Turns& turns_;
  std::vector<Copy> copies_;
  std::vector<Range> reads_;  // of products that nobody has waited for
};

template <>
class Crew<HostBlock> {
  struct Role {
    Turns& turns;
    Background& background;

    void wait(const Barrier& barrier, int phase) {
      turns.pause();
      if (turns.draw(2) == 0) background.deliver();
      if (!Background::is_over(barrier, phase)) {
        turns.pause_until([&barrier, phase] { return Background::is_over(barrier, phase); });
      }
    }
  };

 public:
  static void start(Barrier& barrier, int arrivals) {
    const auto expected = static_cast<std::uint8_t>(arrivals);
    barrier = {expected, expected, 0, 0};
  }
  static void require_alignment(const char*) {}  // HostBlock's is aligned
  static void publish_barriers() {}

  class Loader : public Role {
   public:
    void expect(Barrier& barrier, int bytes) {
      barrier.bytes += bytes;
      Background::arrive(barrier);
      turns.pause();
    }
    void copy(char* to, const char* from, int bytes, Barrier& barrier) {
      background.copy(to, from, bytes, barrier);
      turns.pause();
    }
  };

  class Group : public Role {
   public:
    Group(const Role& role, char* shared, int index) : Role(role), shared_(shared), index_(index) {}
    int index() const { return index_; }

    template <class T>
    class PerThread {
     public:
      explicit PerThread(const Group&) : values_(kGroupThreads) {}
      T& operator[](int thread) { return values_[static_cast<std::size_t>(thread)]; }

     private:
      std::vector<T> values_;
    };
    template <class T>
    class PerWarp {
     public:
      PerWarp(const Group&, T value) : values_(kGroupWarps, value) {}
      T& operator[](int warp) { return values_[static_cast<std::size_t>(warp)]; }

     private:
      std::vector<T> values_;
    };

    template <class F>
    void each_warp(F&& f) {
      for (int warp = kGroupWarps - 1; warp >= 0; --warp) {
        f(warp);
        turns.pause();
      }
    }
    template <class F>
    void each_lane(int warp, F&& f) const {
      for (int lane = 0; lane < kWarp; ++lane) f(warp * kWarp + lane, lane);
    }
    void sync_warp(int) const {}
    template <class F>
    std::uint32_t ballot(int warp, F&& f) const {
      std::uint32_t lanes = 0;
      each_lane(warp, [&](int thread, int lane) { lanes |= (f(thread, lane) ? 1U : 0U) << lane; });
      return lanes;
    }
    template <class F>
    std::uint32_t any_bits(int warp, F&& f) const {
      std::uint32_t bits = 0;
      each_lane(warp, [&](int thread, int lane) { bits |= f(thread, lane); });
      return bits;
    }
    template <class F>
    float from_lane(int warp, int lane, F&& of) const {
      return of(warp * kWarp + lane);
    }
    int add_atomically(int, int* to, int value) const {
      const int before = *to;
      *to += value;
      return before;
    }

    void arrive(Barrier& barrier) {
      for (int warp = 0; warp < kGroupWarps; ++warp) {
        Background::arrive(barrier);
        turns.pause();
      }
    }

    std::uint32_t address(const char* pointer) const { return static_cast<std::uint32_t>(pointer - shared_); }
    void begin_products() { separated_ = true; }
    template <class Sums>
    void multiply(Sums&& sums, std::uint64_t a, std::uint64_t b, bool add) {
      if (!separated_) throw DeviceError("products that nothing separates from other uses of their sums");
      Product product{{}, a, b, add};
      for (int thread = 0; thread < kGroupThreads; ++thread) product.sums.push_back(&sums(thread));
      background.begin_read(read_by(a, kProductRows));
      background.begin_read(read_by(b, kProductColumns));
      if (!add) poison(product);
      open_.push_back(std::move(product));
    }
    void end_products() {
      committed_.push_back(std::move(open_));
      open_.clear();
      turns.pause();
    }
    template <int kPending>
    void wait_for_products() {
      turns.pause();
      while (committed_.size() > kPending) {
        for (const Product& product : committed_.front()) perform(product);
        committed_.erase(committed_.begin());
      }
      if (kPending == 0) separated_ = false;
    }
    template <class Sums>
    void pin(Sums&&) const {}

   private:
    struct Product {
      std::vector<ProductSums*> sums;  // of every thread
      std::uint64_t a, b;
      bool add;
    };

    static void poison(const Product& product) {
      for (ProductSums* const sums : product.sums) {
        std::fill(std::begin(sums->value), std::end(sums->value), std::numeric_limits<float>::quiet_NaN());
      }
    }
    Background::Range read_by(std::uint64_t operand, int rows) const {
      const char* const begin = shared_ + chunk_address(operand, 0, 0) / kAtomBytes * kAtomBytes;
      const char* const last = shared_ + chunk_address(operand, rows - 1, 0) / kAtomBytes * kAtomBytes;
      return {begin, last + kAtomBytes};
    }
    void perform(const Product& product) {
      multiply_operands([&](int thread) -> ProductSums& { return *product.sums[static_cast<std::size_t>(thread)]; },
                        shared_, product.a, product.b, product.add);
      background.end_read(read_by(product.a, kProductRows));
      background.end_read(read_by(product.b, kProductColumns));
    }

    char* shared_;
    int index_;
    bool separated_ = false;
    std::vector<Product> open_;
    std::vector<std::vector<Product>> committed_;
  };

  template <int kGroups, class Load, class Multiply>
  static void run(HostBlock& block, Load&& load, Multiply&& multiply) {
    Turns turns(static_cast<unsigned>(31 * block.x() + block.y()));
    Background background(turns);
    std::vector<std::function<void()>> roles{[&] {
      Loader loader{{turns, background}};
      load(loader);
    }};
    for (int index = 0; index < kGroups; ++index) {
      roles.emplace_back([&, index] {
        Group group({turns, background}, block.shared(), index);
        multiply(group);
      });
    }
    turns.run(roles, [&] { return background.deliver(); });
  }
};

}  // namespace recfuse::cuda
