// The namespaces that a module is made from: every binding is a template over one of these.
#pragma once

#include "arrays.hpp"
#include "recfuse/recfuse.hpp"

namespace recfuse::bindings {

struct Cpu {
  using Matrix = FloatMatrix;
  using AlsSolver = recfuse::AlsSolver;
  using FusedIndex = recfuse::FusedIndex;
  static constexpr auto cosine_knn = recfuse::cosine_knn;
  static constexpr auto neighbour_topk = recfuse::neighbour_topk;
};

}  // namespace recfuse::bindings
