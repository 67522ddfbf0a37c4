#pragma once

#include "recfuse/als.hpp"
#include "recfuse/canonical.hpp"
#include "recfuse/ceilings.hpp"
#include "recfuse/confidence.hpp"
#include "recfuse/cosine_knn.hpp"
#include "recfuse/fuse_topk.hpp"
#include "recfuse/isa.hpp"
#include "recfuse/model.hpp"
#include "recfuse/model_file.hpp"
#include "recfuse/parallel.hpp"
#include "recfuse/sparse_memory.hpp"
#include "recfuse/views.hpp"
