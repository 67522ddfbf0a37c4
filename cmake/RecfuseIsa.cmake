# -Wno-(maybe-)uninitialized: GCC takes the undefined registers inside its own intrinsics for ours.
# recfuse_add_isa(target isa flags...): compiles the kernels once more, for one instruction set.
function(recfuse_add_isa target isa)
  set(source ${PROJECT_SOURCE_DIR}/cpp/src/isa/${isa}.cpp)
  set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-O3;$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized>;${ARGN}")
  target_sources(${target} PRIVATE ${source})
endfunction()
