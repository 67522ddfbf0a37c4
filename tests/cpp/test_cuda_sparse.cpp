// cosine_knn() and neighbour_topk() of a device, run by the emulator: every way to add up, in strips, with rows that
// blocks share and with candidates in either memory. All answer as the CPU does.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "check.hpp"
#include "emulator.hpp"
#include "neighbour_lists.cuh"
#include "recfuse/recfuse.hpp"
#include "similar_rows.cuh"
#include "sparse.hpp"

namespace {

namespace cuda = recfuse::cuda;
using cuda::Emulator;
using recfuse::CosineKnnArgs;
using recfuse::CsrView;
using recfuse::NeighbourTopkArgs;
using recfuse::Norm;

using recfuse::testing::Csr;
using recfuse::testing::Lists;

/// Rows of very different lengths: row i has a column with a chance that falls like 1 / i.
Csr power_law(std::int64_t rows, std::int64_t cols, const std::vector<float>& choices) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> uniform;
  return recfuse::testing::random_csr(rows, cols, choices, random, [&](std::int64_t row) {
    return uniform(random) <= 0.9 / (1 + static_cast<double>(row) / 40);
  });
}

Emulator device_with(std::size_t shared_bytes) {
  Emulator device;
  device.set_most_shared_bytes(shared_bytes);
  return device;
}

bool agree(const CosineKnnArgs& args, const cuda::SparseLimits& limits = {}, std::size_t shared_bytes = 227 << 10,
           std::int64_t gap = 0) {
  Emulator device = device_with(shared_bytes);
  Lists expected(args.matrix.rows, args.k, gap), got = expected;
  recfuse::cosine_knn(args, expected.out());
  cuda::SimilarRows<Emulator>(device, args, limits).run(got.out());
  return got == expected;
}

bool agree(const NeighbourTopkArgs& args, const cuda::SparseLimits& limits = {}) {
  Emulator device;
  Lists expected(args.queries.rows, args.k), got = expected;
  recfuse::neighbour_topk(args, expected.out());
  cuda::NeighbourLists<Emulator>(device, args, limits).run(got.out());
  return got == expected;
}

const std::vector<std::vector<float>> kValues{{1},
                                              {0.5F},
                                              {0.5F, 1, 4.5F},
                                              {40'000, 46'000},
                                              {0.1F, 0.7F, 3.3F},
                                              {-1, 0, 2},
                                              {1e-30F, 1e30F},
                                              {0.99999F, 1.00001F, 1.0003F}};

}  // namespace

TEST(every_way_to_add_up_answers_as_the_cpu) {
  for (const auto& choices : kValues) {
    const Csr csr = power_law(150, 60, choices);
    for (const Norm norm : {Norm::kFull, Norm::kCorated}) {
      for (const std::int64_t least : {1, 3}) {
        for (const std::int64_t k : {1, 20, 400}) {
          CHECK(agree({.matrix = csr.view(), .k = k, .norm = norm, .shrinkage = 1.5, .min_support = least}));
        }
      }
    }
  }
}

