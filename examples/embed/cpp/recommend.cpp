// recommend MODEL USER: what a model file that Python wrote has for somebody.
#include <array>
#include <bit>
#include <cstdio>
#include <exception>
#include <recfuse/model.hpp>
#include <string>
#include <vector>

namespace {

constexpr std::int64_t kLength = 3;

struct List {
  std::array<std::int32_t, kLength> items{};
  std::array<float, kLength> scores{};
  recfuse::TopkOut out() { return {{items.data(), 1, kLength}, {scores.data(), 1, kLength}}; }
};

void show(const recfuse::Model& model, const std::string& title, const List& list) {
  std::printf("%s\n", title.c_str());
  for (std::size_t i = 0; i < kLength && list.items[i] >= 0; ++i)  // -1: the list is shorter
    std::printf("  %s %.6f %08x\n", model.item_id(list.items[i]).c_str(), static_cast<double>(list.scores[i]),
                std::bit_cast<unsigned>(list.scores[i]));
}

void run(const std::string& path, const std::string& name) {
  const recfuse::Model model(path);
  const auto row = model.user_row(name);
  if (!row) throw std::invalid_argument("nobody is called " + name);
  const std::array user{*row};
  const auto modalities = model.modalities();
  const recfuse::ModalityInfo& last = modalities.back();

  List list;
  model.recommend(user, {.k = kLength}, list.out());
  show(model, "for " + name, list);

  const std::array best{list.items[0]};
  const std::array<std::int64_t, 1> best_row{best[0]};
  const std::string title = model.item_id(best[0]);
  std::vector<double> weights(modalities.size());
  weights.back() = 1;
  model.recommend(user, {.k = kLength, .weights = weights, .exclude = best}, list.out());
  show(model, "for " + name + ", by " + last.name + " alone, without " + title, list);

  model.similar(best_row, {.k = kLength}, list.out());
  show(model, "like " + title, list);

  const std::vector<float> ones(static_cast<std::size_t>(last.dim), 1);
  std::vector<recfuse::MatrixView<const float>> vectors(modalities.size());  // without data: not asked
  vectors.back() = {ones.data(), 1, last.dim};
  model.search(vectors, {.k = kLength}, list.out());
  show(model, "for a vector of " + last.name, list);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: recommend MODEL USER\n");
    return 2;
  }
  try {
    run(argv[1], argv[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
