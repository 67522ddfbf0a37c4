// Products by warpgroups (wgmma), compute capability 9.0: four warps multiply 64 queries by 128 items, 16 columns at a
// time, and read both straight from shared memory.
#pragma once

#include <cstdint>
#include <cstring>

#include "half.cuh"
#include "tile_image.cuh"

namespace recfuse::cuda {

constexpr int kGroupWarps = 4;
constexpr int kGroupThreads = 128;
constexpr int kProductRows = 64;
constexpr int kProductColumns = 128;
constexpr int kProductDepth = 16;
constexpr int kProductBytes = 2 * kProductDepth;  // of a row
constexpr int kAtomRows = 8;                      // that are swizzled together
constexpr int kAtomBytes = kAtomRows * kRowBytes;

/// Sums of a thread for a product: `value[4 j + 2 h + c]` of lane L of warp w is the one of row 16 w + L / 4 + 8 h and
/// column 8 j + 2 (L % 4) + c.
struct ProductSums {
  float value[kProductRows * kProductColumns / kGroupThreads];
};

RECFUSE_DEVICE int product_row(int warp, int lane, int half) { return 16 * warp + lane / 4 + 8 * half; }
RECFUSE_DEVICE int product_column(int lane, int j, int c) { return 8 * j + 2 * (lane % 4) + c; }

/// What tells the matrix unit where an operand lies: rows of 128 bytes whose 16-byte chunks are permuted as
/// chunk_offset() does it (the 128-byte swizzle, K-major), from the shared memory address of its first chunk on. The
/// unit permutes by bits of the address, so slabs begin at multiples of kAtomBytes.
///   bits  0-13  address / 16           bits 32-45  distance of eight rows to the next / 16
///   bits 16-29  not used here, 1       bits 62-63  1: swizzle of 128 bytes
RECFUSE_BOTH std::uint64_t operand_at(std::uint32_t address) {
  return (std::uint64_t{1} << 62) | (std::uint64_t{kAtomBytes / 16} << 32) | (std::uint64_t{1} << 16) |
         ((address & 0x3FFFFU) >> 4);
}

#if defined(__CUDACC__)

/// d = a b^T, or d += a b^T where `add`. Asynchronous: d is not there, and a and b not free, before they are waited
/// for.
RECFUSE_DEVICE void multiply_operands(float (&d)[64], std::uint64_t a, std::uint64_t b, bool add) {
#if RECFUSE_HOPPER
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, "
      "%8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, "
      "%40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, "
      "%56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, add, 1, 1, 0, 0;\n"
      "}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]),
        "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]),
        "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]),
        "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
#endif
}

#else

/// Where the matrix unit finds chunk `chunk` (of 2) of a row.
inline std::uint32_t chunk_address(std::uint64_t operand, int row, int chunk) {
  const auto start = static_cast<std::uint32_t>(operand & 0x3FFFU) << 4;
  const auto stride = static_cast<std::uint32_t>(operand >> 32 & 0x3FFFU) << 4;
  const auto at = start + static_cast<std::uint32_t>(row / kAtomRows) * stride +
                  static_cast<std::uint32_t>(row % kAtomRows * kRowBytes + chunk * kChunkBytes);
  return at ^ ((at >> 7 & 7U) << 4);
}

/// The same as on a device, at once: `shared` is what addresses count from, `sums(thread)` a ProductSums.
template <class Sums>
void multiply_operands(Sums&& sums, const char* shared, std::uint64_t a, std::uint64_t b, bool add) {
  const auto read = [&](std::uint64_t operand, int row, int column) {
    half_bits h;
    std::memcpy(&h, shared + chunk_address(operand, row, column / 8) + 2 * (column % 8), sizeof h);
    return float_of(h);
  };
  float of_b[kProductDepth][kProductColumns];
  for (int row = 0; row < kProductColumns; ++row) {
    for (int k = 0; k < kProductDepth; ++k) of_b[k][row] = read(b, row, k);
  }
  float sum[kProductRows][kProductColumns] = {};
  for (int row = 0; row < kProductRows; ++row) {
    for (int k = 0; k < kProductDepth; ++k) {
      const float of_a = read(a, row, k);
      for (int column = 0; column < kProductColumns; ++column) sum[row][column] += of_a * of_b[k][column];
    }
  }
  for (int thread = 0; thread < kGroupThreads; ++thread) {
    const int warp = thread / 32, lane = thread % 32;
    ProductSums& of_thread = sums(thread);
    for (int i = 0; i < 64; ++i) {
      const float value = sum[product_row(warp, lane, i / 2 % 2)][product_column(lane, i / 4, i % 2)];
      of_thread.value[i] = add ? of_thread.value[i] + value : value;
    }
  }
}

#endif

}  // namespace recfuse::cuda
