#include "isa/dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace recfuse {

namespace kernels {
namespace baseline {
extern const KernelTable table;
}
#if defined(__x86_64__)
namespace avx2 {
extern const KernelTable table;
}
namespace avx512 {
extern const KernelTable table;
}
namespace avx512_vnni {
extern const KernelTable table;
}
#elif defined(__aarch64__)
namespace neon {
extern const KernelTable table;
}
#endif
}  // namespace kernels

namespace {

struct Isa {
  const char* name;
  const kernels::KernelTable* table;
  bool (*supported)();
};

bool always() { return true; }

#if defined(__x86_64__)
// __builtin_cpu_supports asks the operating system too: it is false where the registers are not saved.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
#endif

// Best first.
constexpr Isa kIsas[] = {
#if defined(__x86_64__)
    {"avx512_vnni", &kernels::avx512_vnni::table, has_avx512_vnni},
    {"avx512", &kernels::avx512::table, has_avx512},
    {"avx2", &kernels::avx2::table, has_avx2},
#elif defined(__aarch64__)
    {"neon", &kernels::neon::table, always},
#endif
    {"baseline", &kernels::baseline::table, always},
};

const Isa& find_isa(const std::string& name, const char* argument) {
  std::string here;
  for (const Isa& isa : kIsas) {
    if (!isa.supported()) continue;
    if (name == isa.name) return isa;
    here += std::string(here.empty() ? "" : ", ") + isa.name;
  }
  throw std::invalid_argument(std::string(argument) + " must be one of those that this CPU runs (" + here + "); got '" +
                              name + "'");
}

std::atomic<const Isa*> active{nullptr};

const Isa& active_entry() {
  if (const Isa* isa = active.load(std::memory_order_acquire)) return *isa;
  const char* name = std::getenv("RECFUSE_ISA");
  const Isa* chosen = nullptr;
  if (name != nullptr && *name != '\0') {
    chosen = &find_isa(name, "RECFUSE_ISA");
  } else {
    for (const Isa& isa : kIsas) {
      if (isa.supported()) {
        chosen = &isa;
        break;
      }
    }
  }
  active.store(chosen, std::memory_order_release);
  return *chosen;
}

}  // namespace

const kernels::KernelTable& kernel_table() { return *active_entry().table; }

std::string active_isa() { return active_entry().name; }

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : kIsas) {
    if (isa.supported()) names.emplace_back(isa.name);
  }
  return names;
}

void set_isa(const std::string& name) { active.store(&find_isa(name, "set_isa: name"), std::memory_order_release); }

}  // namespace recfuse
