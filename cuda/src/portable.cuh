// Device code that is host code, too: nvcc compiles it for a device, a C++ compiler for the emulator (block.cuh).
#pragma once

#if defined(__CUDACC__)
#define RECFUSE_DEVICE __device__ __forceinline__
#define RECFUSE_BOTH __host__ __device__ __forceinline__  // what sets a launch up needs it, too
#define RECFUSE_UNROLL _Pragma("unroll")
#define RECFUSE_KEEP_LOOP _Pragma("unroll 1")
#else
#define RECFUSE_DEVICE inline
#define RECFUSE_BOTH inline
#define RECFUSE_UNROLL
#define RECFUSE_KEEP_LOOP
#endif

// Whether this code may hold instructions that compute capability 9.0 alone has: compiled for sm_90a, or emulated.
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define RECFUSE_HOPPER 1
#else
#define RECFUSE_HOPPER 0
#endif
