// The thin shim under which the kernels run on the host: a launch is a loop over blocks and threads.
#pragma once

typedef decltype(sizeof(0)) size_t;

struct Place {
    unsigned x, y, z;
};
static thread_local Place blockIdx, threadIdx, blockDim;

#define DEVICE static inline
// The size of a struct that launches read from memory.
#define SHARED_STRUCT(name, Type) \
    extern "C" int name##_bytes() { return (int)sizeof(Type); }
// For each kernel: NAME_bytes, the size of its arguments; NAME_run, a launch of a grid of blocks.
#define ENTRY(name, Arguments)                                                                          \
    static void name##_thread(const Arguments &a);                                                      \
    extern "C" int name##_bytes() { return (int)sizeof(Arguments); }                                    \
    extern "C" void name##_run(const Arguments *a, unsigned grid_x, unsigned grid_y, unsigned block_x,  \
                               unsigned block_y) {                                                      \
        blockDim = {block_x, block_y, 1};                                                               \
        for (blockIdx.y = 0; blockIdx.y < grid_y; blockIdx.y++)                                         \
            for (blockIdx.x = 0; blockIdx.x < grid_x; blockIdx.x++)                                     \
                for (threadIdx.y = 0; threadIdx.y < block_y; threadIdx.y++)                             \
                    for (threadIdx.x = 0; threadIdx.x < block_x; threadIdx.x++) name##_thread(*a);      \
    }                                                                                                   \
    static void name##_thread(const Arguments &a)

static inline int nearest(float value) { return (int)__builtin_lrintf(value); }
#define expf __builtin_expf

// Threads run one after another.
static inline int atomicMin(int *place, int value) {
    const int before = *place;
    if (value < before) *place = value;
    return before;
}
static inline int atomicAdd(int *place, int value) {
    *place += value;
    return *place - value;
}
