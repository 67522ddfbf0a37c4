// The only place with threads. No OpenMP run time: its worker threads do not survive fork().
#pragma once

#include <cstdint>
#include <functional>

namespace recfuse {

/// Threads that `parallel_for` will use at most: `num_threads`, or the default for 0, but not more than chunks.
int plan_workers(std::int64_t n_chunks, int num_threads);

/// Calls body(chunk, worker) once per chunk, in any order; worker < plan_workers(n_chunks, num_threads).
/// The first exception stops further chunks and is rethrown here. A call from inside a body runs serially.
/// What a chunk is must depend on the problem only, so that results do not depend on the number of threads.
void parallel_for(std::int64_t n_chunks, int num_threads,
                  const std::function<void(std::int64_t chunk, int worker)>& body);

}  // namespace recfuse
