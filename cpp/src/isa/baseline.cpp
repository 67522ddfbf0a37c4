#define RECFUSE_ISA_NAME baseline
#include "kernels/all.inl.hpp"
