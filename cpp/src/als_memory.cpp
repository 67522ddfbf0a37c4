#include "recfuse/als_memory.hpp"

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <string>
#include <utility>

namespace recfuse {
namespace {

// Of cuda/src: als_memory, als_system, als_side, als_rows, als_loss, als_spectrum, als_coordinates, als_block,
// als_cg_step.
constexpr std::int64_t kAlignment = 256, kTile = 4, kLongRow = 4'096, kGramRows = 256, kPartsBytes = 256 << 20,
                       kScratchBytes = 1 << 30;
constexpr std::int64_t kPartBytes = 16, kRun = 4'096, kStoredRows = 1 << 16, kSquaredRows = 1'024;
constexpr std::int64_t kBlockUnknowns = 64, kMostMultiplied = 256, kSpectrumBytes = 16;

std::int64_t ceil_of(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t taken(std::int64_t bytes) { return ceil_of(bytes, kAlignment) * kAlignment; }

/// SystemShape, and what System has of shared memory in float32.
struct System {
  std::int64_t size;

  std::int64_t padded() const { return ceil_of(size, kTile) * kTile; }
  std::int64_t elements() const { return (padded() + 1) * (padded() + kTile); }
  std::int64_t float_bytes() const { return 4 * elements(); }
  /// `strips`: of entries, where they are not multiplied on the matrix units. The strips of those lie where the matrix
  /// is, and never need more than a block has.
  std::int64_t shared_bytes(bool strips) const {
    const std::int64_t strip = padded() <= 256 ? 32 : padded() <= 512 ? 16 : 4;
    const std::int64_t others = 4 * (3 * padded() + kTile * kTile + kTile);
    return float_bytes() + others + (strips ? 4 * strip * (2 + padded()) : 0);
  }
};

/// Columns that CgRow holds.
std::int64_t cg_columns(std::int64_t width) {
  for (const std::int64_t columns : {64, 128, 256, 1'024}) {
    if (width <= columns) return columns;
  }
  return 2'048;
}

/// Rows that are summed in parts: as many as there can be, each a little longer than it must be.
struct LongRows {
  std::int64_t rows = 0, parts = 0, parts_at_once = 0, rows_at_once = 0, groups = 0;

  /// `room`: for so many parts at once.
  LongRows(std::int64_t of_rows, std::int64_t others, std::int64_t n_entries, std::int64_t room) {
    const std::int64_t longest = std::min(others, n_entries);
    if (longest <= kLongRow) return;
    room = std::max<std::int64_t>(room, 1);
    rows = std::min(of_rows, n_entries / (kLongRow + 1));
    parts = (n_entries + (kLongRow - 1) * rows) / kLongRow;
    parts_at_once = std::min(parts, std::max(room, ceil_of(longest, kLongRow)));
    rows_at_once = std::clamp<std::int64_t>(parts_at_once / 2, 1, rows);
    groups = std::min(rows, 2 * parts / room + 1);
  }
};

class Plan {
 public:
  Plan(const AlsSizes& sizes, LinearSolver solver, const DeviceShape& device)
      : sizes_(sizes),
        params_(sizes.params),
        solver_(solver),
        device_(device),
        system_{params_.factors + (params_.biases ? 1 : 0)},
        implicit_(params_.objective == AlsObjective::kImplicit) {}

  std::vector<DeviceBuffer> buffers() {
    for (const Side& side : {users(), items()}) {
      keep_side(side);
      keep_work(side);
    }
    if (implicit_) add("Gram matrix", 12 * system_.elements(), "kept");
    std::move(most_.begin(), most_.end(), std::back_inserter(buffers_));
    add_loss();
    std::erase_if(buffers_, [](const auto& buffer) { return buffer.n_bytes == 0; });
    return std::move(buffers_);
  }

 private:
  struct Side {
    std::string name;
    std::int64_t rows, others;
  };
  Side users() const { return {"users", sizes_.n_users, sizes_.n_items}; }
  Side items() const { return {"items", sizes_.n_items, sizes_.n_users}; }

  void keep_side(const Side& side) {
    const std::int64_t n_penalties = params_.frequency_scaling == 0 ? 1 : side.rows;
    add("interactions, by " + side.name, 8 * (side.rows + 1) + 8 * sizes_.n_entries, "kept");
    add("factors of the " + side.name, 4 * side.rows * system_.size, "kept");
    add("order of the " + side.name + ", penalties", 4 * side.rows + 8 * n_penalties, "kept");
    add(side.name + " that float32 cannot solve", 8 + 12 * side.rows, "kept");
  }

  /// WorkMemory of the epoch: constants, and what is there at a time, which is taken one behind the other.
  void keep_work(const Side& side) {
    if (implicit_) {
      at_a_time({{"parts of the Gram matrix", gram_parts(side)}});
      add("cuts of the Gram matrix", gram_cuts(side), "kept");
    }
    at_a_time({{"systems in float64", systems(side.rows, 8, device_.multiprocessors)}});
    if (solver_ == LinearSolver::kCholesky) {
      keep_systems(side);
    } else {
      const Work work = coordinates(side, side.rows);
      at_a_time(joined(work, turned_back(side.rows)));
      solver_ == LinearSolver::kCg ? keep_steps(side, work) : keep_blocks(side, work);
    }
  }

  using Work = std::vector<std::pair<std::string, std::int64_t>>;
  static Work joined(Work work, const Work& more) {
    work.insert(work.end(), more.begin(), more.end());
    return work;
  }
  /// Of half-steps, and of their parts that follow each other, the largest.
  void at_a_time(const Work& work) {
    std::vector<DeviceBuffer> buffers;
    for (const auto& [name, bytes] : work) buffers.push_back({name, taken(bytes), "kept"});
    if (peak_bytes(buffers) > peak_bytes(most_)) most_ = std::move(buffers);
  }

  void keep_systems(const Side& side) {
    const std::int64_t at_work = 4 * device_.multiprocessors, n_short = short_rows(side);
    const bool in_shared = system_.shared_bytes(system_.size > kMostMultiplied) <= device_.shared_bytes;
    if (!in_shared) at_a_time({{"systems", systems(side.rows, 4, at_work)}});
    const LongRows of_long(side.rows, side.others, sizes_.n_entries, room_for_parts());
    const bool long_in_shared = system_.shared_bytes(true) <= device_.shared_bytes;
    at_a_time({{"parts of long rows", of_long.parts_at_once * system_.float_bytes()},
               {"systems of long rows", long_in_shared ? 0 : systems(of_long.rows_at_once, 4, at_work)}});
    add("cuts of long rows", kPartBytes * of_long.parts + 8 * (of_long.rows + of_long.groups), "kept");
    if (n_short == 0) return;
    const Work of_short = joined(coordinates(side, n_short),
                                 {{"how many rows have no system of their entries", 8}, {"which", 4 * n_short}});
    at_a_time(joined(of_short, turned_back(n_short)));
    if (!in_shared) at_a_time(joined(of_short, {{"systems", systems(n_short, 4, device_.multiprocessors)}}));
  }

  std::int64_t room_for_parts() const { return std::max<std::int64_t>(1, kPartsBytes / system_.float_bytes()); }
  std::int64_t gram_cuts(const Side& side) const { return kPartBytes * ceil_of(side.rows, kGramRows); }
  std::int64_t gram_parts(const Side& side) const {
    return std::min(room_for_parts(), ceil_of(side.rows, kGramRows)) * system_.float_bytes();
  }
  /// Of a block each, at most.
  std::int64_t systems(std::int64_t rows, std::int64_t real_bytes, std::int64_t blocks) const {
    const std::int64_t bytes = real_bytes * system_.elements();
    return std::min({rows, std::max<std::int64_t>(1, kScratchBytes / bytes), blocks}) * bytes;
  }

  /// What a half-step in the coordinates of the Gram matrix has beside it.
  Work coordinates(const Side& side, std::int64_t n) const {
    const std::int64_t width = system_.padded();
    return {{"eigenvectors", implicit_ ? kSpectrumBytes + 8 * system_.size * width + 4 * width : 0},
            {"features, turned", 4 * side.others * width},
            {"rows, turned", 4 * n * width}};
  }
  Work turned_back(std::int64_t n) const {
    return {{"rows, turned back", implicit_ ? 4 * std::min(n, kStoredRows) * system_.padded() : 0}};
  }

  /// How many may have systems of their entries: of all the entries, the others take the most that they can.
  std::int64_t short_rows(const Side& side) const {
    if (params_.dual_entries == 0) return 0;
    const std::int64_t longest =
        params_.dual_entries < 0 ? params_.factors : std::min(params_.dual_entries, system_.size);
    if (side.others <= longest) return side.rows;
    const std::int64_t left = side.rows * side.others - sizes_.n_entries;
    return std::clamp<std::int64_t>(left / (side.others - longest), 0, side.rows);
  }

  void keep_steps(const Side& side, Work work) {
    const std::int64_t width = system_.padded();
    if (!implicit_) {
      work.push_back({"mean squares", 4 * width});
      at_a_time(joined(work, {{"mean squares, being added up", 8 * ceil_of(side.others, kSquaredRows) * width}}));
    }
    const std::int64_t columns = cg_columns(width), sums = 4 * (columns + kTile);
    const LongRows of_long(side.rows, side.others, sizes_.n_entries, kPartsBytes / sums);
    const std::int64_t of_columns = 4 * columns * of_long.rows_at_once;
    at_a_time(joined(work, {{"parts of long rows", sums * of_long.parts_at_once},
                            {"directions of long rows", of_columns},
                            {"residuals of long rows", of_columns},
                            {"energies of long rows", 12 * of_long.rows_at_once}}));
    keep_cuts(of_long);
  }

  void keep_blocks(const Side& side, const Work& work) {
    const System block{std::min(kBlockUnknowns, system_.size)};
    const LongRows of_long(side.rows, side.others, sizes_.n_entries, kPartsBytes / block.float_bytes());
    at_a_time(joined(work, {{"predictions", 4 * sizes_.n_entries},
                            {"parts of long rows", block.float_bytes() * of_long.parts_at_once},
                            {"moves of long rows", 4 * kBlockUnknowns * of_long.rows_at_once}}));
    keep_cuts(of_long);
  }

  /// As of the exact solver, with the row of every part.
  void keep_cuts(const LongRows& of) {
    add("cuts of long rows", (kPartBytes + 4) * of.parts + 8 * (of.rows + of.groups), "kept");
  }

  void add_loss() {
    const std::int64_t most = std::max({sizes_.n_entries, sizes_.n_users, sizes_.n_items});
    add("sums of the loss", 8 * ceil_of(most, kRun), "loss of the entries");
    if (!implicit_) return;
    // One after the other, in the same memory.
    const std::int64_t of_users = taken(gram_parts(users())), of_items = taken(gram_parts(items()));
    add("Gram matrix and its parts",
        12 * system_.elements() +
            std::max(gram_cuts(users()) + of_users, gram_cuts(items()) + std::max(of_users, of_items)),
        "loss of all pairs");
  }

  void add(const std::string& name, std::int64_t n_bytes, const std::string& phase) {
    buffers_.push_back({name, n_bytes, phase});
  }

  const AlsSizes& sizes_;
  const AlsParams& params_;
  const LinearSolver solver_;
  const DeviceShape& device_;
  const System system_;
  const bool implicit_;
  std::vector<DeviceBuffer> buffers_, most_;
};

}  // namespace

std::vector<DeviceBuffer> plan_als(const AlsSizes& sizes, const DeviceShape& device) {
  if (sizes.params.solver != LinearSolver::kAuto) return Plan(sizes, sizes.params.solver, device).buffers();
  std::vector<DeviceBuffer> most;
  for (const auto solver : {LinearSolver::kCholesky, LinearSolver::kCg, LinearSolver::kBlock}) {
    std::vector<DeviceBuffer> buffers = Plan(sizes, solver, device).buffers();
    if (peak_bytes(buffers) > peak_bytes(most)) most = std::move(buffers);
  }
  return most;
}

}  // namespace recfuse
