# cmake --install: bin/troupe, and the client library as one archive with what it needs of the other folders, its public
# headers below include/troupe/ and pkgconfig/troupe-client.pc. The .pc finds its folders from where it lies, because
# the prefix is known only at installation.
include(GNUInstallDirs)

add_library(troupe_client_archive STATIC $<TARGET_OBJECTS:troupe_client> $<TARGET_OBJECTS:troupe_transport>
                                         $<TARGET_OBJECTS:troupe_base>)
set_target_properties(troupe_client_archive PROPERTIES OUTPUT_NAME troupe-client LINKER_LANGUAGE C)

get_filename_component(MSGPACK_NAME ${MSGPACK_LIB} NAME_WE)
string(REGEX REPLACE "^lib" "" MSGPACK_NAME ${MSGPACK_NAME})
file(RELATIVE_PATH PREFIX_FROM_PC ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" PREFIX_FROM_PC ${PREFIX_FROM_PC})
configure_file(client/troupe-client.pc.in troupe-client.pc @ONLY)

install(TARGETS troupe RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS troupe_client_archive ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/troupe-client.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
# client/troupe_client.h and what it includes; tests/e2e/install_test.py compiles against exactly these.
foreach(header client/troupe_client.h base/status.h transport/schema.h transport/schema_base.h)
  get_filename_component(folder ${header} DIRECTORY)
  install(FILES ${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/troupe/${folder})
endforeach()
