// A source of its own: its kernels take long to compile.
#include "als_dual_step.cuh"
#include "device.cuh"

namespace recfuse::cuda {

template class DualHalfStep<Gpu>;

}  // namespace recfuse::cuda
