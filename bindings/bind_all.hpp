// Every op, one line each.
#pragma once

#include "ops/als.hpp"
#include "ops/cosine_knn.hpp"
#include "ops/fuse_topk.hpp"

namespace recfuse::bindings {

template <class Backend>
void bind_all(py::module_& m) {
  bind_als<Backend>(m);
  bind_cosine_knn<Backend>(m);
  bind_neighbour_topk<Backend>(m);
  bind_fuse_topk<Backend>(m);
}

}  // namespace recfuse::bindings
