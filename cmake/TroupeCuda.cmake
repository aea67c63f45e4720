# The CUDA backend, a library of its own. The device runs the scalar reference, so it must compute as the reference does:
# no contraction, denormals flushed, exact division and root.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80 90)
endif()
enable_language(CUDA)
find_package(CUDAToolkit 12 REQUIRED)

add_library(troupe_cuda STATIC kernels/cuda/cuda_ops.cu kernels/cuda/cuda_memory.c kernels/cuda/cuda_table.c)
set_target_properties(troupe_cuda PROPERTIES
  CUDA_STANDARD 20 CUDA_SEPARABLE_COMPILATION ON CUDA_RESOLVE_DEVICE_SYMBOLS ON POSITION_INDEPENDENT_CODE ON)
get_target_property(c_options troupe_cuda COMPILE_OPTIONS) # of the folder, for gcc
set(options "")
foreach(option ${c_options})
  list(APPEND options $<$<COMPILE_LANGUAGE:C>:${option}>)
endforeach()
list(APPEND options $<$<COMPILE_LANGUAGE:CUDA>:--extended-lambda> $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false>
  $<$<COMPILE_LANGUAGE:CUDA>:-ftz=true> $<$<COMPILE_LANGUAGE:CUDA>:-prec-div=true> $<$<COMPILE_LANGUAGE:CUDA>:-prec-sqrt=true>)
set_target_properties(troupe_cuda PROPERTIES COMPILE_OPTIONS "${options}")
target_include_directories(troupe_cuda PRIVATE ${CMAKE_SOURCE_DIR})
target_link_libraries(troupe_cuda PUBLIC troupe_kernels troupe_base CUDA::cudart)
