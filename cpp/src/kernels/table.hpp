// One function pointer per kernel: what every instruction set provides. Plain types only.
#pragma once

#include <cstdint>

namespace recfuse::kernels {

/// Entries of one panel that passed their row's threshold: row r owns the slots from r * nr on.
struct PanelHits {
  float* scores;         // mr * nr
  std::int32_t* lanes;   // mr * nr, position of the item in its panel
  std::int32_t* counts;  // mr
};

constexpr int kPanelWidth = 32;  // items in a panel of rounded numbers

/// Rounded queries of a panel. Where sum is the exact sum of products, (sum - offset) * slope + intercept is within
/// bound of the score; sums below the threshold cannot rank.
struct RoundedQueries {
  const std::int32_t* words;  // as [step][query]; before the steps of a chunk its start (KernelTable::chunk_steps)
  const std::int32_t* multipliers;  // as [segment][query]: of the sum so far, before each segment but the first
  const std::int32_t* thresholds;
  const std::int32_t* offsets;
  const float* slopes;
  const float* intercepts;
  const float* bounds;
};

/// The steps of a rounded row fall into segments, of which each has a unit of its own.
struct Segments {
  const std::int64_t* steps;
  int n;
};

struct RoundedPanel {
  const std::int32_t* words;  // as [step][item]
  const std::int32_t* ids;
  int n_items;  // the rest of the panel is zeros
  /// Or null: refused[r * refused_step] has a bit for every item that query r must not get.
  const std::uint32_t* refused;
  int refused_step;
};

/// What has passed the screen so far, a list per query. That of query r is list rows[r], which begins as many times
/// stride entries further on.
struct CandidateLists {
  float* values;
  float* bounds;
  std::int32_t* ids;
  std::int32_t* counts;
  const std::int32_t* rows;
  std::int64_t stride;
};

/// Queries that its panels may hold; a panel has the least that is enough.
constexpr int kPanelHeights[] = {1, 2, 4, 8, 14};

/// Squared norms of what rounding kept of a row, and of what it lost.
struct RoundedNorms {
  double kept;
  double lost;
};

/// Room behind a list of candidates: for those of one more panel, and for a whole register behind them.
constexpr int kSpareCandidates = kPanelWidth + 16;

/// Rows of factors, padded with zeros to `width`, a multiple of 16, that start `stride` floats apart. The square
/// matrices of ALS have the same layout: width x width.
struct RowLayout {
  std::int64_t width;
  std::int64_t stride;
};

constexpr int kTurnedRows = 12;  // that multiply_rows takes at once
constexpr int kPanel = 16;       // columns of its matrix that stand together

/// A square matrix by panels: kPanel columns of all rows, then the next ones. Where rows start 512 bytes or more apart,
/// a column of lines has more of them than the first cache has room for.
struct PanelMatrix {
  const float* values;
  const std::int32_t* begin;  // of every panel, the first row that is not zeros, and the one behind the last
  const std::int32_t* end;
};

/// Rows of a table that will be gathered next.
struct AheadRows {
  const float* table = nullptr;
  RowLayout layout = {};
  const std::int32_t* ids = nullptr;
  std::int64_t n = 0;
};

/// The factors that the entries of a row meet, `width` elements each, a multiple of 32.
struct PassSource {
  const float* table;
  const std::int32_t* ids;  // row j of the pass is row ids[j] of the table; null: j
  std::int64_t width;
  std::int64_t words;  // from one row to the next: width, or half of it where pairs of bfloat16 share a word
  bool rounded;
};

/// For every row of a sparse matrix, or column of its transpose, the ids that it holds and their values.
struct PostingLists {
  const std::int64_t* indptr;
  const std::int32_t* ids;  // or null: narrow_ids has them
  const std::uint16_t* narrow_ids;
  const float* values;  // null where every value is 1, or where integers has them
  const std::uint16_t* integers;
};

/// The same with values of either type.
template <class T>
struct ProductLists {
  const std::int64_t* indptr;
  const std::int32_t* ids;
  const T* values;
};

constexpr double kNoTerm = -0.0;            // a sum to which nothing was added; no sum of terms is -0.0
constexpr std::int64_t kProductBlock = 32;  // sums of which the largest is found

/// What two rows have in common.
struct CoratedSums {
  double dot;
  double squared_u;
  double squared_v;
  double support;  // number of entries that both have
};

/// What a sum must reach: norm * slope + offset. Its support, or the sum itself where it counts, must reach least.
template <class T>
struct SumBound {
  T slope;
  T offset;
  std::uint32_t least;
};

constexpr int kDots = 4;         // that canonical_dots and dots_int16 compute at once
constexpr int kNearQueries = 4;  // that distance_block and product_block take at once
constexpr int kInt16Step = 32;   // elements that dots_int16 multiplies at once

/// How an entry of the lists lies in its word: the number of its row in the low bits, then the value, if any.
enum class EntryKind { kId16, kId32, kId16Value16, kId24Value8, kId32Value32, kId32Real };

/// A row of a sparse matrix, and where its own entries stand in the lists by column.
struct RowEntries {
  const std::int32_t* columns;
  const float* values;
  const std::uint32_t* places;
  std::int64_t n;
};

/// Entries of the list of a column, to be added with a weight: the row's value there.
struct ListPart {
  std::uint32_t begin;
  std::uint32_t end;
  float value;
};

/// Parts of the lists, whose words are of one kind.
struct ListParts {
  EntryKind kind;
  const void* words;
  const ListPart* parts;
  std::int64_t n;
};

constexpr int kTouchedIds = 16;  // share a mark
constexpr int kBlockIds = 256;   // in a block of bytes

/// Sums by id, and a mark for every kTouchedIds of them that something was added to (or null: look at all).
struct EarlierCounts {
  std::uint32_t* sums;
  const std::uint32_t* blocks;  // or null: to be added to the sums
  std::uint8_t* touched;
};
struct EarlierReals {
  double* sums;
  std::uint32_t* support;  // or null: the number of terms
  std::uint8_t* touched;
};

/// What the sum of a pair must reach: (norm * the other's + shrinkage) times the lower threshold of the two.
template <class T>
struct PairBound {
  T norm;
  T shrinkage;
  float threshold;
  std::uint32_t least;  // as in SumBound
};

constexpr int kSpareHits = 16;  // room behind hits that a screen may write to

/// Where a screen puts the ids that pass, base added, and their sums.
template <class T>
struct PairHits {
  std::int32_t* ids;
  T* dots;
  std::int64_t base;
};

/// What makes a sum a cosine: times `unit`, a power of 2, through (norm * the other's + shrinkage).
struct PairScore {
  double squared;
  const double* squares;  // by id
  double unit;
  double shrinkage;
  float threshold;
  std::int32_t row;          // whose keys the others get,
  const std::int32_t* rows;  // and by id those for its own
};

/// ranking_key() of pairs, by id for the others; kSpareHits more are there to be written to.
struct KeyedPairs {
  std::int32_t* ids;
  std::uint64_t* keys;
  std::int64_t n;
};

struct KernelTable {
  // Sizes of the register block of `screen_panel`: mr queries times nr items.
  int mr;
  int nr;

