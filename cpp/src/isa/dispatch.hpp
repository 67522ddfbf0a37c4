// Which compiled copy of the kernels runs in this process.
#pragma once

#include "kernels/table.hpp"
#include "recfuse/isa.hpp"

namespace recfuse {

/// The kernels of active_isa().
const kernels::KernelTable& kernel_table();

}  // namespace recfuse
