// What the C++ tests are written with: TEST, CHECK, CHECK_THROWS and a main that runs every TEST of its file.
#pragma once

#include <atomic>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

namespace recfuse::testing {

inline std::vector<std::pair<const char*, void (*)()>>& tests() {
  static std::vector<std::pair<const char*, void (*)()>> all;
  return all;
}

inline std::atomic<int> failures = 0;  // of any thread

inline void fail(const char* file, int line, const std::string& what) {
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
  ++failures;
}

struct Register {
  Register(const char* name, void (*test)()) { tests().emplace_back(name, test); }
};

/// The message of the E that `f` throws; "" for none, another type is a message of its own.
template <class E, class F>
std::string thrown_message(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& error) {
    return std::string("another type: ") + error.what();
  }
  return "";
}

inline int run_all() {
  for (const auto& [name, test] : tests()) {
    const int before = failures;
    try {
      test();
    } catch (const std::exception& error) {
      fail(name, 0, std::string("threw ") + error.what());
    }
    std::printf("%s %s\n", failures == before ? "ok    " : "FAILED", name);
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace recfuse::testing

#define TEST(name)                                                      \
  static void name();                                                   \
  static const recfuse::testing::Register register_##name(#name, name); \
  static void name()

#define CHECK(condition) \
  if (!(condition)) recfuse::testing::fail(__FILE__, __LINE__, "not true: " #condition)

#define CHECK_THROWS(type, message, ...)                                                                        \
  if (const std::string got = recfuse::testing::thrown_message<type>([&] { __VA_ARGS__; }); got != (message)) { \
    recfuse::testing::fail(__FILE__, __LINE__, "must throw '" message "'; got '" + got + "'");                  \
  }

int main() { return recfuse::testing::run_all(); }