  /// canonical_dot of canonical.hpp, same bits.
  double (*canonical_dot)(const float* a, const float* b, std::int64_t n);
  /// kDots of them: dots[i] of a[i] and b[i].
  void (*canonical_dots)(const float* const* a, const float* const* b, std::int64_t n, double* dots);

  /// squared_distance of canonical.hpp, same bits.
  double (*squared_distance)(const float* a, const float* b, std::int64_t n);
  /// values[q * n_items + i]: |query_q - item_i|^2 or <query_q, item_i> in float32, of kNearQueries queries. A distance
  /// is off by less than (n + 8) * 2^-23 of itself, a product of |query| |item|, and n * 2^-125.
  void (*distance_block)(const float* const* queries, const float* const* items, std::int64_t n_items, std::int64_t n,
                         float* values);
  void (*product_block)(const float* const* queries, const float* const* items, std::int64_t n_items, std::int64_t n,
                        float* values);

  /// Interleaves n_rows <= width rows (null: zeros), each times its scale, as panel[k * width + row].
  void (*pack_panel)(const float* const* rows, const float* scales, int n_rows, int width, std::int64_t n,
                     float* panel);

  /// Scores mr queries against nr items, both packed, in registers; stores only what reaches the
  /// threshold of its query. Returns how many entries passed; `hits` is untouched when that is 0.
  int (*screen_panel)(const float* queries, const float* items, std::int64_t n, const float* thresholds,
                      const PanelHits& hits);

