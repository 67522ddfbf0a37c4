// Every kernel, compiled once per instruction set. The including unit defines RECFUSE_ISA_NAME, its namespace.
// Nothing but the table may leave the unit: a function that the linker shares between units would carry
// instructions of the widest one to every CPU.
#include "recfuse/canonical.hpp"
#include "recfuse/confidence.hpp"
#include "simd.inl.hpp"
#include "table.hpp"

namespace recfuse::kernels::RECFUSE_ISA_NAME {
namespace {
#include "transpose.inl.hpp"
// What is above is used below.
#include "byte_blocks.inl.hpp"
#include "candidates.inl.hpp"
#include "ceilings.inl.hpp"
#include "earlier_rows.inl.hpp"
#include "fuse_topk.inl.hpp"
// What is above is used below.
#include "count_above.inl.hpp"
#include "keys.inl.hpp"
#include "nearest_rows.inl.hpp"
#include "pair_screen.inl.hpp"
#include "rescore.inl.hpp"
#include "rounding.inl.hpp"
// What is above is used below.
#include "rounded_screen.inl.hpp"
#include "sparse_dot.inl.hpp"
// What is above is used below.
#include "sparse_product.inl.hpp"
// The order matters here: the solver multiplies with the tiles of the Gram matrix.
#include "conjugate_gradient.inl.hpp"
#include "gram.inl.hpp"
#include "solve_spd.inl.hpp"
}  // namespace

extern const KernelTable table;
const KernelTable table{
    .mr = kPanelQueries,
    .nr = kPanelItems,
    .canonical_dot = rescore_dot,
    .canonical_dots = rescore_dots,
    .squared_distance = squared_distance_of,
    .distance_block = near_block<true>,
    .product_block = near_block<false>,
    .pack_panel = pack_panel,
    .screen_panel = screen_panel,
    .score_panel = score_panel,
    .count_above = count_above,
    .score_rows = score_rows,
    .round_to_int8 = round_row<std::int8_t>,
    .round_to_int16 = round_row<std::int16_t>,
    .scale_to_int16 = kScaleToInt16,
    .dots_int16 = kDotsInt16,
    .largest_element = largest_element,
    .item_limit = kItemLimit,
    .chunk_steps = kChunkSteps,
    .largest_lane = kLargestLane,
    .screen_int8 = kScreenInt8,
    .screen_int16 = kScreenInt16,
    .kth_lower_end = kth_lower_end,
    .keep_reaching = keep_reaching,
    .dot_rows_int8 = kDotRowsInt8,
    .places_between = places_between,
    .implicit_entries = implicit_entries,
    .square_roots = square_roots,
    .gather_rows = gather_rows,
    .gather_transposed = gather_transposed,
    .add_gram = add_gram,
    .subtract_gram = subtract_gram,
    .factor_spd = factor_spd,
    .solve_factored = solve_factored,
    .round_rows = round_rows,
    .normal_pass = normal_pass,
    .pass_curvature = pass_curvature,
    .add_row_products = add_row_products,
    .add_weighted_rows = add_weighted_rows,
    .multiply_rows = multiply_rows,
    .add_scaled = add_scaled,
    .multiply_elements = multiply_elements,
    .dot_product = dot_product,
    .add_counts = add_counts,
    .add_integers = add_integers,
    .add_reals = add_reals,
    .add_corated = add_corated,
    .add_float_products = add_products<float>,
    .add_double_products = add_products<double>,
    .block_maxima = block_maxima,
    .screen_counts = screen_counts,
    .screen_reals = screen_reals,
    .add_earlier_counts = add_earlier_counts,
    .add_earlier_reals = add_earlier_reals,
    .screen_earlier_counts = screen_earlier_counts,
    .screen_earlier_reals = screen_earlier_reals,
    .share_counts = share_counts,
    .share_reals = share_reals,
    .keep_largest = keep_largest,
    .rank_keys = rank_keys,
    .most_ranked = kMostRanked,
    .add_blocks = add_blocks,
    .block_slot = block_slot,
    .block_cost = kBlockCost,
    .multiply_add_chains = multiply_add_chains,
    .int8_chains = kInt8Chains,
    .read_floats = read_floats,
    .count_at = count_at,
};

}  // namespace recfuse::kernels::RECFUSE_ISA_NAME
