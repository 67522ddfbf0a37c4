#define RECFUSE_ISA_NAME avx2
#include "kernels/all.inl.hpp"
