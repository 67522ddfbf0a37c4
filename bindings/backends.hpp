// The namespaces that a module is made from: every binding is a template over one of these.
#pragma once

#include "recfuse/recfuse.hpp"

namespace recfuse::bindings {

struct Cpu {
  using AlsSolver = recfuse::AlsSolver;
  using FusedIndex = recfuse::FusedIndex;
};

}  // namespace recfuse::bindings
