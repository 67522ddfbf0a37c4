// What goes wrong on a device, in words that say what to do. Numbers and texts alone, no driver: all of it is tested on
// machines that have none.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace recfuse::cuda {

/// Of cudaError_t, those that need more words than CUDA has.
enum Failure {
  kInitialization = 3,
  kStubLibrary = 34,
  kInsufficientDriver = 35,
  kDevicesUnavailable = 46,
  kNoDevice = 100,
  kNoKernelImage = 209,
  kSystemNotReady = 802,
  kSystemDriverMismatch = 803,
};

/// What a driver told of itself and of the device that searches would use.
struct DeviceFacts {
  int driver = 0;             // 13000 is 13.0; 0: there is none
  int runtime = 0;            // that this module is built with
  int status = 0;             // of counting the devices
  std::string status_text{};  // what CUDA says of it
  int count = 0;
  const char* visible = nullptr;  // CUDA_VISIBLE_DEVICES, where it is set
  std::string name{};
  int major = 0, minor = 0;      // compute capability
  bool has_pools = true;         // of memory
  std::string_view built_for{};  // as CMAKE_CUDA_ARCHITECTURES, with spaces between them; empty: for whatever there is
};

/// 13000 is 13.0.
inline std::string version_text(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

/// Whether code for one of these architectures ("80-real", "90a", ...) runs on a device.
inline bool has_code_for(std::string_view architectures, int major, int minor) {
  if (architectures.empty()) return true;
  while (!architectures.empty()) {
    const auto end = std::min(architectures.find(' '), architectures.size());
    const std::string_view one = architectures.substr(0, end);
    architectures.remove_prefix(std::min(end + 1, architectures.size()));
    int number = 0;
    std::size_t digits = 0;
    for (; digits < one.size() && one[digits] >= '0' && one[digits] <= '9'; ++digits) {
      number = 10 * number + (one[digits] - '0');
    }
    if (digits == 0) return true;  // "native", "all": nothing that could be told from here
    const std::string_view kind = one.substr(digits);
    const int of_major = number / 10, of_minor = number % 10;
    if (kind.starts_with('a')) {  // this device and no other, by machine code and by PTX
      if (of_major == major && of_minor == minor) return true;
    } else if (kind != "-virtual" && of_major == major && of_minor <= minor) {
      return true;  // machine code of a generation runs on what came later in it
    } else if (kind != "-real" && (of_major < major || (of_major == major && of_minor <= minor))) {
      return true;  // PTX runs on everything later
    }
  }
  return false;
}

/// What to do about the failure of a call; empty where CUDA's own text is all there is to say.
inline std::string advice(int status) {
  switch (status) {
    case kInitialization:
      return "CUDA does not survive a fork: start processes that use it by 'spawn', or use it only after forking";
    case kStubLibrary:
      return "a stub of libcuda.so.1 is found before the driver's: look at LD_LIBRARY_PATH";
    case kDevicesUnavailable:
      return "another process has the device for itself";
    case kNoKernelImage:
      return "build recfuse for this device: RECFUSE_CUDA_ARCHITECTURES";
    case kSystemNotReady:
      return "a service of the machine is not running (the fabric manager of linked GPUs, say)";
    case kSystemDriverMismatch:
      return "libcuda.so.1 is not of the running driver: restart the machine or the container";
    // A kernel has failed, and with it all that the process has on the device.
    case 700:  // illegal address
    case 702:  // timeout
    case 709:  // context destroyed
    case 710:  // assertion
    case 714:  // hardware stack
    case 715:  // illegal instruction
    case 716:  // misaligned address
    case 717:  // address space
    case 718:  // program counter
    case 719:  // launch failure
      return "a kernel of this process has failed, of recfuse or of another library, and only a new process can use "
             "the device";
    default:
      return "";
  }
}

/// Why a device cannot be used; empty where it can.
inline std::string unusable_reason(const DeviceFacts& facts) {
  if (facts.driver == 0) {
    return "there is no NVIDIA driver on this machine (install one for CUDA " + version_text(facts.runtime) +
           " or later; a container has to be started with the GPUs)";
  }
  if (facts.status == kInsufficientDriver) {
    return "the driver is made for CUDA " + version_text(facts.driver) + ", this build for " +
           version_text(facts.runtime) + ": update the driver";
  }
  if (facts.status == kNoDevice || (facts.status == 0 && facts.count == 0)) {
    return std::string("the driver reports no CUDA device: ") +
           (facts.visible == nullptr ? "nvidia-smi should list one"
                                     : "CUDA_VISIBLE_DEVICES='" + std::string(facts.visible) + "' hides all");
  }
  if (facts.status != 0) {
    const std::string more = advice(facts.status);
    return "CUDA does not start: " + facts.status_text + (more.empty() ? "" : "; " + more);
  }
  const std::string device =
      facts.name + " has compute capability " + std::to_string(facts.major) + "." + std::to_string(facts.minor);
  if (facts.major < 8) return device + "; at least 8.0 is needed: use the CPU";
  if (!has_code_for(facts.built_for, facts.major, facts.minor)) {
    return device + ", and this build has code for " + std::string(facts.built_for) +
           " alone: build it with -DRECFUSE_CUDA_ARCHITECTURES=" + std::to_string(10 * facts.major + facts.minor);
  }
  if (!facts.has_pools) return facts.name + " has no memory pools, as some virtual GPUs have not: use the CPU";
  return "";
}

}  // namespace recfuse::cuda
