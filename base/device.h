/* base/device.h - marks what a CUDA compiler builds for the device: the scalar reference runs there as it is
 * (kernels/cuda). For a C compiler the marks are nothing. */
#ifndef TR_DEVICE_H
#define TR_DEVICE_H
#ifdef __CUDACC__
#define TR_DEVICE          __device__
#define TR_HOST_AND_DEVICE __host__ __device__
#else
#define TR_DEVICE
#define TR_HOST_AND_DEVICE
#endif
#endif
