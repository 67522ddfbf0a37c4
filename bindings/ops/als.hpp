#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "recfuse/als.hpp"
#include "recfuse/device_memory.hpp"

namespace recfuse::bindings {

/// The solver and the interactions that it has a view of.
template <class Backend>
class BoundAlsSolver {
 public:
  using FloatVector = Array<float>;

  BoundAlsSolver(CsrParts user_items, const std::string& objective, const std::string& solver, std::int64_t factors,
                 double regularization, double alpha, double frequency_scaling, bool biases, std::int64_t cg_steps,
                 std::int64_t dual_entries, bool double_precision, double base_confidence, int num_threads,
                 const std::vector<int>& devices = {}, std::int64_t device_bytes = kUnlimitedBytes)
      : user_items_(std::move(user_items)) {
    const AlsParams params{.objective = objective_named(objective),
                           .solver = solver_named(solver),
                           .factors = factors,
                           .regularization = regularization,
                           .alpha = alpha,
                           .base_confidence = base_confidence,
                           .frequency_scaling = frequency_scaling,
                           .biases = biases,
                           .cg_steps = cg_steps,
                           .dual_entries = dual_entries,
                           .double_precision = double_precision};
    const CsrView csr = view(user_items_);
    const py::gil_scoped_release nogil;
    if constexpr (kHasDevices<Backend>) {
      solver_ = std::make_unique<typename Backend::AlsSolver>(csr, params, num_threads, devices, device_bytes);
    } else {
      solver_ = std::make_unique<typename Backend::AlsSolver>(csr, params, num_threads);
    }
  }

  void set_factors(const FloatMatrix& users, const FloatMatrix& items, const FloatVector& user_biases,
                   const FloatVector& item_biases) {
    const AlsFactors<const float> start{view(users), view(items), span_of(user_biases), span_of(item_biases)};
    const py::gil_scoped_release nogil;
    solver_->set_factors(start);
  }

  /// Into the given arrays, or into new ones.
  py::tuple factors(const std::optional<FloatMatrix>& users_out, const std::optional<FloatMatrix>& items_out) const {
    const AlsParams& params = solver_->params();
    auto users = users_out ? *users_out : new_matrix<float>(solver_->n_users(), params.factors);
    auto items = items_out ? *items_out : new_matrix<float>(solver_->n_items(), params.factors);
    FloatVector user_biases(params.biases ? solver_->n_users() : 0),
        item_biases(params.biases ? solver_->n_items() : 0);
    const AlsFactors<float> out{mutable_view(users), mutable_view(items), mutable_span(user_biases),
                                mutable_span(item_biases)};
    {
      const py::gil_scoped_release nogil;
      solver_->factors(out);
    }
    return py::make_tuple(users, items, user_biases, item_biases);
  }

  void step(int num_threads) {
    const py::gil_scoped_release nogil;
    solver_->step(num_threads);
  }

  double loss(int num_threads) const {
    const py::gil_scoped_release nogil;
    return solver_->loss(num_threads);
  }

  py::tuple fold_in(const CsrParts& user_items, int num_threads) const {
    const CsrView csr = view(user_items);
    const AlsParams& params = solver_->params();
    auto factors = new_matrix<float>(csr.rows, params.factors);
    FloatVector biases(params.biases ? csr.rows : 0);
    const auto factors_view = mutable_view(factors);
    const auto biases_view = mutable_span(biases);
    {
      const py::gil_scoped_release nogil;
      solver_->fold_in(csr, factors_view, biases_view, num_threads);
    }
    return py::make_tuple(factors, biases);
  }

  double global_mean() const { return solver_->global_mean(); }
  void set_global_mean(double mean) { solver_->set_global_mean(mean); }
  std::string solver() const { return std::string(name_of(solver_->solver())); }
  std::int64_t float64_rows() const { return solver_->float64_rows(); }
  std::int64_t finished_steps() const { return solver_->finished_steps(); }
  bool is_streamed() const { return solver_->is_streamed(); }

 private:
  CsrParts user_items_;
  std::unique_ptr<typename Backend::AlsSolver> solver_;
};

template <class Backend>
void bind_als(py::module_& m) {
  using Solver = BoundAlsSolver<Backend>;
  using namespace py::literals;
  py::class_<Solver> solver(m, "AlsSolver");
  const auto define_init = [&](auto init, const auto&... more) {
    solver.def(init, "user_items"_a.noconvert(), py::kw_only(), "objective"_a, "solver"_a, "factors"_a,
               "regularization"_a, "alpha"_a, "frequency_scaling"_a, "biases"_a, "cg_steps"_a, "dual_entries"_a = -1,
               "double_precision"_a = false, "base_confidence"_a = 1.0, "num_threads"_a = 0, more...);
  };
  if constexpr (kHasDevices<Backend>) {
    define_init(py::init<CsrParts, const std::string&, const std::string&, std::int64_t, double, double, double, bool,
                         std::int64_t, std::int64_t, bool, double, int, const std::vector<int>&, std::int64_t>(),
                "devices"_a = std::vector<int>{0}, "device_bytes"_a = kUnlimitedBytes);
    solver.def_property_readonly("is_streamed", &Solver::is_streamed);
  } else {
    define_init(py::init<CsrParts, const std::string&, const std::string&, std::int64_t, double, double, double, bool,
                         std::int64_t, std::int64_t, bool, double, int>());
  }
  solver
      .def("set_factors", &Solver::set_factors, "users"_a.noconvert(), "items"_a.noconvert(),
           "user_biases"_a.noconvert(), "item_biases"_a.noconvert())
      .def("factors", &Solver::factors, "users"_a.noconvert() = py::none(), "items"_a.noconvert() = py::none())
      .def("step", &Solver::step, "num_threads"_a = 0)
      .def("loss", &Solver::loss, "num_threads"_a = 0)
      .def("fold_in", &Solver::fold_in, "user_items"_a.noconvert(), "num_threads"_a = 0)
      .def_property("global_mean", &Solver::global_mean, &Solver::set_global_mean)
      .def_property_readonly("solver", &Solver::solver)
      .def_property_readonly("float64_rows", &Solver::float64_rows)
      .def_property_readonly("finished_steps", &Solver::finished_steps);
}

}  // namespace recfuse::bindings
