// A number written into a frame's luma as black and white blocks: how a benchmark knows which frame came out.
#include "common.cuh"

struct CodeWrite {
    int width, height; // block * bits, block
    u8 *luma;          // the code's corner
    int pitch, block;
    const u8 *bits;
    int dark, light;
};

KERNEL(code_write, CodeWrite) {
    a.luma[(size_t)y * a.pitch + x] = (u8)(a.bits[x / a.block] ? a.light : a.dark);
}

struct CodeRead {
    int width, height; // bits, 1
    const u8 *luma;
    int pitch, block;
    u8 *bits;
    int threshold, unused;
};

// A bit is the mean of the inner half of its block: what a codec smears lies at the edges.
KERNEL(code_read, CodeRead) {
    const int margin = a.block / 4, inner = a.block - 2 * margin;
    int sum = 0;
    for (int j = margin + y; j < margin + inner; j++)
        for (int i = margin; i < margin + inner; i++) sum += a.luma[(size_t)j * a.pitch + x * a.block + i];
    a.bits[x] = (u8)(sum > a.threshold * inner * inner);
}
