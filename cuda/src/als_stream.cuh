// Interactions that do not fit a device, a piece at a time: while the rows of one are solved, the next is on its way. A
// row's system is the same wherever its entries come from, so the factors have the bytes of a fit with all of them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "als_entry_sums.cuh"
#include "als_half_step.cuh"
#include "als_memory.cuh"
#include "als_ranges.cuh"
#include "als_side.cuh"
#include "recfuse/als_memory.hpp"

namespace recfuse::cuda {

/// The interactions of users and items in pinned memory, cut in pieces of whole rows, and two places for them on the
/// device. No row is cut: its entries take 8 bytes for each of the others, whose factors take more and stay there.
template <class Device>
class AlsStream {
 public:
  using Side = AlsSideOnDevice<Device>;

  /// Of a side: rows that are on the device together, in turns with others.
  struct Piece {
    Piece(Device& device, Side rows, std::int64_t n_bytes)
        : side(std::move(rows)), bytes(static_cast<std::size_t>(n_bytes)), packed(device, bytes) {}

    Side side;
    std::size_t bytes;
    typename Device::template HostArray<char> packed;
  };
  struct Pieces {
    std::deque<Piece> all;  // whose elements stay where they are
    std::int64_t most = 0;  // by the plan
  };

  /// Failures of every piece.
  struct OfPieces {
    OfPieces(Device& device, const Side& side, const Pieces& pieces) : all(device, side.rows, pieces.most) {
      std::int64_t i = 0;
      for (const auto& piece : pieces.all) {
        of.emplace_back(device, all, i++, piece.side.first - side.first, piece.side.rows);
      }
    }
    Failures<Device> all;
    std::vector<Failures<Device>> of;
  };

  AlsStream(Device& device, const AlsPlan& plan, const CsrView& user_items, Side& users, const CsrView& item_users,
            Side& items, const AlsLimits& limits)
      : device_(device), feed_(device) {
    const auto of_users = cut_rows(user_items, plan.users.rows, plan.users.entries),
               of_items = cut_rows(item_users, plan.items.rows, plan.items.entries);
    std::int64_t bytes =
        std::max(packed_bytes(plan.users.rows, plan.users.entries), packed_bytes(plan.items.rows, plan.items.entries));
    for (const RowRange& range : of_users) bytes = std::max(bytes, bytes_of(user_items, range));
    for (const RowRange& range : of_items) bytes = std::max(bytes, bytes_of(item_users, range));
    for (Bytes& place : places_) place = {device, static_cast<std::size_t>(bytes)};
    make(users_, user_items, of_users, users, limits);
    make(items_, item_users, of_items, items, limits);
    users_.most = std::max(plan.users.most_pieces, static_cast<std::int64_t>(users_.all.size()));
    items_.most = std::max(plan.items.most_pieces, static_cast<std::int64_t>(items_.all.size()));
  }

  Pieces& users() { return users_; }
  Pieces& items() { return items_; }

  /// Sends the first pieces, when what the device has been sent so far is done.
  void start(Pieces& pieces) {
    for (int place = 0; place < 2; ++place) feed_.free(place);
    for (std::size_t i = 0; i < std::min<std::size_t>(2, pieces.all.size()); ++i) send(pieces, i);
  }
  /// visit(piece), after start(); what it launches reads the piece.
  template <class Visit>
  void each(Pieces& pieces, const Visit& visit) {
    for (std::size_t i = 0; i < pieces.all.size(); ++i) {
      const int place = static_cast<int>(i % 2);
      feed_.await(place);
      visit(pieces.all[i].side);
      feed_.free(place);
      if (i + 2 < pieces.all.size()) send(pieces, i + 2);
    }
  }

