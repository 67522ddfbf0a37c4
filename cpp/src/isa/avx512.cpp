#define RECFUSE_ISA_NAME avx512
#include "kernels/all.inl.hpp"
