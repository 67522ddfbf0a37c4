// The thread pool: what Python cannot reach, or not without luck.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.hpp"
#include "parallel_for.hpp"
#include "recfuse/parallel.hpp"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RECFUSE_SANITIZED 1
#else
#define RECFUSE_SANITIZED 0
#endif

namespace {

using recfuse::parallel_for;

/// Sum of chunk numbers, and whether every chunk came once, from a worker that no other thread was using.
bool runs_every_chunk_once(std::int64_t n_chunks, int num_threads) {
  const int workers = recfuse::plan_workers(n_chunks, num_threads);
  std::vector<std::atomic<int>> calls(static_cast<std::size_t>(n_chunks));
  std::vector<std::atomic<int>> busy(static_cast<std::size_t>(workers));
  std::atomic<bool> good{true};
  parallel_for(n_chunks, num_threads, [&](std::int64_t chunk, int worker) {
    if (chunk < 0 || chunk >= n_chunks || worker < 0 || worker >= workers) {
      good = false;
      return;
    }
    if (++busy[static_cast<std::size_t>(worker)] != 1) good = false;
    ++calls[static_cast<std::size_t>(chunk)];
    --busy[static_cast<std::size_t>(worker)];
  });
  for (const auto& n : calls) good = good && n == 1;
  return good;
}

/// qemu-user cannot start a thread in a forked child.
[[maybe_unused]] bool emulated() { return std::getenv("RECFUSE_TEST_EMULATED") != nullptr; }

/// Runs `f` in a forked child, for 60 seconds at most; true if it returned true there.
template <class F>
bool true_in_child(F&& f) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    try {
      _exit(f() ? 0 : 1);
    } catch (...) {
      _exit(2);
    }
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

TEST(every_chunk_runs_once) {
  for (const std::int64_t n_chunks : {0, 1, 2, 3, 17, 1000}) {
    for (const int num_threads : {0, 1, 2, 3, 8, 64}) CHECK(runs_every_chunk_once(n_chunks, num_threads));
  }
}

TEST(workers_are_never_more_than_chunks_or_threads) {
  CHECK(recfuse::plan_workers(3, 64) == 3);
  CHECK(recfuse::plan_workers(64, 3) == 3);
  CHECK(recfuse::plan_workers(0, 3) == 1);
  CHECK(recfuse::plan_workers(1 << 20, 0) == recfuse::default_num_threads());
}

TEST(the_first_exception_stops_the_rest_and_is_rethrown) {
  for (const int num_threads : {1, 2, 8}) {
    std::atomic<int> calls{0};
    CHECK_THROWS(std::out_of_range, "chunk 5", parallel_for(1000000, num_threads, [&](std::int64_t chunk, int) {
                   ++calls;
                   if (chunk == 5) throw std::out_of_range("chunk 5");
                   // Without this the others could be through before chunk 5 is heard of.
                   if (chunk > 5) std::this_thread::sleep_for(std::chrono::microseconds(100));
                 }));
    CHECK(calls < 1000000);
    CHECK(runs_every_chunk_once(100, num_threads));
  }
}

TEST(every_chunk_may_throw) {
  for (int i = 0; i < 50; ++i) {
    CHECK_THROWS(std::runtime_error, "all",
                 parallel_for(100, 4, [](std::int64_t, int) { throw std::runtime_error("all"); }));
  }
}

TEST(a_nested_call_runs_serially_on_its_thread) {
  std::atomic<int> calls{0};
  std::atomic<bool> good{true};
  parallel_for(8, 4, [&](std::int64_t, int) {
    const auto outer = std::this_thread::get_id();
    parallel_for(10, 4, [&](std::int64_t, int worker) {
      ++calls;
      if (worker != 0 || std::this_thread::get_id() != outer) good = false;
    });
  });
  CHECK(calls == 80);
  CHECK(good);
  CHECK_THROWS(std::runtime_error, "inner", parallel_for(2, 2, [](std::int64_t, int) {
                 parallel_for(2, 2, [](std::int64_t, int) { throw std::runtime_error("inner"); });
               }));
}

TEST(callers_may_be_many) {
  std::atomic<int> good{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 6; ++i) {
    callers.emplace_back([&good, i] {
      for (int j = 0; j < 50; ++j) good += runs_every_chunk_once(20 + i, 1 + j % 5);
    });
  }
  for (auto& caller : callers) caller.join();
  CHECK(good == 300);
}

TEST(a_forked_child_has_its_own_threads) {
  CHECK(runs_every_chunk_once(100, 2));
#if !defined(__SANITIZE_THREAD__)  // it does not follow a fork of several threads
  if (emulated()) return;
  CHECK(true_in_child([] { return runs_every_chunk_once(100, 2); }));
  CHECK(true_in_child([] { return true_in_child([] { return runs_every_chunk_once(100, 3); }); }));
  // A fork while other threads are inside the pool.
  std::atomic<bool> stop{false};
  std::thread user([&stop] {
    while (!stop) runs_every_chunk_once(50, 2);
  });
  for (int i = 0; i < 20; ++i) CHECK(true_in_child([] { return runs_every_chunk_once(100, 2); }));
  stop = true;
  user.join();
#endif
  CHECK(runs_every_chunk_once(100, 2));
}

TEST(fewer_threads_than_asked_for_are_enough) {
#if !RECFUSE_SANITIZED  // their shadow memory does not fit the limit
  if (emulated()) return;
  CHECK(true_in_child([] {
    const rlimit none{1 << 20, 1 << 20};  // no address space for another stack
    return setrlimit(RLIMIT_AS, &none) == 0 && runs_every_chunk_once(600, 400);
  }));
#endif
}

TEST(the_default_is_the_override_then_the_variable) {
  setenv("RECFUSE_NUM_THREADS", "3", 1);
  CHECK(recfuse::default_num_threads() == 3);
  recfuse::set_default_num_threads(5);
  CHECK(recfuse::default_num_threads() == 5);
  recfuse::set_default_num_threads(0);
  CHECK(recfuse::default_num_threads() == 3);
  setenv("RECFUSE_NUM_THREADS", "two", 1);
  CHECK_THROWS(std::invalid_argument, "RECFUSE_NUM_THREADS must be an integer of at least 0; got 'two'",
               recfuse::default_num_threads());
  unsetenv("RECFUSE_NUM_THREADS");
  CHECK(recfuse::default_num_threads() >= 1);
  CHECK_THROWS(std::invalid_argument, "set_num_threads: num_threads must be at least 0; got -1",
               recfuse::set_default_num_threads(-1));
}
