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

/// Of a side that is cut in about `n` pieces: no row is longer than what others there are.
AlsPiece piece_of(std::int64_t rows, std::int64_t others, std::int64_t n_entries, std::int64_t n) {
  const std::int64_t most_rows = std::max<std::int64_t>(1, ceil_of(rows, n)),
                     entries = std::max(std::min(others, n_entries), ceil_of(n_entries, n));
  // One ends where it has its rows, or where the next row would be too much: then it and the next one are.
  return {most_rows, entries, rows / most_rows + 2 * n_entries / std::max<std::int64_t>(entries, 1) + 1};
}

class Plan {
 public:
  /// `n_pieces`: of each side, about; 0: resident.
  Plan(const AlsSizes& sizes, LinearSolver solver, const DeviceShape& device, std::int64_t n_pieces = 0)
      : sizes_(sizes),
        n_pieces_(n_pieces),
        params_(sizes.params),
        solver_(solver),
        device_(device),
        system_{params_.factors + (params_.biases ? 1 : 0)},
        implicit_(params_.objective == AlsObjective::kImplicit) {}

  AlsPlan plan() {
    const AlsPiece of_users = users().piece, of_items = items().piece;
    return {n_pieces_ > 0, of_users, of_items, buffers()};
  }

 private:
  std::vector<DeviceBuffer> buffers() {
    for (const Side& side : {users(), items()}) {
      keep_side(side);
      keep_work(side);
    }
    if (n_pieces_ > 0) {
      const AlsPiece of_users = users().piece, of_items = items().piece;
      add("two pieces of the interactions",
          2 * std::max(packed_bytes(of_users.rows, of_users.entries), packed_bytes(of_items.rows, of_items.entries)),
          "kept");
    }
    if (implicit_) add("Gram matrix", 12 * system_.elements(), "kept");
    std::move(most_.begin(), most_.end(), std::back_inserter(buffers_));
    add_loss();
    std::erase_if(buffers_, [](const auto& buffer) { return buffer.n_bytes == 0; });
    return std::move(buffers_);
  }

  struct Side {
    std::string name;
    std::int64_t rows, others;
    AlsPiece piece;  // that is on the device; all of it where nothing is streamed
  };
  Side users() const { return side("users", sizes_.n_users, sizes_.n_items); }
  Side items() const { return side("items", sizes_.n_items, sizes_.n_users); }
  Side side(const char* name, std::int64_t rows, std::int64_t others) const {
    if (n_pieces_ == 0) return {name, rows, others, {rows, sizes_.n_entries, 1}};
    return {name, rows, others, piece_of(rows, others, sizes_.n_entries, n_pieces_)};
  }

  void keep_side(const Side& side) {
    const std::int64_t n_penalties = params_.frequency_scaling == 0 ? 1 : side.rows;
    if (n_pieces_ == 0) {
      add("interactions, by " + side.name, packed_bytes(side.rows, sizes_.n_entries), "kept");
    }
    add("factors of the " + side.name, 4 * side.rows * system_.size, "kept");
    add("penalties of the " + side.name, 8 * n_penalties, "kept");
    add(side.name + " that float32 cannot solve", 8 * side.piece.most_pieces + 12 * side.rows, "kept");
  }