  /// The same scores, all of them: scores[r * nr + lane].
  void (*score_panel)(const float* queries, const float* items, std::int64_t n, float* scores);

  /// counts[i] += how many of n <= nr scores reach above[i]. Returns a bit for every score that reaches some below[i]
  /// and not above[i]. The scores are room for nr.
  unsigned (*count_above)(const float* scores, int n, const float* above, const float* below, std::int64_t n_marks,
                          std::int32_t* counts);

  /// out[i] = <query, items + ids[i] * stride>; ids null: rows 0, 1, 2, ...
  void (*score_rows)(const float* query, const float* items, std::int64_t stride, const std::int32_t* ids,
                     std::int64_t n_rows, std::int64_t n, float* out);

  /// out[j] = x[j] * scale - centre[j] (centre null: 0) in units of `unit`, rounded, at most 127 or 32,767 either way.
  /// A unit of 0 makes everything 0.
  RoundedNorms (*round_to_int8)(const float* x, double scale, const double* centre, double unit, std::int64_t n,
                                std::int8_t* out);
  RoundedNorms (*round_to_int16)(const float* x, double scale, const double* centre, double unit, std::int64_t n,
                                 std::int16_t* out);

  /// out[j] = x[j] * scale, rounded in float32 and then to the nearest integer; at most 32,767 either way. Null as
  /// screen_int8.
  void (*scale_to_int16)(const float* x, float scale, std::int64_t n, std::int16_t* out);
  /// kDots products of two rows each, n a multiple of kInt16Step; no partial sum may leave 32 bits. Null as
  /// screen_int8.
  void (*dots_int16)(const std::int16_t* const* a, const std::int16_t* const* b, std::int64_t n, std::int32_t* dots);

  /// The largest |x[j] * scale - centre[j]|, nearly.
  double (*largest_element)(const float* x, double scale, const double* centre, std::int64_t n);

  /// What an item's bytes may be at most, either way, for screen_int8.
  int item_limit;
  /// Where this is not 0, a segment falls into chunks of so many steps, and screen_int8 adds their products in two
  /// lanes of 16 bits: of the first two bytes of every word, and of the last two. Both begin with what the start of the
  /// chunk has for them, which takes off what was added to the items: sums have no offset then. The products that meet
  /// in a lane may not sum up to more than 16 bits.
  int chunk_steps;
  /// The largest norm of what x[j] * scale - centre[j] (centre null: 0) has in one lane of a chunk. Null without
  /// chunks.
  double (*largest_lane)(const float* x, double scale, const double* centre, std::int64_t n);

  /// Multiplies `height` queries with kPanelWidth items, the four bytes or two int16 of a row in one word (item_limit +
  /// 1 was added to the bytes of items), and appends what reaches the thresholds to the lists. Returns a bit for every
  /// query whose list grew. Null on instruction sets for which it is not worth it.
  unsigned (*screen_int8)(int height, const RoundedQueries& queries, const RoundedPanel& items,
                          const Segments& segments, const CandidateLists& lists);
  unsigned (*screen_int16)(int height, const RoundedQueries& queries, const RoundedPanel& items,
                           const Segments& segments, const CandidateLists& lists);

  /// The k-th largest value - bound (bounds null: value) of n, none of them a NaN. keys is room for n.
  float (*kth_lower_end)(const float* values, const float* bounds, std::int64_t n, std::int64_t k, std::int32_t* keys);

  /// Keeps, in their order, the candidates whose value + bound is at least `least`; returns how many.
  std::int64_t (*keep_reaching)(float least, std::int64_t n, float* values, float* bounds, std::int32_t* ids);

  /// sums[i], with the offset of screen_int8 if that has one: of the products of a query and row rows[i] of a table of
  /// int8 rows, `stride` words apart, both of `words` words, a multiple of 16. Null where screen_int8 is.
  void (*dot_rows_int8)(const std::int32_t* query, const std::int32_t* table, std::int64_t stride,
                        const std::uint32_t* rows, std::int64_t n, std::int64_t words, std::int32_t* sums);

  /// Writes those of n slots that lie in [begin, begin + length), minus begin, in their order; returns how many. `out`
  /// has room for n and kSpareCandidates.
  std::int64_t (*places_between)(const std::uint32_t* slots, std::int64_t n, std::uint32_t begin, std::uint32_t length,
                                 std::uint32_t* out);

