// From a frame's planes to the network input.
#include "frame.cuh"

struct Prepare {
    int width, height; // of the network input
    const FrameData *frame;
    u8 *image; // (height, width, 3)
};

DEVICE float luma_at(const FrameData &a, int x, int y) {
    const u8 *line = a.luma + (size_t)(a.crop_top + a.luma_y.first[y]) * a.luma_pitch + a.crop_left + a.luma_x.first[x];
    const float *across = a.luma_x.weight + (size_t)x * a.luma_x.taps, *down = a.luma_y.weight + (size_t)y * a.luma_y.taps;
    float sum = 0.0f;
    for (int j = 0; j < a.luma_y.taps; j++, line += a.luma_pitch) {
        if (down[j] == 0.0f) continue;
        float part = 0.0f;
        for (int i = 0; i < a.luma_x.taps; i++)
            if (across[i] != 0.0f) part += across[i] * (float)line[i];
        sum += down[j] * part;
    }
    return sum;
}

DEVICE void chroma_at(const FrameData &a, int x, int y, float &cb, float &cr) {
    const u8 *line = a.chroma + (size_t)(a.crop_top / 2 + a.chroma_y.first[y]) * a.chroma_pitch +
                     2 * (a.crop_left / 2 + a.chroma_x.first[x]);
    const float *across = a.chroma_x.weight + (size_t)x * a.chroma_x.taps;
    const float *down = a.chroma_y.weight + (size_t)y * a.chroma_y.taps;
    cb = cr = 0.0f;
    for (int j = 0; j < a.chroma_y.taps; j++, line += a.chroma_pitch) {
        if (down[j] == 0.0f) continue;
        float blue = 0.0f, red = 0.0f;
        for (int i = 0; i < a.chroma_x.taps; i++) {
            if (across[i] == 0.0f) continue;
            blue += across[i] * (float)line[2 * i];
            red += across[i] * (float)line[2 * i + 1];
        }
        cb += down[j] * blue;
        cr += down[j] * red;
    }
}

// In 256ths, rounded where the reference rounds: an image that differs by one in a value has a label that differs elsewhere.
DEVICE float fine(float value) { return (float)nearest(value * 256.0f); }

KERNEL(prepare, Prepare) {
    const FrameData &f = *a.frame;
    u8 *rgb = a.image + ((size_t)y * a.width + x) * 3;
    rgb[0] = rgb[1] = rgb[2] = 0;
    if (!inside_view(f, x, y, a.width, a.height)) return;
    float cb, cr;
    const float luma = fine(luma_at(f, x - f.placed_left, y - f.placed_top));
    chroma_at(f, x - f.placed_left, y - f.placed_top, cb, cr);
    cb = fine(cb);
    cr = fine(cr);
    for (int c = 0; c < 3; c++) {
        const float *row = f.matrix + 3 * c;
        const float value = row[0] * luma + row[1] * cb + row[2] * cr + f.offset[c] * 256.0f;
        rgb[c] = to_byte((float)clamped(nearest(value), 0, 65535) * (1.0f / 256.0f));
    }
}

struct Narrow {
    int width, height;  // in samples
    const u16 *source;  // ten bits in the upper part of each sample, as NVDEC gives them
    int source_pitch;   // bytes
    int target_pitch;
    u8 *target;
};

// 10 bits to 8, to nearest.
KERNEL(narrow, Narrow) {
    const u16 *line = (const u16 *)((const u8 *)a.source + (size_t)y * a.source_pitch);
    a.target[(size_t)y * a.target_pitch + x] = to_byte((float)(line[x] >> 6) * 0.25f);
}
