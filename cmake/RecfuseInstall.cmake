# Two components: `python` for the wheel, `devel` for C++ programs. A wheel carries no headers.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

function(recfuse_install_library target name)
  set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/recfuse)
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  install(TARGETS ${target} EXPORT recfuse-targets COMPONENT devel ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
    INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT devel)
  install(EXPORT recfuse-targets NAMESPACE recfuse:: DESTINATION ${package_dir} COMPONENT devel)
  configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/recfuse-config.cmake.in
    ${PROJECT_BINARY_DIR}/recfuse-config.cmake INSTALL_DESTINATION ${package_dir})
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/recfuse-config-version.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/recfuse-config.cmake ${PROJECT_BINARY_DIR}/recfuse-config-version.cmake
    DESTINATION ${package_dir} COMPONENT devel)
endfunction()
