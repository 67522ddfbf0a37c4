#include "recfuse/als_memory.hpp"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

namespace recfuse {
namespace {

// Of cuda/src: als_system, als_side, als_rows, als_loss, als_coordinates, als_block, als_cg_step.
constexpr std::int64_t kTile = 4, kLongRow = 4'096, kGramRows = 256, kPartsBytes = 256 << 20, kScratchBytes = 1 << 30;
constexpr std::int64_t kPartBytes = 16, kRun = 4'096, kStoredRows = 1 << 16, kSquaredRows = 1'024;
constexpr std::int64_t kBlockUnknowns = 64, kMostMultiplied = 256;

std::int64_t ceil_of(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

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
      add_moves(side);
    }
    if (implicit_) add("Gram matrix", 8 * system_.elements(), "kept");
    add("systems, and parts of sums", place_, "kept");
    add("systems of long rows", place_of_long_, "kept");
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

  /// WorkMemory of the epoch: of half-steps, which follow each other, the largest.
  void keep_work(const Side& side) {
    const std::int64_t cores = device_.multiprocessors;
    if (implicit_) {
      place_ = std::max(place_, gram_parts(side));
      add("cuts of the Gram matrix", gram_cuts(side), "kept");
    }
    place_ = std::max(place_, systems(side.rows, 8, cores));
    if (solver_ != LinearSolver::kCholesky) return;
    const bool strips = system_.size > kMostMultiplied;
    if (system_.shared_bytes(strips) > device_.shared_bytes) {
      place_ = std::max(place_, systems(side.rows, 4, 4 * cores));
    }
    const LongRows of_long(side.rows, side.others, sizes_.n_entries, room_for_parts());
    place_ = std::max(place_, of_long.parts_at_once * system_.float_bytes());
    if (system_.shared_bytes(true) > device_.shared_bytes) {
      place_of_long_ = std::max(place_of_long_, systems(of_long.rows_at_once, 4, 4 * cores));
    }
    add("cuts of long rows", kPartBytes * of_long.parts + 8 * (of_long.rows + of_long.groups), "kept");
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
  void add_moves(const Side& side) {
    const std::int64_t n = solver_ == LinearSolver::kCholesky ? short_rows(side) : side.rows;
    if (n == 0) return;
    const std::int64_t width = system_.padded();
    const std::string stored = side.name + ", stored";
    for (const auto& phase : {side.name, stored}) {
      add("eigenvectors", implicit_ ? 8 * system_.size * width + 4 * width : 0, phase);
      add("features, turned", 4 * side.others * width, phase);
      add("rows, turned", 4 * n * width, phase);
    }
    if (solver_ == LinearSolver::kCholesky) add("rows without a system of their entries", 8 * n + 4, stored);
    if (implicit_) add("rows, turned back", 4 * std::min(n, kStoredRows) * width, stored);
    if (solver_ == LinearSolver::kCg) add_steps(side);
    if (solver_ == LinearSolver::kBlock) add_blocks(side);
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

  void add_steps(const Side& side) {
    const std::int64_t width = system_.padded();
    if (!implicit_) {
      const std::string scaled = side.name + ", scaled";
      add("mean squares", 4 * width, side.name);
      add("features and rows, turned", 4 * (side.others + side.rows) * width, scaled);
      add("mean squares, being added up", 4 * width + 8 * ceil_of(side.others, kSquaredRows) * width, scaled);
    }
    const std::int64_t columns = cg_columns(width), sums = 4 * (columns + kTile);
    const LongRows of_long(side.rows, side.others, sizes_.n_entries, kPartsBytes / sums);
    add_parts(side, of_long, sums, 8 * columns + 12);
  }

  void add_blocks(const Side& side) {
    const System block{std::min(kBlockUnknowns, system_.size)};
    const LongRows of_long(side.rows, side.others, sizes_.n_entries, kPartsBytes / block.float_bytes());
    add("predictions", 4 * sizes_.n_entries, side.name);
    add_parts(side, of_long, block.float_bytes(), 4 * kBlockUnknowns);
  }

  void add_parts(const Side& side, const LongRows& of, std::int64_t sums, std::int64_t of_row) {
    if (of.rows == 0) return;
    add("parts of long rows", (kPartBytes + 4 + sums) * of.parts_at_once, side.name);
    add("long rows", 8 + (8 + of_row) * of.rows_at_once, side.name);
  }

  void add_loss() {
    const std::int64_t most = std::max({sizes_.n_entries, sizes_.n_users, sizes_.n_items});
    add("sums of the loss", 8 * ceil_of(most, kRun), "loss of the entries");
    if (!implicit_) return;
    add("Gram matrix and its parts",
        8 * system_.elements() + std::max(gram_parts(users()), gram_parts(items())) + gram_cuts(users()) +
            gram_cuts(items()),
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
  std::int64_t place_ = 0, place_of_long_ = 0;
  std::vector<DeviceBuffer> buffers_;
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