  /// AlsHalfStep::launch() and finish() of all rows; launch() after start().
  void launch(AlsHalfStep<Device>& half, const Side& others, Pieces& pieces, const Gram<Device>& gram,
              OfPieces& failures) {
    const bool turned = std::any_of(pieces.all.begin(), pieces.all.end(),
                                    [&](const Piece& piece) { return half.is_turned(piece.side); });
    half.launch_pieces(others, gram, turned, [&] {
      std::size_t i = 0;
      each(pieces, [&](Side& piece) { half.launch(others, piece, gram, failures.of[i++]); });
    });
  }
  std::int64_t finish(AlsHalfStep<Device>& half, const Pieces& pieces, const OfPieces& failures) const {
    std::int64_t in_float64 = 0;
    for (std::size_t i = 0; i < pieces.all.size(); ++i) in_float64 += half.finish(pieces.all[i].side, failures.of[i]);
    return in_float64;
  }

  /// Of all pieces of users, behind those that `ends` has: where their entries end.
  void add_ends(std::vector<std::int64_t>& ends) const {
    for (const auto& piece : users_.all) ends.push_back((ends.empty() ? 0 : ends.back()) + piece.side.nnz());
  }
  /// What the users' entries, of all those from `first` on, add to the loss.
  void sum_entries(const AlsHalfStep<Device>& half, const Side& items, std::int64_t first, SharedRuns& runs) {
    start(users_);
    each(users_, [&](const Side& piece) {
      cuda::sum_entries(device_, half, piece, items, first, first + piece.nnz(), runs);
      first += piece.nnz();
    });
  }

 private:
  using Bytes = typename Device::template Array<char>;

  static std::int64_t bytes_of(const CsrView& csr, const RowRange& range) {
    return packed_bytes(range.size(), csr.indptr[range.last] - csr.indptr[range.first]);
  }

  void make(Pieces& pieces, const CsrView& csr, const std::vector<RowRange>& ranges, Side& all,
            const AlsLimits& limits) {
    for (const RowRange& range : ranges) {
      const CsrView rows = rows_of(csr, range);
      char* const place = places_[pieces.all.size() % 2].data();
      Piece& piece =
          pieces.all.emplace_back(device_, Side(device_, all, range, rows, limits, place), bytes_of(csr, range));
      piece.side.pack(rows, piece.packed.data());
    }
  }

  void send(Pieces& pieces, std::size_t i) {
    Piece& piece = pieces.all[i];
    feed_.send(static_cast<int>(i % 2), places_[i % 2].data(), piece.packed.data(), piece.bytes);
  }

  Device& device_;
  Pieces users_, items_;
  std::array<Bytes, 2> places_;
  typename Device::Feed feed_;  // ends before the places
};

/// As AlsEpoch.
template <class Device>
class AlsStreamedEpoch {
 public:
  using Side = AlsSideOnDevice<Device>;
  using Stream = AlsStream<Device>;

  AlsStreamedEpoch(Device& device, const AlsParams& params, double mean, const AlsLimits& limits, Side& users,
                   Side& items, Stream& stream)
      : stream_(stream),
        users_(users),
        items_(items),
        memory_(device),
        half_(device, params, mean, limits, memory_),
        of_users_(device, users, stream.users()),
        of_items_(device, items, stream.items()) {}
  AlsStreamedEpoch(const AlsStreamedEpoch&) = delete;
  AlsStreamedEpoch& operator=(const AlsStreamedEpoch&) = delete;

  std::int64_t run() {
    if (!prepared_) {
      memory_.prepare([&] {
        launch_users();
        launch_items();
      });
      prepared_ = true;
    }
    memory_.restart();
    stream_.start(stream_.users());
    launch_users();
    stream_.start(stream_.items());  // on their way while the last users are solved
    const std::int64_t of_users = stream_.finish(half_, stream_.users(), of_users_);
    launch_items();
    return of_users + stream_.finish(half_, stream_.items(), of_items_);
  }

 private:
  void launch_users() {
    half_.gram(items_, gram_);
    stream_.launch(half_, items_, stream_.users(), gram_, of_users_);
  }
  void launch_items() {
    half_.gram(users_, gram_);
    stream_.launch(half_, users_, stream_.items(), gram_, of_items_);
  }

  Stream& stream_;
  Side &users_, &items_;
  WorkMemory<Device> memory_;
  AlsHalfStep<Device> half_;
  typename Stream::OfPieces of_users_, of_items_;
  Gram<Device> gram_;
  bool prepared_ = false;
};

}  // namespace recfuse::cuda
