// Options by the words that Python has for them.
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "recfuse/als.hpp"
#include "recfuse/cosine_knn.hpp"
#include "recfuse/fuse_topk.hpp"

namespace recfuse {
namespace {

template <class E, std::size_t N>
E enum_named(std::string_view name, const char* op, const char* argument,
             const std::pair<std::string_view, E> (&known)[N]) {
  std::string names;
  for (const auto& [text, value] : known) {
    if (name == text) return value;
    names += (names.empty() ? "'" : ", '") + std::string(text) + "'";
  }
  throw std::invalid_argument(std::string(op) + ": " + argument + " must be one of " + names + "; got '" +
                              std::string(name) + "'");
}

}  // namespace

Metric metric_named(std::string_view name, const std::string& op) {
  return enum_named<Metric>(name, op.c_str(), "metric", {{"dot", Metric::kDot}, {"cosine", Metric::kCosine}});
}

Fusion fusion_named(std::string_view name) {
  return enum_named<Fusion>(name, "fuse_topk", "fusion",
                            {{"sum", Fusion::kSum},
                             {"average", Fusion::kAverage},
                             {"product", Fusion::kProduct},
                             {"max", Fusion::kMax},
                             {"min", Fusion::kMin}});
}

Missing missing_named(std::string_view name) {
  return enum_named<Missing>(name, "fuse_topk", "missing",
                             {{"renormalise", Missing::kRenormalise}, {"zero", Missing::kZero}});
}

Norm norm_named(std::string_view name) {
  return enum_named<Norm>(name, "cosine_knn", "norm", {{"full", Norm::kFull}, {"corated", Norm::kCorated}});
}

AlsObjective objective_named(std::string_view name) {
  return enum_named<AlsObjective>(name, "als", "objective",
                                  {{"implicit", AlsObjective::kImplicit}, {"explicit", AlsObjective::kExplicit}});
}

LinearSolver solver_named(std::string_view name) {
  return enum_named<LinearSolver>(name, "als", "solver",
                                  {{"auto", LinearSolver::kAuto},
                                   {"cholesky", LinearSolver::kCholesky},
                                   {"cg", LinearSolver::kCg},
                                   {"block", LinearSolver::kBlock}});
}

std::string_view name_of(LinearSolver solver) {
  switch (solver) {
    case LinearSolver::kAuto:
      return "auto";
    case LinearSolver::kCholesky:
      return "cholesky";
    case LinearSolver::kCg:
      return "cg";
    case LinearSolver::kBlock:
      break;
  }
  return "block";
}

}  // namespace recfuse
