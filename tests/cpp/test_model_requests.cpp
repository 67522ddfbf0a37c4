// What a request to a model can ask for, each held against another way to ask for the same.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "golden_files.hpp"

namespace {

using recfuse::MatrixView;
using recfuse::Model;
using recfuse::QueryOptions;
using recfuse::testing::kFolder;
using recfuse::testing::Lists;

constexpr std::int64_t kItems = 10;

/// Modalities als (4), text (4), image (3, which items 0, 3, 6 and 9 lack) and popularity (2), the fallback.
Model fused() { return Model(kFolder + "/v2/retriever.recfuse"); }

std::vector<std::int64_t> first_rows(std::int64_t n) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(n));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

Lists recommended(const Model& model, std::span<const std::int64_t> users, const QueryOptions& options) {
  Lists lists(static_cast<std::int64_t>(users.size()), options.k);
  model.recommend(users, options, lists.out());
  return lists;
}

Lists alike(const Model& model, std::int64_t item, std::span<const double> weights = {}) {
  Lists lists(1, kItems);
  model.similar(std::span(&item, 1), {.k = kItems, .weights = weights}, lists.out());
  return lists;
}

/// Vectors of one query; nothing of a modality that is not asked.
struct Query {
  std::vector<std::vector<float>> vectors;

  explicit Query(const Model& model) {
    for (const auto& modality : model.modalities()) vectors.emplace_back(static_cast<std::size_t>(modality.dim));
  }

  Lists ask(const Model& model, const QueryOptions& options, std::span<double> parts = {}) const {
    std::vector<MatrixView<const float>> views;
    for (const auto& vector : vectors) {
      const bool given = !vector.empty();
      views.emplace_back(given ? vector.data() : nullptr, given ? 1 : 0, static_cast<std::int64_t>(vector.size()));
    }
    Lists lists(1, options.k);
    const auto columns = static_cast<std::int64_t>(parts.size());
    model.search(views, options, lists.out(),
                 parts.empty() ? MatrixView<double>{} : MatrixView(parts.data(), 1, columns));
    return lists;
  }
};

TEST(what_users_have_is_left_out_if_asked) {
  const Model model = fused();
  const auto users = first_rows(*model.n_users());
  const Lists without = recommended(model, users, {.k = kItems});
  const Lists with = recommended(model, users, {.k = kItems, .exclude_seen = false});
  std::int64_t seen = 0;
  for (std::size_t row = 0; row < users.size(); ++row) {
    std::vector<std::int32_t> kept;
    const auto begin = without.ids.begin() + static_cast<std::ptrdiff_t>(row) * kItems;
    for (std::size_t j = 0; j < kItems; ++j) {
      const std::int32_t item = with.ids[row * kItems + j];
      CHECK(item >= 0);
      if (std::find(begin, begin + kItems, item) != begin + kItems) kept.push_back(item);
    }
    CHECK(std::equal(kept.begin(), kept.end(), begin));
    seen += kItems - static_cast<std::int64_t>(kept.size());
  }
  CHECK(seen == model.file().find("retrieval.seen.indices")->size());
}

TEST(terms_add_up_to_scores) {
  const Model model = fused();
  const auto users = first_rows(*model.n_users());
  const auto n = *model.n_users();
  Lists lists(n, 3);
  std::vector<double> parts(static_cast<std::size_t>(n) * 3 * 4, -7);
  model.recommend(users, {.k = 3}, lists.out(), {parts.data(), n, 3 * 4});
  Query query(model);
  query.vectors[1][2] = query.vectors[3][0] = 1;
  std::vector<double> terms(3 * 4, -7);
  const Lists found = query.ask(model, {.k = 3}, terms);
  parts.insert(parts.end(), terms.begin(), terms.end());
  lists.scores.insert(lists.scores.end(), found.scores.begin(), found.scores.end());
  for (std::size_t i = 0; i < lists.scores.size(); ++i) {
    const double sum = std::accumulate(&parts[i * 4], &parts[i * 4] + 4, 0.0);
    CHECK(std::abs(sum - static_cast<double>(lists.scores[i])) < 1e-6);
  }
  const MatrixView<double> narrow{parts.data(), n, 3};
  CHECK_THROWS(std::invalid_argument, "recommend: parts must have k terms per modality and query; got another shape",
               model.recommend(users, {.k = 3}, lists.out(), narrow));
}

