# What every target of ours is compiled with; link `recfuse_options` to get it.
find_package(Threads REQUIRED)
add_library(recfuse_options INTERFACE)
target_compile_features(recfuse_options INTERFACE cxx_std_20)
target_compile_options(recfuse_options INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion
  # One rounding per operation is part of the definition of a score; fused multiply-adds are written out where wanted.
  -ffp-contract=off)
if(RECFUSE_SANITIZE)
  target_compile_options(recfuse_options INTERFACE
    -fsanitize=${RECFUSE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g)
  target_link_options(recfuse_options INTERFACE -fsanitize=${RECFUSE_SANITIZE})
endif()
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_CXX_EXTENSIONS OFF)
