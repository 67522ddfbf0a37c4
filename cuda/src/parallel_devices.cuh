// Work on several devices at the same time, and errors that say on which.
#pragma once

#include <cstddef>
#include <exception>
#include <future>
#include <string>
#include <vector>

#include "recfuse/errors.hpp"

namespace recfuse::cuda {

/// task(0), task(1), ..., at the same time. All have ended when it returns, or throws what the first that failed threw.
template <class Task>
void in_parallel(std::size_t n, const Task& task) {
  std::vector<std::future<void>> others;
  std::exception_ptr failed;
  const auto tried = [&](const auto& f) {
    try {
      f();
    } catch (...) {
      if (!failed) failed = std::current_exception();
    }
  };
  tried([&] {
    for (std::size_t i = 1; i < n; ++i) others.push_back(std::async(std::launch::async, [&task, i] { task(i); }));
    if (n > 0) task(0);
  });
  for (auto& other : others) tried([&] { other.get(); });
  if (failed) std::rethrow_exception(failed);
}

/// What fails on a device says on which: f() with errors that do.
template <class F>
auto named_by_device(int device, const F& f) -> decltype(f()) {
  try {
    return f();
  } catch (const DeviceError& error) {
    throw DeviceError("cuda:" + std::to_string(device) + ": " + error.what());
  }
}

}  // namespace recfuse::cuda
