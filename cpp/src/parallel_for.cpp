#include "parallel_for.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <exception>
#include <fstream>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "recfuse/parallel.hpp"

namespace recfuse {
namespace {

constexpr int kMaxThreads = 512;

thread_local bool inside_parallel_for = false;

struct Job {
  Job(const std::function<void(std::int64_t, int)>& f, std::int64_t chunks, int helpers)
      : body(f), n_chunks(chunks), helpers_wanted(helpers) {}

  const std::function<void(std::int64_t, int)>& body;
  const std::int64_t n_chunks;
  std::atomic<std::int64_t> next{0};
  int helpers_wanted;  // guarded by the pool's mutex, like the two below
  int helpers_entered = 0;
  int helpers_inside = 0;
  std::exception_ptr error;  // guarded by error_mutex
  std::mutex error_mutex;

  void run(int worker) {
    inside_parallel_for = true;
    for (;;) {
      const std::int64_t chunk = next.fetch_add(1, std::memory_order_relaxed);
      if (chunk >= n_chunks) break;
      try {
        body(chunk, worker);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        next.store(n_chunks, std::memory_order_relaxed);
      }
    }
    inside_parallel_for = false;
  }
};

class Pool {
 public:
  void run(Job& job) {
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(&job);
      // Idle threads may be busy with other callers' jobs; this job then simply gets fewer of them.
      while (n_threads_ < std::min(job.helpers_wanted, kMaxThreads)) {
        try {
          std::thread([this] { serve(); }).detach();
        } catch (const std::system_error&) {
          break;  // the system grants no more threads; the caller's own does what is left
        }
        ++n_threads_;
      }
    }
    work_.notify_all();
    job.run(0);
    std::unique_lock lock(mutex_);
    jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
    left_.wait(lock, [&] { return job.helpers_inside == 0; });
  }

 private:
  Job* claim() {
    for (Job* job : jobs_) {
      if (job->helpers_wanted > 0) return job;
    }
    return nullptr;
  }

  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      Job* job = nullptr;
      work_.wait(lock, [&] { return (job = claim()) != nullptr; });
      --job->helpers_wanted;
      ++job->helpers_inside;
      const int worker = ++job->helpers_entered;
      lock.unlock();
      job->run(worker);
      lock.lock();
      if (--job->helpers_inside == 0) left_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable left_;
  std::deque<Job*> jobs_;
  int n_threads_ = 0;
};

// Never destroyed: its threads may outlive the static destructors. After a fork the child has none of the
// threads, so it forgets the parent's pool and makes its own at first use.
std::atomic<Pool*> current_pool{nullptr};

Pool& pool() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { current_pool.store(nullptr); });
  static_cast<void>(registered);
  Pool* existing = current_pool.load();
  if (existing == nullptr) {
    Pool* created = new Pool;
    if (current_pool.compare_exchange_strong(existing, created)) return *created;
    delete created;
  }
  return *existing;
}

/// CPUs' worth of time that the cgroup allows, or a large number where it sets no limit.
int cgroup_quota() {
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (v2 >> quota >> period && quota != "max" && period > 0) {
    return std::max(1, static_cast<int>(std::stod(quota) / period + 0.5));
  }
  std::ifstream v1_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream v1_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double microseconds = 0;
  if (v1_quota >> microseconds && v1_period >> period && microseconds > 0 && period > 0) {
    return std::max(1, static_cast<int>(microseconds / period + 0.5));
  }
  return kMaxThreads;
}

int usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int affinity = sched_getaffinity(0, sizeof set, &set) == 0
                           ? CPU_COUNT(&set)
                           : static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp(std::min(affinity, cgroup_quota()), 1, kMaxThreads);
}

std::atomic<int> overridden_num_threads{0};

int environment_num_threads() {
  const char* text = std::getenv("RECFUSE_NUM_THREADS");
  if (text == nullptr || *text == '\0') return 0;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (*end != '\0' || value < 0) {
    throw std::invalid_argument("RECFUSE_NUM_THREADS must be an integer of at least 0; got '" + std::string(text) +
                                "'");
  }
  return static_cast<int>(std::min<long>(value, kMaxThreads));
}

}  // namespace

int default_num_threads() {
  if (const int n = overridden_num_threads.load(); n > 0) return n;
  if (const int n = environment_num_threads(); n > 0) return n;
  static const int n = usable_cpus();
  return n;
}

void set_default_num_threads(int num_threads) {
  if (num_threads < 0) {
    throw std::invalid_argument("set_num_threads: num_threads must be at least 0; got " + std::to_string(num_threads));
  }
  overridden_num_threads.store(std::min(num_threads, kMaxThreads));
}

int plan_workers(std::int64_t n_chunks, int num_threads) {
  const int wanted = num_threads > 0 ? std::min(num_threads, kMaxThreads) : default_num_threads();
  return static_cast<int>(std::clamp<std::int64_t>(n_chunks, 1, wanted));
}

void parallel_for(std::int64_t n_chunks, int num_threads, const std::function<void(std::int64_t, int)>& body) {
  const int workers = inside_parallel_for ? 1 : plan_workers(n_chunks, num_threads);
  if (workers == 1) {
    for (std::int64_t chunk = 0; chunk < n_chunks; ++chunk) body(chunk, 0);
    return;
  }
  Job job(body, n_chunks, workers - 1);
  pool().run(job);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace recfuse
