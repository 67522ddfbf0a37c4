#include "recfuse/sparse_memory.hpp"

#include <algorithm>
#include <bit>
#include <map>
#include <string>

namespace recfuse {
namespace {

// Of cuda/src: best_keys, list_kernels, sparse_search.
constexpr std::int64_t kRound = 1'024, kListRun = 4'096, kSharedKeys = 4'096, kKeysBytes = 256 << 20, kShares = 4;
constexpr std::int64_t kMostSharedK = 1'024, kTaskBytes = 16, kSharedRowBytes = 12, kHeadBytes = 16;

std::int64_t ceil_of(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t power_of_two(std::int64_t n) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(n, 1))));
}

/// Rows times lists, however their sums are kept.
struct Search {
  std::int64_t n_rows, n_ids, n_lists, n_entries, k;  // lists and their entries
  StripKind kind;
  std::int64_t value_bytes;
  bool screens;
};

class Plan {
 public:
  explicit Plan(const DeviceShape& device) : device_(device) {}

  void keep(const char* name, std::int64_t n_bytes) { add(name, n_bytes, "kept"); }

  /// `source`: bytes that only making the lists needs. `when` tells the phases from those of another search.
  void search(const Search& of, std::int64_t source, const std::string& when = "") {
    if (of.n_ids >= kLeastTableIds) {
      phases(of, {1, 4, of.n_rows, 0, of.n_rows}, source, " for tables" + when);
    }
    const std::int64_t strips = strips_of(of);
    const std::int64_t heavy =
        strips > 1 && of.k <= kMostSharedK ? std::min(of.n_rows, kShares * device_.multiprocessors) : 0;
    const std::int64_t tasks = of.n_rows + heavy * (strips - 1);
    phases(of, {strips, 2, tasks, heavy, tasks}, source, when);
  }

  /// Rows of counts that have products of dense columns: as many columns as there can be, and none of them left out of
  /// the other rows.
  void dense(const Search& of, bool ones) {
    const DenseCosts costs;
    if (!costs.may_pay(of.n_rows, of.n_entries)) return;
    add("entries and largest values of columns", 8 * of.n_lists, "columns");
    const std::int64_t most = costs.most_columns(of.n_rows, of.n_lists, of.n_entries);
    if (most == 0) return;
    const std::int64_t stride = dense_tiles(of.n_rows) * kDenseTile,
                       at_once = std::min(of.n_rows, dense_rows(of.n_rows));
    keep("places of columns", 4 * of.n_lists);
    keep("rows without dense columns", 8 * (of.n_rows + 1) + (ones ? 4 : 8) * of.n_entries);
    phases(of, {strips_of(of), 2, of.n_rows, 0, at_once}, 0, " of dense columns");
    add("dense columns", stride * dense_depth(most), "search of dense columns");
    add("sums of dense columns", 4 * stride * at_once, "search of dense columns");
  }

  std::vector<DeviceBuffer> buffers() {
    std::erase_if(buffers_, [](const auto& buffer) { return buffer.n_bytes == 0; });
    return std::move(buffers_);
  }

 private:
  /// Of lists, and of the blocks that search them.
  struct Cut {
    std::int64_t strips, id_bytes, tasks;
    std::int64_t heavy;    // rows that blocks share
    std::int64_t at_once;  // tasks of a launch
  };

  void phases(const Search& of, const Cut& cut, std::int64_t source, const std::string& when) {
    const std::int64_t lists = of.n_lists * cut.strips, list_bytes = (cut.id_bytes + of.value_bytes) * of.n_entries;
    const std::int64_t parts = cut.heavy * cut.strips;
    const std::string lists_phase = "lists" + when, work = "work" + when, search = "search" + when;
    const std::string merge = "merge" + when;
    for (const auto& phase : {lists_phase, work, search, merge}) {
      add(cut.strips > 1 ? "lists, in strips" : "lists", 8 * (lists + 1) + list_bytes, phase);
    }
    // Runs of lists are gone when there is something in the lists.
    const std::int64_t runs = 8 * ceil_of(lists, kListRun) - list_bytes;
    add("sizes of the lists", 4 * lists + std::max<std::int64_t>(runs, 0), lists_phase);
    add("matrix of the lists", source, lists_phase);
    add("additions per row", 8 * of.n_rows, work);
    const std::int64_t room = capacity(of.k);
    for (const auto& phase : {search, merge}) {
      add("lists of rows that blocks share", 8 * parts * of.k, phase);
      add("rows with too many candidates", 4 + (of.screens ? 4 * cut.tasks : 0), phase);
    }
    add("order of the work", kTaskBytes * cut.tasks, search);
    if (room > kSharedKeys) {
      add("candidates",
          8 * room * std::clamp<std::int64_t>(kKeysBytes / (8 * room), 1, std::max<std::int64_t>(cut.at_once, 1)),
          search);
    }
    add("lists, being merged", cut.heavy * (kSharedRowBytes + 8 * power_of_two(cut.strips * of.k)), merge);
  }

  static std::int64_t capacity(std::int64_t k) { return power_of_two(k + k / 4 + kRound); }

