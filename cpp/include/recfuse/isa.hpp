// The instruction set whose kernels run: chosen once per process, by the CPU or by RECFUSE_ISA.
#pragma once

#include <string>
#include <vector>

namespace recfuse {

/// Name of the instruction set in use. Throws std::invalid_argument where RECFUSE_ISA names none that works here.
std::string active_isa();

/// Those that this CPU can run, best first.
std::vector<std::string> available_isas();

/// Uses another one from now on; not while an op runs. Throws std::invalid_argument for one not available.
void set_isa(const std::string& name);

}  // namespace recfuse