TEST(many_users_are_asked_in_batches) {
  const Model model = fused();
  const auto n = *model.n_users();
  const Lists few = recommended(model, first_rows(n), {.k = 2});
  std::vector<std::int64_t> users;
  for (std::int64_t i = 0; i < 16384 + 100; ++i) users.push_back(i * 5 % n);
  const Lists many = recommended(model, users, {.k = 2});
  bool same = true;
  for (std::size_t i = 0; i < users.size(); ++i) {
    for (std::size_t j = 0; j < 2; ++j) {
      const std::size_t at = static_cast<std::size_t>(users[i]) * 2 + j;
      same = same && many.ids[i * 2 + j] == few.ids[at] && many.scores[i * 2 + j] == few.scores[at];
    }
  }
  CHECK(same);
}

TEST(modalities_that_are_not_given_have_no_weight) {
  const Model model = fused();
  Query text(model);
  text.vectors[1] = {1, -1, 2, 0};
  text.vectors[3] = {1, 1};
  Query alone = text;
  alone.vectors[0].clear();
  alone.vectors[2].clear();
  alone.vectors[3].clear();
  const std::vector<double> weights{0, 0.3, 0, 0};
  CHECK(alone.ask(model, {.k = kItems}) == text.ask(model, {.k = kItems, .weights = weights}));
  CHECK(!(alone.ask(model, {.k = kItems}) == text.ask(model, {.k = kItems})));
}

TEST(the_fallback_speaks_for_queries_that_say_nothing) {
  const Model model = fused();
  Query query(model);
  query.vectors[3] = {1, 0};
  const std::vector<double> others{0.4, 0.3, 0, 0}, popular{0, 0, 0, 1};  // of what all items have
  const Lists found = query.ask(model, {.k = kItems, .weights = others});
  CHECK(found == query.ask(model, {.k = kItems, .weights = popular}));
  CHECK(found.scores[0] > found.scores[kItems - 1]);
  query.vectors[0][0] = 1;  // somebody is known
  CHECK(!(query.ask(model, {.k = kItems, .weights = others}) == query.ask(model, {.k = kItems, .weights = popular})));
}

TEST(lists_are_of_what_is_allowed) {
  const Model model = fused();
  Query query(model);
  query.vectors[1][0] = 1;
  const std::vector<std::int32_t> some{7, 2}, one{2};
  const Lists found = query.ask(model, {.k = 3, .allow = some, .has_allow = true});
  CHECK(found.ids[2] == -1 && found.ids[0] + found.ids[1] == 9 && found.ids[0] >= 0 && found.ids[1] >= 0);
  CHECK(query.ask(model, {.k = 3, .exclude = one, .allow = some, .has_allow = true}).ids ==
        (std::vector<std::int32_t>{7, -1, -1}));
  CHECK(query.ask(model, {.k = 3, .has_allow = true}).ids == (std::vector<std::int32_t>{-1, -1, -1}));
  const auto user = first_rows(1);
  CHECK(recommended(model, user, {.k = 3, .has_allow = true}).ids == (std::vector<std::int32_t>{-1, -1, -1}));
}

TEST(similar_items_go_by_what_an_item_has) {
  const Model model = fused();
  const std::vector<double> text{0, 0.3, 0, 0}, image{0, 0, 1, 0}, both{0, 0.3, 0.2, 0}, factors{1, 0, 0, 0};
  for (std::int64_t item = 0; item < kItems; ++item) {
    const Lists found = alike(model, item);
    CHECK(std::find(found.ids.begin(), found.ids.end(), item) == found.ids.end());
    CHECK(found.ids[kItems - 2] >= 0 && found.ids[kItems - 1] == -1);
    CHECK(found == alike(model, item, both));
    CHECK(found.scores[0] <= 1.0F);
    const bool has_image = item % 3 != 0;
    CHECK((found == alike(model, item, text)) == !has_image);
    const Lists by_image = alike(model, item, image);
    CHECK((by_image.ids[0] >= 0) == has_image);
    CHECK(has_image || std::isinf(by_image.scores[0]));
  }
  CHECK_THROWS(std::invalid_argument, "similar: weights must be 0 where items are not compared; got another for 'als'",
               (void)alike(model, 0, factors));
  const Model toplist(kFolder + "/v2/toplist.recfuse");
  CHECK_THROWS(std::invalid_argument, "similar: model must have a modality by which items are alike; got none",
               (void)alike(toplist, 0));
}

}  // namespace