  /// How many places of so many bytes a block has room for, beside its candidates.
  std::int64_t fitting(std::int64_t k, std::int64_t bytes) const {
    const std::int64_t room = capacity(k), keys = room <= kSharedKeys ? 8 * room : 0;
    return (device_.shared_bytes - kHeadBytes - keys) / bytes;
  }
  std::int64_t strips_of(const Search& of) const {
    const std::int64_t width = std::clamp<std::int64_t>(
        fitting(of.k, of.kind.sum_bytes), 1, std::min(std::max<std::int64_t>(of.n_ids, 1), of.kind.most_ids));
    return std::max<std::int64_t>(ceil_of(of.n_ids, width), 1);
  }
  void add(const char* name, std::int64_t n_bytes, const std::string& phase) {
    buffers_.push_back({name, n_bytes, phase});
  }

  DeviceShape device_;
  std::vector<DeviceBuffer> buffers_;
};

std::int64_t csr_bytes(std::int64_t rows, std::int64_t entries, bool values) {
  return 8 * (rows + 1) + (values ? 8 : 4) * entries;
}

}  // namespace

std::int64_t DenseCosts::most_columns(std::int64_t n_rows, std::int64_t n_columns, std::int64_t n_entries) const {
  const std::int64_t by_bytes = most_bytes / (dense_tiles(n_rows) * kDenseTile) / kDenseTile * kDenseTile;
  return std::min({n_columns, by_bytes, n_entries / ceil_of(n_rows, ids_per_entry)});
}

std::int64_t DenseCosts::of_row(std::int64_t n_rows, std::int64_t n_dense) const {
  return n_rows * (dense_depth(n_dense) + products_per_sum) / products_per_addition;
}

std::vector<std::int32_t> DenseCosts::columns(std::int64_t n_rows, const std::vector<std::int32_t>& sizes,
                                              const std::vector<std::uint32_t>& largest) const {
  std::vector<std::int32_t> dense;
  std::int64_t n_entries = 0;
  for (std::size_t column = 0; column < sizes.size(); ++column) {
    n_entries += sizes[column];
    if (largest[column] > 127 || sizes[column] < ceil_of(n_rows, ids_per_entry)) continue;
    dense.push_back(static_cast<std::int32_t>(column));
  }
  std::stable_sort(dense.begin(), dense.end(), [&](std::int32_t a, std::int32_t b) {
    return sizes[static_cast<std::size_t>(a)] > sizes[static_cast<std::size_t>(b)];
  });
  const auto most = static_cast<std::size_t>(most_columns(n_rows, static_cast<std::int64_t>(sizes.size()), n_entries));
  if (dense.size() > most) dense.resize(most);
  // A row with all of them saves the most.
  std::int64_t of_one = 0, of_all = 0;
  for (const std::int32_t column : dense) {
    const std::int64_t size = sizes[static_cast<std::size_t>(column)];
    of_one += size;
    of_all += size * size;
  }
  if (of_one <= of_row(n_rows, static_cast<std::int64_t>(dense.size())) || of_all < least_gain) dense.clear();
  return dense;
}

std::vector<DeviceBuffer> plan_cosine_knn(const CosineKnnSizes& sizes, const DeviceShape& device) {
  const bool ones = sizes.values == SparseValues::kOnes, corated = sizes.norm == Norm::kCorated;
  const bool counting = ones || (sizes.values == SparseValues::kWhole && !corated && sizes.min_support == 1);
  const bool tells = sizes.values != SparseValues::kAny && sizes.min_support == 1;
  Search search{
      sizes.n_rows, sizes.n_rows, sizes.n_columns, sizes.n_entries, std::min(sizes.k, sizes.n_rows), kCounted, 0,
      false};
  Plan plan(device);
  plan.keep("matrix", csr_bytes(sizes.n_rows, sizes.n_entries, !ones));
  plan.keep("norms of the rows", (counting ? 12 : 8) * sizes.n_rows);
  plan.keep("ids and scores", 8 * sizes.n_rows * sizes.k);
  search.screens = !counting && !corated;
  search.kind = counting ? kCounted : corated ? kThreeFloat64 : tells ? kFixedPoint : kFixedWithSupport;
  search.value_bytes = ones ? 0 : search.kind.value_bytes;
  plan.search(search, 0);
  if (counting) plan.dense(search, ones);
  if (search.screens) {
    search.kind = kFloat64;
    search.screens = false;
    plan.search(search, 0, " of rows with ties");
  }
  return plan.buffers();
}

std::vector<DeviceBuffer> plan_neighbour_topk(const NeighbourTopkSizes& sizes, const DeviceShape& device) {
  Plan plan(device);
  plan.keep("histories", csr_bytes(sizes.n_queries, sizes.query_entries, true));
  plan.search({sizes.n_queries, sizes.n_items, sizes.n_rows, sizes.entries,
               std::clamp<std::int64_t>(sizes.k, 1, std::max<std::int64_t>(sizes.n_items, 1)),
               sizes.normalise ? kTwoFloat64 : kFloat64, 4, false},
              csr_bytes(sizes.n_rows, sizes.entries, true));
  plan.keep("filters", sizes.filter_bytes);
  plan.keep("ids and scores", 8 * sizes.n_queries * sizes.k);
  return plan.buffers();
}

std::int64_t peak_bytes(const std::vector<DeviceBuffer>& buffers) {
  std::int64_t kept = 0, most = 0;
  std::map<std::string, std::int64_t> phases;
  for (const auto& buffer : buffers) {
    if (buffer.phase == "kept") {
      kept += buffer.n_bytes;
    } else {
      most = std::max(most, phases[buffer.phase] += buffer.n_bytes);
    }
  }
  return kept + most;
}

}  // namespace recfuse
