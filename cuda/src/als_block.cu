// A source of its own: its kernels take long to compile.
#include "als_block_step.cuh"
#include "device.cuh"

namespace recfuse::cuda {

template class BlockHalfStep<Gpu>;

}  // namespace recfuse::cuda
