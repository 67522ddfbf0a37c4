// How vectors of float16 lie in memory: in tiles of rows, and within a tile in slabs of 64 columns, each as shared
// memory wants it. A slab is copied as it is; the 16-byte chunks of a row are permuted, so that the eight rows of a
// matrix that ldmatrix reads lie in different banks.
#pragma once

#include <cstdint>

#include "half.cuh"

namespace recfuse::cuda {

constexpr int kSlab = 64;     // columns
constexpr int kColumns = 16;  // that the matrix units multiply at a time; a modality has whole groups of them
constexpr int kRowBytes = 2 * kSlab;
constexpr int kChunkBytes = 16;
constexpr int kTileItems = 128;

RECFUSE_BOTH int slabs_for(std::int64_t columns) { return static_cast<int>((columns + kSlab - 1) / kSlab); }

/// Byte of chunk `chunk` (of 8) of a row within its slab.
RECFUSE_DEVICE int chunk_offset(int row, int chunk) { return row * kRowBytes + ((chunk ^ (row & 7)) * kChunkBytes); }

/// Index of an element: tile, row and column count from 0; `rows` is the height of a tile.
RECFUSE_DEVICE std::int64_t image_index(std::int64_t tile, int rows, int n_slabs, int row, std::int64_t column) {
  const std::int64_t slab = tile * n_slabs + column / kSlab;
  const int within = static_cast<int>(column % kSlab);
  return slab * rows * kSlab + chunk_offset(row, within / 8) / 2 + within % 8;
}

}  // namespace recfuse::cuda