  /// Of the stored values of a row: extra_confidence(), and confidence() * preference().
  void (*implicit_entries)(const float* values, std::int64_t n, float alpha, float base, float* weights,
                           float* targets);
  void (*square_roots)(std::int64_t n, float* x);

  /// rows[j] = scales[j] * table[ids[j]] (scales null: 1), and rhs += sum_j targets[j] * table[ids[j]].
  void (*gather_rows)(const float* table, const RowLayout& layout, const std::int32_t* ids, const float* scales,
                      const float* targets, std::int64_t n, float* rows, float* rhs);

  /// out[c][j] = scales[j] * columns[c] * table[ids[j]][c] (scales null: 1) for the `width` columns c of the table and
  /// j < n, and 0 for j in [n, out_layout.width).
  void (*gather_transposed)(const float* table, const RowLayout& layout, const std::int32_t* ids, const float* scales,
                            const float* columns, std::int64_t n, const RowLayout& out_layout, float* out);

  /// gram = base + sum_j rows[j] rows[j]', the upper triangle; base may be gram. Some elements below it change too.
  /// Meanwhile the rows `ahead` are fetched.
  void (*add_gram)(const float* rows, const RowLayout& layout, std::int64_t n, const float* base, float* gram,
                   const AheadRows& ahead);

  /// gram -= sum_j rows[j] rows[j]', the upper triangle. Some elements below it change too.
  void (*subtract_gram)(const float* rows, const RowLayout& layout, std::int64_t n, float* gram);

  /// Replaces the upper triangle of A by U, A = U'U, and sets inverse[j] = 1 / U[j][j]. False where a pivot is so
  /// small, or not a number, that the system must be solved in float64.
  bool (*factor_spd)(float* a, const RowLayout& layout, float* inverse);

  /// x := A^-1 x, with what factor_spd left.
  void (*solve_factored)(const float* a, const RowLayout& layout, const float* inverse, float* x);

  /// Rounds the first `columns` elements of n rows to bfloat16, two in a word, for normal_pass: packed_width / 2 words
  /// a row. What stands behind the columns is anything finite.
  void (*round_rows)(const float* rows, std::int64_t stride, std::int64_t columns, std::int64_t n,
                     std::int64_t packed_width, std::uint32_t* out);

  /// y += sum_j (targets[j] - weights[j] <row_j, x>) row_j, or weights[j] <row_j, x> where targets is null, over n >= 1
  /// rows of `source`, which are copied beside one another to `copy` where the source has ids and copy is not null.
  void (*normal_pass)(const PassSource& source, std::int64_t n, const float* targets, const float* weights,
                      const float* x, float* copy, float* y);
  /// sum_j weights[j] <row_j, x>^2 over n >= 1 rows of `source`.
  float (*pass_curvature)(const PassSource& source, std::int64_t n, const float* weights, const float* x);

  /// out[j] += <rows[j], x>, and sum += sum_j weights[j] rows[j].
  void (*add_row_products)(const float* rows, const RowLayout& layout, std::int64_t n, const float* x, float* out);
  void (*add_weighted_rows)(const float* rows, const RowLayout& layout, std::int64_t n, const float* weights,
                            float* sum);

  /// out[i] = rows[i] * matrix for kTurnedRows rows.
  void (*multiply_rows)(const float* rows, const PanelMatrix& matrix, const RowLayout& layout, float* out);

  /// y += scale * x; out = a * b, element by element; <a, b>. n is a multiple of 32.
  void (*add_scaled)(float scale, const float* x, std::int64_t n, float* y);
  void (*multiply_elements)(const float* a, const float* b, std::int64_t n, float* out);
  float (*dot_product)(const float* a, const float* b, std::int64_t n);

  /// A sparse row times a sparse matrix: sums[id] += weight * value for every id of lists[columns[j]], j ascending.
  /// These two count in whole units, where every partial sum stays below 2^31.
  void (*add_counts)(const PostingLists& lists, const std::int32_t* columns, std::int64_t n, std::uint32_t* sums);
  void (*add_integers)(const PostingLists& lists, const std::int32_t* columns, const float* weights, float scale,
                       std::int64_t n, std::uint32_t* sums);
  /// The same in float64; support (may be null) receives the number of terms.
  void (*add_reals)(const PostingLists& lists, const std::int32_t* columns, const float* weights, std::int64_t n,
                    double* sums, std::uint32_t* support);
  void (*add_corated)(const PostingLists& lists, const std::int32_t* columns, const float* weights, std::int64_t n,
                      CoratedSums* sums);

