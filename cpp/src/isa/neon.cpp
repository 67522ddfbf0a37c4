#define RECFUSE_ISA_NAME neon
#include "kernels/all.inl.hpp"
