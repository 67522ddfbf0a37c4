# Two components: `python`, the extensions, and `devel`, what programs in C++ and C build against. A wheel has both: inside the
# package, where `python -m recfuse --cmake-dir` finds them. Everything is relocatable.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

if(SKBUILD)
  set(CMAKE_INSTALL_INCLUDEDIR recfuse/include)
  set(CMAKE_INSTALL_LIBDIR recfuse/lib)
endif()
set(_recfuse_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/recfuse)

# recfuse_install_library(target name [options...]): find_package(recfuse) gives it as recfuse::name, with the headers beside its sources.
function(recfuse_install_library target name)
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  install(TARGETS ${target} EXPORT recfuse-targets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT devel
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT devel ${ARGN}
    INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
endfunction()

# recfuse_install_shared_library(target name): with the links NAME.so -> NAME.so.1 -> NAME.so.0.1.0. A wheel keeps no
# links, so its library is NAME.so.1, and NAME.so a line that sends linkers there.
function(recfuse_install_shared_library target name)
  if(NOT SKBUILD)
    recfuse_install_library(${target} ${name})
    return()
  endif()
  get_target_property(soversion ${target} SOVERSION)
  set_target_properties(${target} PROPERTIES VERSION ${soversion})
  recfuse_install_library(${target} ${name} NAMELINK_SKIP)
  set(namelink ${PROJECT_BINARY_DIR}/linker_scripts/${CMAKE_SHARED_LIBRARY_PREFIX}${target}.so)
  file(WRITE ${namelink} "INPUT(${CMAKE_SHARED_LIBRARY_PREFIX}${target}.so.${soversion})\n")
  install(FILES ${namelink} DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT devel)
endfunction()

# recfuse_install_headers(folder)
function(recfuse_install_headers folder)
  install(DIRECTORY ${folder}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT devel)
endfunction()

# recfuse_install_pkgconfig(name description libs): NAME.pc, whose paths begin where the file lies.
function(recfuse_install_pkgconfig name description libs)
  set(RECFUSE_PC_NAME ${name})
  set(RECFUSE_PC_DESCRIPTION ${description})
  set(RECFUSE_PC_LIBS ${libs})
  file(RELATIVE_PATH RECFUSE_PC_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/recfuse.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT devel)
endfunction()

# Once, after all libraries.
function(recfuse_install_package)
  install(EXPORT recfuse-targets NAMESPACE recfuse:: DESTINATION ${_recfuse_package_dir} COMPONENT devel)
  configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/recfuse-config.cmake.in
    ${PROJECT_BINARY_DIR}/recfuse-config.cmake INSTALL_DESTINATION ${_recfuse_package_dir})
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/recfuse-config-version.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/recfuse-config.cmake ${PROJECT_BINARY_DIR}/recfuse-config-version.cmake
    DESTINATION ${_recfuse_package_dir} COMPONENT devel)
endfunction()