  /// sums[id] += weight * value + 0.0, for float64 sums that begin at kNoTerm.
  void (*add_float_products)(const ProductLists<float>& lists, const std::int32_t* columns, const float* weights,
                             std::int64_t n, double* sums);
  void (*add_double_products)(const ProductLists<double>& lists, const std::int32_t* columns, const double* weights,
                              std::int64_t n, double* sums);
  /// The largest of every kProductBlock of these sums; kNoTerm counts as -inf, and a NaN does not count.
  void (*block_maxima)(const double* sums, std::int64_t n, double* maxima);

  /// Positions i in [0, n) whose sum reaches the bound into hits; returns how many.
  std::int64_t (*screen_counts)(const std::uint32_t* sums, const float* norms, std::int64_t n,
                                const SumBound<float>& bound, std::int32_t* hits);
  /// The same in float64; without support, the sum must be above 0. Norms null: the slope is 0.
  std::int64_t (*screen_reals)(const double* sums, const std::uint32_t* support, const double* norms, std::int64_t n,
                               const SumBound<double>& bound, std::int32_t* hits);

  /// A row times others: sums[id] += value * value' for every entry of the parts, in their order; marks what it
  /// touches, unless touched is null. In whole units, where every sum stays below 2^31, or in float64.
  void (*add_earlier_counts)(const ListParts& lists, float scale, std::uint32_t* sums, std::uint8_t* touched);
  void (*add_earlier_reals)(const ListParts& lists, double* sums, std::uint32_t* support, std::uint8_t* touched);
  /// Finds the ids below n whose sum reaches the bound and returns how many; clears everything but the blocks. The
  /// support, or without it the sum, must be at least bound.least; a real sum without support must be above 0.
  std::int64_t (*screen_earlier_counts)(const EarlierCounts& sums, const float* norms, const float* thresholds,
                                        std::int64_t n, const PairBound<float>& bound,
                                        const PairHits<std::uint32_t>& hits);
  std::int64_t (*screen_earlier_reals)(const EarlierReals& sums, const double* norms, const float* thresholds,
                                       std::int64_t n, const PairBound<double>& bound, const PairHits<double>& hits);
  /// The keys of n pairs: those whose cosine reaches the threshold of the row, and those that reach the other row's.
  void (*share_counts)(const PairHits<std::uint32_t>& hits, std::int64_t n, const PairScore& score,
                       const float* thresholds, KeyedPairs& own, KeyedPairs& others);
  void (*share_reals)(const PairHits<double>& hits, std::int64_t n, const PairScore& score, const float* thresholds,
                      KeyedPairs& own, KeyedPairs& others);

  /// Moves the largest of n different keys to the front, at least k of them; returns how many. No key up to *beyond,
  /// which is left as it is unless n > k, is among the k largest.
  std::int64_t (*keep_largest)(std::uint64_t* keys, std::int64_t n, std::int64_t k, std::uint64_t* beyond);
  /// n different keys, the largest first. most_ranked: of so many it is faster than a sort.
  void (*rank_keys)(const std::uint64_t* keys, std::int64_t n, std::uint64_t* sorted);
  std::int64_t most_ranked;

  /// out[i] = sum_j weights[j] * block which[j] of kBlockIds bytes, none above 127 like the weights; the byte of id i
  /// lies at block_slot(i). block_cost: how many scattered additions take as long.
  void (*add_blocks)(const std::uint8_t* blocks, const std::uint32_t* which, const std::uint8_t* weights,
                     std::int64_t n, std::uint32_t* out);
  int (*block_slot)(int id);
  int block_cost;

  /// The machine's ceilings (ceilings.hpp): operations in registers, reads of n floats, scattered increments.
  std::int64_t (*multiply_add_chains)(std::int64_t steps, float* sink);
  std::int64_t (*int8_chains)(std::int64_t steps, float* sink);  // null as screen_int8
  float (*read_floats)(const float* data, std::int64_t n);
  void (*count_at)(const std::int32_t* at, std::int64_t n, std::uint32_t* counters);
};

}  // namespace recfuse::kernels
