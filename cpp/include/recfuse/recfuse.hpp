#pragma once

#include "recfuse/canonical.hpp"
#include "recfuse/ceilings.hpp"
#include "recfuse/fuse_topk.hpp"
#include "recfuse/isa.hpp"
#include "recfuse/parallel.hpp"
#include "recfuse/views.hpp"
