// What every kernel here shares. The same source is compiled for GPUs (NVRTC, nvcc) and for the host (host.h), so it
// uses no library and no shared memory: a kernel is a function of its arguments and a place (x, y), and its result does not depend
// on the order of places. Of atomic operations, atomicMin and atomicAdd of int are there.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef __CUDACC__
#define DEVICE static __device__ __forceinline__
#define ENTRY(name, Arguments) extern "C" __global__ void name(const Arguments a)
DEVICE int nearest(float value) { return __float2int_rn(value); }
#define SHARED_STRUCT(name, Type)
#else
#include "host.h"
#endif

// Declares a kernel over the places 0 <= x < a.width, 0 <= y < a.height; the function's body follows.
#define KERNEL(name, Arguments)                                    \
    DEVICE void name##_at(const Arguments &a, int x, int y);       \
    ENTRY(name, Arguments) {                                       \
        const int x = (int)(blockIdx.x * blockDim.x + threadIdx.x); \
        const int y = (int)(blockIdx.y * blockDim.y + threadIdx.y); \
        if (x < a.width && y < a.height) name##_at(a, x, y);       \
    }                                                              \
    DEVICE void name##_at(const Arguments &a, int x, int y)

DEVICE int clamped(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

DEVICE u8 to_byte(float value) { return (u8)clamped(nearest(value), 0, 255); }

// The endoscope's disc on the frame's chroma, in its pixels. Where it is not present, the image is everywhere.
struct ChromaDisc {
    double x, y, squared; // center, and the square of the radius
    int present, unused;
};

DEVICE bool in_disc(const ChromaDisc &disc, int x, int y) {
    const double across = (double)x + 0.5 - disc.x, down = (double)y + 0.5 - disc.y;
    return !disc.present || across * across <= disc.squared - down * down;
}

// Where a linear filter reads along an axis that is scaled by `step` source cells a pixel: the lower cell, and the upper's weight.
struct Tap {
    int low, high;
    float weight;
};

DEVICE Tap linear_tap(int pixel, double step, int cells) {
    const float place = (float)((pixel + 0.5) * step - 0.5);
    int low = (int)place;
    if ((float)low > place) low -= 1;
    Tap tap = {low, low + 1, place - (float)low};
    if (low < 0) tap.low = tap.high = 0, tap.weight = 0.0f;
    if (low >= cells - 1) tap.low = tap.high = cells - 1, tap.weight = 0.0f;
    return tap;
}
