#include "recfuse/presence.hpp"

#include <map>

namespace recfuse {

PresenceGroups presence_groups(const MatrixView<const std::uint8_t>& present, std::int64_t n_items,
                               std::size_t n_modalities) {
  PresenceGroups result;
  if (present.data != nullptr) {
    std::map<std::vector<char>, std::int32_t> known;
    result.group_of.reserve(static_cast<std::size_t>(n_items));
    std::vector<char> pattern(n_modalities);
    for (std::int64_t i = 0; i < n_items; ++i) {
      for (std::size_t m = 0; m < n_modalities; ++m) pattern[m] = present.row(i)[m] != 0;
      const auto [entry, is_new] = known.try_emplace(pattern, static_cast<std::int32_t>(result.groups.size()));
      if (is_new) result.groups.push_back({pattern});
      result.group_of.push_back(entry->second);
    }
  }
  if (result.groups.empty()) result.groups.push_back({std::vector<char>(n_modalities, 1)});
  return result;
}

}  // namespace recfuse
