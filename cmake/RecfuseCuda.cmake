# RECFUSE_CUDA=AUTO|ON|OFF -> RECFUSE_HAVE_CUDA. The only place that looks for nvcc.
#
# One module for every GPU from sm_80 on: machine code for Hopper, and PTX that the driver compiles for others, once.
set(RECFUSE_CUDA AUTO CACHE STRING "Build the CUDA module: AUTO where nvcc is found, ON or OFF")
set_property(CACHE RECFUSE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(RECFUSE_CUDA_ARCHITECTURES "90a-real;80-virtual" CACHE STRING "As CMAKE_CUDA_ARCHITECTURES; wheels name more")

set(RECFUSE_HAVE_CUDA FALSE)
if(RECFUSE_CUDA)
  include(CheckLanguage)
  set(CMAKE_CUDA_ARCHITECTURES ${RECFUSE_CUDA_ARCHITECTURES})
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)  # a driver is all that a user needs
  set(_recfuse_least_nvcc 12.4)  # C++20 without gaps
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    set(_recfuse_nvcc "${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION}")
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL _recfuse_least_nvcc)
      set(RECFUSE_HAVE_CUDA TRUE)
    endif()
  else()
    set(_recfuse_nvcc "none, or none that works with this C++ compiler")
  endif()
  if(RECFUSE_HAVE_CUDA)
    find_package(CUDAToolkit REQUIRED)
    message(STATUS "recfuse: CUDA by ${_recfuse_nvcc}")
  elseif(RECFUSE_CUDA STREQUAL "AUTO")
    message(STATUS "recfuse: no CUDA module, which needs nvcc >= ${_recfuse_least_nvcc}; found ${_recfuse_nvcc}")
  else()
    message(FATAL_ERROR "RECFUSE_CUDA=${RECFUSE_CUDA} needs nvcc >= ${_recfuse_least_nvcc}; found ${_recfuse_nvcc}. "
      "Set CUDACXX if it is installed elsewhere, or build without it: -DRECFUSE_CUDA=OFF.")
  endif()
endif()
