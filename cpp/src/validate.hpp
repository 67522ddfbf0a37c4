// Every check of a value, once: Python and C++ callers get the same messages. Python checks types only.
#pragma once

#include <string>

#include "recfuse/fuse_topk.hpp"

namespace recfuse {

void validate(const FusedItemsArgs& args);
void validate(const FuseTopkArgs& args, const FusedItemsArgs& items, const TopkOut& out, MatrixView<double> parts);

/// What scoring pairs needs: queries and weights that fit the items, and pairs that fit both.
void validate_pairs(const FuseTopkArgs& args, const FusedItemsArgs& items, const CsrView& pairs);

/// Indptr must not decrease and indices must ascend within a row and lie in [0, cols).
void validate_csr(const CsrView& csr, const std::string& op, const char* argument);
void validate_num_threads(int num_threads, const std::string& op);

}  // namespace recfuse
