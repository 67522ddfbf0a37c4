// Which items have which modalities, as the few combinations that there are.
#pragma once

#include <cstdint>
#include <vector>

#include "recfuse/views.hpp"

namespace recfuse {

/// Items that have the same modalities.
struct PresenceGroup {
  std::vector<char> present;  // per modality
};

struct PresenceGroups {
  std::vector<PresenceGroup> groups;   // at least one; in the order of their first items
  std::vector<std::int32_t> group_of;  // per item; empty where there is one group
};

/// `present`: (n_items, n_modalities), or null where every item has all.
PresenceGroups presence_groups(const MatrixView<const std::uint8_t>& present, std::int64_t n_items,
                               std::size_t n_modalities);

}  // namespace recfuse