  /// WorkMemory of the epoch: constants, and what is there at a time, which is taken one behind the other.
  void keep_work(const Side& side) {
    if (implicit_) {
      at_a_time({{"parts of the Gram matrix", gram_parts(side)}});
      add("cuts of the Gram matrix", gram_cuts(side), "kept");
    }
    const std::int64_t n_turned =
        solver_ == LinearSolver::kCholesky ? std::min(side.piece.rows, short_rows(side)) : side.piece.rows;
    const Work shared = n_turned > 0 ? coordinates(side) : Work();
    // Pieces keep them from the first to the last.
    const Work beside = n_pieces_ > 0 ? shared : Work();
    at_a_time(joined(beside, {{"systems in float64", systems(side.piece.rows, 8, device_.multiprocessors)}}));
    if (solver_ == LinearSolver::kCholesky) return keep_systems(side, n_turned, shared, beside);
    solver_ == LinearSolver::kCg ? keep_steps(side, shared) : keep_blocks(side, shared);
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

  void keep_systems(const Side& side, std::int64_t n_short, const Work& shared, const Work& beside) {
    const std::int64_t at_work = 4 * device_.multiprocessors;
    const bool in_shared = system_.shared_bytes(system_.size > kMostMultiplied) <= device_.shared_bytes;
    if (!in_shared) at_a_time(joined(beside, {{"systems", systems(side.piece.rows, 4, at_work)}}));
    const LongRows of_long = long_rows(side, room_for_parts());
    const bool long_in_shared = system_.shared_bytes(true) <= device_.shared_bytes;
    at_a_time(
        joined(beside, {{"parts of long rows", of_long.parts_at_once * system_.float_bytes()},
                        {"systems of long rows", long_in_shared ? 0 : systems(of_long.rows_at_once, 4, at_work)}}));
    keep_cuts(side, room_for_parts(), kPartBytes);
    if (n_short == 0) return;
    const Work of_short = joined(joined(shared, rows_turned(n_short)),
                                 {{"how many rows have no system of their entries", 8}, {"which", 4 * n_short}});
    at_a_time(joined(of_short, turned_back(n_short)));
    if (!in_shared) at_a_time(joined(of_short, {{"systems", systems(n_short, 4, device_.multiprocessors)}}));
  }

  /// That are on the device at a time.
  LongRows long_rows(const Side& side, std::int64_t room) const {
    return {side.piece.rows, side.others, side.piece.entries, room};
  }
  /// Of all long rows: parts, and where those of a row begin.
  void keep_cuts(const Side& side, std::int64_t room, std::int64_t of_part) {
    const LongRows of_all(side.rows, side.others, sizes_.n_entries, room);
    const std::int64_t groups = std::min(of_all.rows, of_all.groups + side.piece.most_pieces - 1);
    add("cuts of long rows", of_part * of_all.parts + 8 * (of_all.rows + groups), "kept");
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

  /// What a half-step in the coordinates of the Gram matrix has, or the mean squares in their place,
  Work coordinates(const Side& side) {
    const std::int64_t width = system_.padded();
    const Work work = {{"eigenvectors", implicit_ ? kSpectrumBytes + 8 * system_.size * width + 4 * width : 0},
                       {"features, turned", 4 * side.others * width}};
    if (implicit_ || solver_ != LinearSolver::kCg) return work;
    const Work scaled = joined(work, {{"mean squares", 4 * width}});
    at_a_time(joined(scaled, {{"mean squares, being added up", 8 * ceil_of(side.others, kSquaredRows) * width}}));
    return scaled;
  }
  /// and beside that, of rows that it moves.
  Work rows_turned(std::int64_t n) const { return {{"rows, turned", 4 * n * system_.padded()}}; }
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

  void keep_steps(const Side& side, const Work& shared) {
    const Work work = joined(shared, rows_turned(side.piece.rows));
    at_a_time(joined(work, turned_back(side.piece.rows)));
    const std::int64_t columns = cg_columns(system_.padded()), sums = 4 * (columns + kTile);
    const LongRows of_long = long_rows(side, kPartsBytes / sums);
    const std::int64_t of_columns = 4 * columns * of_long.rows_at_once;
    at_a_time(joined(work, {{"parts of long rows", sums * of_long.parts_at_once},
                            {"directions of long rows", of_columns},
                            {"residuals of long rows", of_columns},
                            {"energies of long rows", 12 * of_long.rows_at_once}}));
    keep_cuts(side, kPartsBytes / sums, kPartBytes + 4);  // with the row of every part
  }

  void keep_blocks(const Side& side, const Work& shared) {
    const Work work = joined(shared, rows_turned(side.piece.rows));
    at_a_time(joined(work, turned_back(side.piece.rows)));
    const System block{std::min(kBlockUnknowns, system_.size)};
    const LongRows of_long = long_rows(side, kPartsBytes / block.float_bytes());
    at_a_time(joined(work, {{"predictions", 4 * side.piece.entries},
                            {"parts of long rows", block.float_bytes() * of_long.parts_at_once},
                            {"moves of long rows", 4 * kBlockUnknowns * of_long.rows_at_once}}));
    keep_cuts(side, kPartsBytes / block.float_bytes(), kPartBytes + 4);
  }

  void add_loss() {
    const std::int64_t most = std::max({users().piece.entries, sizes_.n_users, sizes_.n_items});
    // Of pieces, the runs at their ends are not summed where they are.
    const std::int64_t terms = n_pieces_ == 0 ? 0 : std::min(kRun, users().piece.entries);
    add("sums of the loss", 8 * std::max(ceil_of(most, kRun), terms), "loss of the entries");
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
  const std::int64_t n_pieces_;
  const AlsParams& params_;
  const LinearSolver solver_;
  const DeviceShape& device_;
  const System system_;
  const bool implicit_;
  std::vector<DeviceBuffer> buffers_, most_;
};

/// The solver that takes the most, where any may be taken.
LinearSolver planned_solver(const AlsSizes& sizes, const DeviceShape& device) {
  LinearSolver most = sizes.params.solver;
  if (most != LinearSolver::kAuto) return most;
  std::int64_t most_bytes = -1;
  for (const auto solver : {LinearSolver::kCholesky, LinearSolver::kCg, LinearSolver::kBlock}) {
    const std::int64_t bytes = peak_bytes(Plan(sizes, solver, device).plan().buffers);
    if (bytes > most_bytes) most = solver;
    most_bytes = std::max(most_bytes, bytes);
  }
  return most;
}

}  // namespace

AlsPlan plan_als(const AlsSizes& sizes, const DeviceShape& device, const AlsRoom& room) {
  const LinearSolver solver = planned_solver(sizes, device);
  const auto cut_in = [&](std::int64_t n) { return Plan(sizes, solver, device, n).plan(); };
  const auto fits = [&](const AlsPlan& plan) {
    return peak_bytes(plan.buffers) <= room.device_bytes - room.device_bytes / 64;
  };
  AlsPlan plan = cut_in(0);
  if (sizes.n_entries == 0 || fits(plan)) return plan;
  const std::int64_t most = std::max<std::int64_t>({2, sizes.n_users, sizes.n_items});
  // Twice as many until they fit, then as few as do.
  std::int64_t too_few = std::clamp<std::int64_t>(ceil_of(sizes.n_entries, room.piece_entries), 2, most) - 1;
  std::int64_t n = too_few + 1;
  for (; !fits(plan = cut_in(n)) && n < most; n = std::min(2 * n, most)) too_few = n;
  while (n - too_few > 1) {
    const std::int64_t middle = too_few + (n - too_few) / 2;
    AlsPlan fewer = cut_in(middle);
    if (!fits(fewer)) {
      too_few = middle;
      continue;
    }
    n = middle;
    plan = std::move(fewer);
  }
  return plan;
}

}  // namespace recfuse
