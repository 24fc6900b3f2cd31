// Classes, contours and text into a frame's planes.
#include "common.cuh"

struct Trace {
    int width, height; // of the frame's chroma
    const u8 *labels;
    ChromaDisc inner;             // the disc and
    int left, top, right, bottom; // the view's crop, without their edges: where contours may be
    int core, core_diagonal; // the octagon |dx|, |dy| <= core, |dx| + |dy| <= core_diagonal
    int soft, soft_diagonal;
    int level, unused;
    u8 *map;
};

// The painter's map: a label, lifted by a level where another label lies within the soft octagon, by two within the core's.
KERNEL(trace, Trace) {
    const int own = a.labels[(size_t)y * a.width + x];
    int lift = 0;
    const bool within = x >= a.left && x < a.right && y >= a.top && y < a.bottom;
    if (a.core > 0 && within && in_disc(a.inner, x, y)) {
        const int top = clamped(y - a.soft, 0, a.height - 1), bottom = clamped(y + a.soft, 0, a.height - 1);
        const int left = clamped(x - a.soft, 0, a.width - 1), right = clamped(x + a.soft, 0, a.width - 1);
        for (int v = top; v <= bottom && lift < 2; v++)
            for (int u = left; u <= right && lift < 2; u++) {
                if (a.labels[(size_t)v * a.width + u] == own) continue;
                const int dx = u > x ? u - x : x - u, dy = v > y ? v - y : y - v;
                if (dx <= a.core && dy <= a.core && dx + dy <= a.core_diagonal) lift = 2;
                else if (dx + dy <= a.soft_diagonal && lift < 1) lift = 1;
            }
    }
    a.map[(size_t)y * a.width + x] = (u8)(own + a.level * lift);
}

struct Blend {
    int width, height; // of the frame's chroma
    u8 *luma, *chroma;
    int luma_pitch, chroma_pitch;
    int luma_width, luma_height;
    const u8 *map;
    const u16 *inks; // (4, 256): what to keep of a pixel, and what to add to Y, Cb and Cr, in 256ths
};

DEVICE u8 mixed(int value, int keep, int add) {
    const int sum = value * keep + add;
    return (u8)((sum > 65535 ? 65535 : sum) >> 8);
}

// A value halfway to its neighbors: ninths, thirds and one in 16ths, rounded as a float would be, half to even.
DEVICE int smoothed(int here, int beside, int above, int across) {
    return nearest((float)(9 * here + 3 * beside + 3 * above + across) * 0.0625f);
}

// A chroma sample and its four luma pixels; the palette's steps are smoothed for luma.
KERNEL(blend, Blend) {
    const u16 *keep = a.inks, *add = a.inks + 256;
    int around[9];
    bool bare = true;
    for (int i = 0; i < 9; i++) {
        const int u = clamped(x + i % 3 - 1, 0, a.width - 1), v = clamped(y + i / 3 - 1, 0, a.height - 1);
        around[i] = a.map[(size_t)v * a.width + u];
        bare = bare && keep[around[i]] == 256;
    }
    if (bare) return;
    for (int q = 0; q < 4; q++) {
        const int px = 2 * x + q % 2, py = 2 * y + q / 2;
        if (px >= a.luma_width || py >= a.luma_height) continue;
        const int beside = around[q % 2 ? 5 : 3], above = around[q / 2 ? 7 : 1];
        const int across = around[(q / 2 ? 6 : 0) + (q % 2 ? 2 : 0)];
        u8 *pixel = a.luma + (size_t)py * a.luma_pitch + px;
        *pixel = mixed(*pixel, smoothed(keep[around[4]], keep[beside], keep[above], keep[across]),
                       smoothed(add[around[4]], add[beside], add[above], add[across]));
    }
    u8 *pair = a.chroma + (size_t)y * a.chroma_pitch + 2 * x;
    pair[0] = mixed(pair[0], keep[around[4]], a.inks[512 + around[4]]);
    pair[1] = mixed(pair[1], keep[around[4]], a.inks[768 + around[4]]);
}

// A ready-made patch, such as the legend, on one plane.
struct StampPart {
    u8 *plane;             // where the patch's corner lies
    const u16 *keep, *add; // (height, width)
    int pitch, width, height, unused; // width and height in bytes and lines of the plane
};

struct Stamp {
    int width, height; // the largest width of a part, and all their lines
    StampPart parts[4]; // which do not overlap; those left over have no lines
};

KERNEL(stamp, Stamp) {
    int line = y;
    for (int i = 0; i < 4; i++) {
        const StampPart &part = a.parts[i];
        if (line >= part.height) {
            line -= part.height;
            continue;
        }
        if (x >= part.width) return;
        u8 *pixel = part.plane + (size_t)line * part.pitch + x;
        const size_t here = (size_t)line * part.width + x;
        *pixel = mixed(*pixel, part.keep[here], part.add[here]);
        return;
    }
}
