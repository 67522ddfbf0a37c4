#define RECFUSE_ISA_NAME avx512_vnni
#include "kernels/all.inl.hpp"
