// How many threads an op uses when its caller does not say.
#pragma once

namespace recfuse {

/// RECFUSE_NUM_THREADS where set, else the CPUs that affinity and the cgroup quota leave to this process.
int default_num_threads();

/// Overrides the default for this process; 0 restores it.
void set_default_num_threads(int num_threads);

}  // namespace recfuse
