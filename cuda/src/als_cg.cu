// A source of its own: its kernels take long to compile.
#include "als_cg_step.cuh"
#include "device.cuh"

namespace recfuse::cuda {

template class CgHalfStep<Gpu>;

}  // namespace recfuse::cuda