TEST(neither_strips_nor_shared_rows_nor_where_candidates_are_change_the_answer) {
  for (const auto& choices : kValues) {
    const Csr csr = power_law(150, 60, choices);
    for (const std::int64_t k : {3, 150}) {
      const CosineKnnArgs args{.matrix = csr.view(), .k = k};
      CHECK(agree(args, {.strip_ids = 1}));
      CHECK(agree(args, {.strip_ids = 17, .heavy_work = 0, .shares = 1'000}));
      CHECK(agree(args, {.strip_ids = 149, .shared_keys = 0, .keys_bytes = 100'000, .heavy_work = 0, .shares = 1'000}));
      CHECK(agree(args, {.shared_keys = 0, .keys_bytes = 0}));
      CHECK(agree(args, {}, 29 << 10));  // room for few sums beside 2,048 candidates
      CHECK(agree(args, {.screened_entries = 0}));
      CHECK(agree({.matrix = csr.view(), .k = k, .shrinkage = 1e41}));  // scores of few bits
    }
  }
}

TEST(tables_of_any_size_answer_as_the_cpu) {
  for (const auto& choices : kValues) {
    const Csr csr = power_law(150, 60, choices);
    for (const Norm norm : {Norm::kFull, Norm::kCorated}) {
      for (const std::int64_t places : {1, 4, 256, 1 << 20}) {  // for no row, for those of few additions, ..., for all
        for (const std::int64_t k : {3, 400}) {
          const CosineKnnArgs args{.matrix = csr.view(), .k = k, .norm = norm, .shrinkage = 1.5};
          CHECK(agree(args, {.table_ids = 0, .table_places = places, .ids_per_addition = 0}));
        }
      }
      const CosineKnnArgs args{.matrix = csr.view(), .k = 20, .norm = norm, .min_support = 2};
      CHECK(agree(args, {.table_ids = 0, .ids_per_addition = 1}));
      CHECK(agree(args, {.shared_keys = 0, .keys_bytes = 100'000, .table_ids = 0, .ids_per_addition = 0}));
      CHECK(agree(args, {.table_ids = 0, .ids_per_addition = 0}, 29 << 10));  // room for few of them
      CHECK(agree({.matrix = csr.view(), .k = 20, .norm = norm},
                  {.screened_entries = 0, .table_ids = 0, .ids_per_addition = 0}));
    }
  }
}

TEST(ids_that_all_want_one_place_get_their_own) {
  constexpr int kPlaces = 64;
  std::vector<std::int32_t> ids;
  for (std::uint32_t id = 0; ids.size() < kPlaces; ++id) {
    if (id * 0x9E3779B1U >> 26 == kPlaces - 1) ids.push_back(static_cast<std::int32_t>(id));  // the last one
  }
  std::vector<char> memory(kPlaces * sizeof(int));
  cuda::HostBlock block(0, 0, 32, nullptr);
  cuda::TablePlaces table(memory.data(), kPlaces);
  for (int place = 0; place < table.size(); ++place) table.clear(place);
  std::set<int> places;
  for (const int id : ids) places.insert(table.of(block, id));
  CHECK(places.size() == kPlaces);
  for (const int id : ids) CHECK(table.id_at(table.of(block, id)) == id);

  // Rows of such ids, with empty ones between them, that all share a column.
  Csr csr;
  csr.cols = 2;
  for (std::int32_t row = 0; row <= ids.back(); ++row) {
    if (std::binary_search(ids.begin(), ids.end(), row)) csr.add(0, 1 + static_cast<float>(row % 7));
    if (row % 1'000 == 0) csr.add(1, 2);
    csr.end_row();
  }
  const cuda::SparseLimits full{.table_ids = 0, .table_places = 128, .ids_per_addition = 0};  // room for 96
  CHECK(agree({.matrix = csr.view(), .k = 30}, full));
  for (float& value : csr.values) value += 0.3F;
  CHECK(agree({.matrix = csr.view(), .k = 30}, full));
}

TEST(rows_of_a_long_tail_have_tables_and_the_others_strips) {
  CHECK(recfuse::has_table(12'288, 1 << 20, 16'384) && !recfuse::has_table(12'289, 1 << 20, 16'384));
  CHECK(recfuse::has_table(8'192, 65'536, 16'384) && !recfuse::has_table(8'193, 65'536, 16'384));
  for (const auto& [n_rows, n_popular, table_ids] :
       {std::tuple{66'000, 400, recfuse::kLeastTableIds}, {2'000, 300, 0}}) {
    // Few additions to many ids; in the second case those who have the popular column have too many for a table.
    Csr csr;
    csr.cols = 20'000;
    std::mt19937 random(5);
    for (int row = 0; row < n_rows; ++row) {
      std::int32_t column = 0;
      for (int i = 0; i < 3; ++i) {
        csr.add(column += 1 + static_cast<std::int32_t>(random() % 6'000), static_cast<float>(1 + row % 5));
      }
      if (row % 5 == 0 && row / 5 < n_popular) csr.add(19'999, 1);
      csr.end_row();
    }
    const cuda::SparseLimits limits{.table_ids = table_ids};
    CHECK(agree({.matrix = csr.view(), .k = 10}, limits));
    for (float& value : csr.values) value += 0.1F;
    CHECK(agree({.matrix = csr.view(), .k = 10}, limits));
  }
}

TEST(a_table_has_more_places_than_its_row_meets_ids) {
  // Every row meets all others once: too many for 1,024 places, the fewest of a table, and few of the most.
  for (const int n_rows : {768, 769, 1'100}) {
    Csr csr;
    csr.cols = 1;
    for (int row = 0; row < n_rows; ++row) {
      csr.add(0, static_cast<float>(1 + row % 7));
      csr.end_row();
    }
    CHECK(agree({.matrix = csr.view(), .k = 5, .min_support = 1}, {.table_ids = 0, .ids_per_addition = 0}));
  }
}

TEST(dense_columns_are_multiplied) {
  const recfuse::DenseCosts always{
      .ids_per_entry = 1 << 30, .products_per_addition = std::int64_t{1} << 40, .least_gain = 0};
  for (const auto& choices : std::vector<std::vector<float>>{{1}, {0.25F, 7, 127 / 4.0F}, {1, 128}, {1, 46'000}}) {
    const Csr csr = power_law(300, 150, choices);  // two slabs, three tiles
    for (const std::int64_t k : {3, 400}) {
      const CosineKnnArgs args{.matrix = csr.view(), .k = k, .shrinkage = 1.5};
      CHECK(agree(args, {.dense = always}));
      CHECK(agree(args, {.dense = always, .dense_sums_bytes = 1}));  // 128 rows at a time
      CHECK(agree(args, {.strip_ids = 17, .shared_keys = 0, .keys_bytes = 100'000, .dense = always}));
      // Some columns, and some rows.
      const recfuse::DenseCosts some{.ids_per_entry = 14, .products_per_addition = 2'000, .least_gain = 0};
      CHECK(agree(args, {.strip_ids = 60, .dense = some}));
      CHECK(agree(args, {.table_ids = 0, .ids_per_addition = 4, .dense = always}));
    }
    CHECK(agree({.matrix = csr.view(), .k = 9, .min_support = 40}, {.dense = always}));
    CHECK(agree({.matrix = csr.view(), .k = 9, .norm = Norm::kCorated}, {.dense = always}));
  }
  // Values as large as bytes have, and one more.
  Csr csr;
  csr.cols = 2'100;
  for (int row = 0; row < 5; ++row) {
    for (int column = 0; column < csr.cols; ++column) csr.add(column, column == row ? 128 : 127);
    csr.end_row();
  }
  CHECK(agree({.matrix = csr.view(), .k = 4}, {.dense = always}));
  // The largest sum that counts have: one column more, and they would be real weights.
  Csr largest;
  largest.cols = 133'144;
  static_assert(127LL * 127 * 133'144 < 1LL << 31 && 127LL * 127 * 133'145 > 1LL << 31);
  for (int row = 0; row < 3; ++row) {
    for (int column = 0; column < largest.cols; ++column) largest.add(column, row == 1 && column == 0 ? 126 : 127);
    largest.end_row();
  }
  CHECK(agree({.matrix = largest.view(), .k = 2}, {.dense = always}));
}

TEST(columns_are_dense_where_that_pays) {
  const recfuse::DenseCosts costs{.least_gain = 1};
  // 700 rows: a row's products cost 700 * (128 + 440) / 200 = 1,988 additions.
  CHECK(costs.of_row(700, 1) == 1'988 && costs.of_row(700, 128) == 1'988 && costs.of_row(700, 129) == 2'436);
  CHECK(costs.columns(700, {50, 49, 650, 700, 640}, {1, 1, 1, 1, 1}) == (std::vector<std::int32_t>{3, 2, 4, 0}));
  CHECK(costs.columns(700, {50, 49, 650, 700, 640}, {1, 1, 1, 128, 127}).empty());  // the other three save 1,340
  CHECK(costs.columns(700, {50, 49, 650, 700, 588}, {1, 1, 1, 1, 1}).empty());      // all save 1,988
  CHECK(recfuse::DenseCosts{}.columns(700, {50, 49, 650, 700, 640}, {1, 1, 1, 1, 1}).empty());  // and too few in all
  CHECK(!recfuse::DenseCosts{}.may_pay(1'000, 199'999) && recfuse::DenseCosts{}.may_pay(1'000, 200'000));
  CHECK(!recfuse::DenseCosts{}.may_pay(0, 0));
  CHECK(costs.most_columns(1 << 20, 5'000, std::int64_t{1} << 40) == 1'024);  // a gibibyte of them
}

TEST(candidates_are_sorted_out_when_there_are_more_than_have_room) {
  // Better ones come last, so that every threshold is too low; and equal ones, of which the first stay.
  Csr csr;
  csr.cols = 2;
  for (int row = 0; row < 2'600; ++row) {
    csr.add(0, 1);
    if (row > 0) csr.add(1, row < 2'400 ? 5'000.0F - static_cast<float>(row) : 0.5F);
    csr.end_row();
  }
  CHECK(agree({.matrix = csr.view(), .k = 30}));
  std::fill(csr.values.begin(), csr.values.end(), 1.0F);
  CHECK(agree({.matrix = csr.view(), .k = 30}));
  std::fill(csr.values.begin(), csr.values.end(), 0.1F);  // more than there is room for, nearly equal and equal
  CHECK(agree({.matrix = csr.view(), .k = 30}));
  CHECK(
      agree({.matrix = csr.view(), .k = 30, .min_support = 2}, {.strip_ids = 2'000, .heavy_work = 0, .shares = 1'000}));
  std::mt19937 random(3);  // or they come and go
  for (float& value : csr.values) value = static_cast<float>(1 + random() % 200);
  CHECK(agree({.matrix = csr.view(), .k = 30}));
}

TEST(products_and_means_of_lists_answer_as_the_cpu) {
  const Csr queries = power_law(40, 50, {0.3F, -1, 2, 0}), sorted = power_law(50, 700, {1, 0.7F, -2});
  Csr matrix = sorted;  // as cosine_knn() has them: not by id
  for (std::size_t row = 0; row + 1 < matrix.indptr.size(); ++row) {
    std::reverse(matrix.indices.begin() + matrix.indptr[row], matrix.indices.begin() + matrix.indptr[row + 1]);
    std::reverse(matrix.values.begin() + matrix.indptr[row], matrix.values.begin() + matrix.indptr[row + 1]);
  }
  const Csr some = power_law(40, 700, {0}), others = power_law(40, 700, {1});
  const std::vector<std::int32_t> allowed{5, 7, 7, 150, 699, 0};
  for (const bool normalise : {false, true}) {
    for (const cuda::SparseLimits& limits :
         {cuda::SparseLimits{}, {.strip_ids = 13, .heavy_work = 0, .shares = 1'000}, {.shared_keys = 0}}) {
      NeighbourTopkArgs args{.queries = queries.view(), .neighbours = matrix.view(), .normalise = normalise, .k = 9};
      CHECK(agree(args, limits));
      args.exclude = some.view();
      CHECK(agree(args, limits));
      args.allow = others.view();
      args.k = 800;
      CHECK(agree(args, limits));
      args.allow_ids = allowed;
      args.has_allow_ids = true;
      CHECK(agree(args, limits));
    }
  }
}

TEST(slices_empty_matrices_and_rows_with_gaps_between_them) {
  const Csr csr = power_law(60, 40, {1, 2});
  CsrView slice = csr.view();
  slice.indptr += 20;
  slice.rows -= 30;
  CHECK(agree({.matrix = slice, .k = 7}, {.strip_ids = 8}, 227 << 10, 3));
  const std::int64_t nothing[] = {0, 0, 0};
  const std::int32_t no_columns[] = {0};
  const float no_values[] = {0};
  for (const std::int64_t rows : {0, 2}) {
    for (const std::int64_t cols : {0, 3})
      CHECK(agree({.matrix = {nothing, no_columns, no_values, rows, cols}, .k = 2}));
  }
}

TEST(the_plan_of_memory_is_what_is_taken) {
  auto& memory = Emulator::memory;
  const auto taken = [&](const auto& args) {
    const std::size_t before = memory.used;
    memory.peak = before;
    CHECK(agree(args));
    return static_cast<std::int64_t>(memory.peak - before);
  };
  const std::vector<std::pair<std::vector<float>, recfuse::SparseValues>> kinds{
      {{1}, recfuse::SparseValues::kOnes},
      {{1, 2}, recfuse::SparseValues::kWhole},
      {{0.1F, 0.7F}, recfuse::SparseValues::kPositive},
      {{-0.1F, 0.7F}, recfuse::SparseValues::kAny}};
  for (const std::int64_t k : {5, 3'500}) {  // that have room in shared memory, and that have not
    for (const Norm norm : {Norm::kFull, Norm::kCorated}) {
      for (const auto& [choices, values] : kinds) {
        const Csr csr = power_law(400, 90, choices);
        const CosineKnnArgs args{.matrix = csr.view(), .k = k, .norm = norm};
        const recfuse::CosineKnnSizes sizes{400, 90, csr.view().nnz(), k, values, norm};
        CHECK(taken(args) == recfuse::peak_bytes(recfuse::plan_cosine_knn(sizes, {.multiprocessors = 3})));
      }
    }
    const Csr queries = power_law(40, 50, {0.3F}), matrix = power_law(50, 700, {1});
    const NeighbourTopkArgs args{.queries = queries.view(), .neighbours = matrix.view(), .normalise = k > 5, .k = k};
    const recfuse::NeighbourTopkSizes sizes{40, 50, 700, queries.view().nnz(), matrix.view().nnz(), 0, k, k > 5};
    CHECK(taken(args) == recfuse::peak_bytes(recfuse::plan_neighbour_topk(sizes, {.multiprocessors = 3})));
  }
}

TEST(the_plan_of_tables_and_of_dense_columns_holds_what_is_taken) {
  auto& memory = Emulator::memory;
  const auto taken = [&](const CosineKnnArgs& args) {
    const std::size_t before = memory.used;
    memory.peak = before;
    CHECK(agree(args));
    return static_cast<std::int64_t>(memory.peak - before);
  };
  const recfuse::DeviceShape device{.multiprocessors = 3};
  // Every row has a table: no others' lists are made.
  Csr tail;
  tail.cols = 90'000;
  for (int row = 0; row < 66'000; ++row) {
    tail.add(row % 30'000, 0.3F);
    tail.add(30'000 + row % 7'777, 2);
    tail.end_row();
  }
  const recfuse::CosineKnnSizes of_tail{66'000, tail.cols, tail.view().nnz(), 1, recfuse::SparseValues::kPositive};
  auto plan_of_tail = recfuse::plan_cosine_knn(of_tail, device);
  const std::int64_t of_tables = taken({.matrix = tail.view(), .k = 1});
  CHECK(of_tables <= recfuse::peak_bytes(plan_of_tail));
  std::erase_if(plan_of_tail, [](const auto& buffer) {
    return buffer.phase != "kept" && buffer.phase.find(" for tables") == std::string::npos;
  });
  CHECK(of_tables == recfuse::peak_bytes(plan_of_tail));

  // All columns are dense: there are no other entries, and lists of them all the same.
  std::mt19937 random(1);
  const Csr full = recfuse::testing::random_csr(700, 600, {1, 2}, random, [](auto) { return true; });
  const std::int64_t n = full.view().nnz();
  const recfuse::CosineKnnSizes of_full{700, 600, n, 5, recfuse::SparseValues::kWhole};
  CHECK(taken({.matrix = full.view(), .k = 5}) ==
        recfuse::peak_bytes(recfuse::plan_cosine_knn(of_full, device)) - 8 * n);
}

TEST(where_memory_ends_the_error_says_how_much_there_was) {
  const Csr csr = power_law(150, 60, {1});
  auto& memory = Emulator::memory;
  const std::size_t before = memory.used, all = memory.total;
  memory.total = before + 10'000;
  const std::string message =
      recfuse::testing::thrown_message<recfuse::DeviceOutOfMemory>([&] { agree({.matrix = csr.view(), .k = 20}); });
  memory.total = all;
  CHECK(message.find("cosine_knn: the matrix") == 0 && message.find("got 10000 bytes free") != std::string::npos);
  CHECK(memory.used == before);
}

TEST(arguments_are_checked_as_on_the_cpu) {
  const Csr csr = power_law(10, 5, {1});
  Emulator device;
  const auto message_of = [&](const CosineKnnArgs& args) {
    return recfuse::testing::thrown_message<std::invalid_argument>(
        [&] { cuda::SimilarRows<Emulator>(device, args).run({}); });
  };
  CHECK(message_of({.matrix = csr.view(), .k = 0}) == "cosine_knn: k must be at least 1; got 0");
  CHECK(message_of({.matrix = csr.view(), .k = 2}).find("cosine_knn: out must have shape") == 0);
}
