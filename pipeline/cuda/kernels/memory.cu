// What passes from frame to frame, and from one refinement step to the next, without the host.
#include "frame.cuh"

// The refinement loop so far.
struct State {
    float moved; // share of cells that the last step changed
    int steps, settled, unused;
};

struct CutRows {
    int width, height; // rows of the thumb, 1
    const u8 *image; // (rows * stride or less, image_width, 3)
    int image_width, columns, stride, unused;
    u8 *thumb; // (rows, columns, 3), the last image's; this one's afterwards
    u32 *sums; // (rows): absolute differences
};

// Every `stride`-th pixel of the network input against that of the last frame, a thread a row.
KERNEL(cut_rows, CutRows) {
    const u8 *line = a.image + (size_t)x * a.stride * a.image_width * 3;
    u8 *last = a.thumb + (size_t)x * a.columns * 3;
    u32 sum = 0;
    for (int i = 0; i < a.columns; i++)
        for (int c = 0; c < 3; c++) {
            const int now = line[(size_t)i * a.stride * 3 + c], before = last[3 * i + c];
            sum += (u32)(now > before ? now - before : before - now);
            last[3 * i + c] = (u8)now;
        }
    a.sums[x] = sum + (u32)y;
}

struct Begin {
    int width, height; // 1, 1
    const u32 *sums;
    int rows, classes;
    float most; // the sum above which this is another shot
    int unused;
    int *fresh;    // 1: nothing is remembered
    int *cut;      // 1: the prior is this frame's own base
    const FrameData *frame; // its `present`, (classes), is cleared
};

KERNEL(begin, Begin) {
    float sum = 0.0f;
    for (int i = x; i < a.rows; i++) sum += (float)a.sums[i];
    *a.cut = *a.fresh || sum > a.most;
    *a.fresh = 0;
    for (int k = y; k < a.classes; k++) a.frame->present[k] = 0;
}

struct Recall {
    int width, height; // cells of the grid in a line, and classes * lines
    const float *base, *last;
    const FrameData *frame;
    const int *cut;
    int lines, unused;
    float *prior;
};

DEVICE float between(float low, float high, float weight) { return low * (1.0f - weight) + high * weight; }

// The last frame's logits, moved to where they lie now; edges repeated. After a cut, the base.
KERNEL(recall, Recall) {
    const size_t here = (size_t)y * a.width + x;
    if (*a.cut) {
        a.prior[here] = a.base[here];
        return;
    }
    const int line = y % a.lines;
    const float *plane = a.last + (size_t)(y - line) * a.width;
    const Warp &warp = a.frame->warp;
    const float u = warp.scale_x * (float)x + warp.shift_x, v = warp.scale_y * (float)line + warp.shift_y;
    int left = (int)u, top = (int)v;
    if ((float)left > u) left -= 1;
    if ((float)top > v) top -= 1;
    const float *upper = plane + (size_t)clamped(top, 0, a.lines - 1) * a.width;
    const float *lower = plane + (size_t)clamped(top + 1, 0, a.lines - 1) * a.width;
    const int near = clamped(left, 0, a.width - 1), far = clamped(left + 1, 0, a.width - 1);
    const float across = u - (float)left;
    a.prior[here] = between(between(upper[near], upper[far], across), between(lower[near], lower[far], across), v - (float)top);
}

struct Advance {
    int width, height; // numbers of a set of logits, 1
    const float *refined, *moved;
    const State *before;
    State *after;
    float settled; // share of moved cells below which a further step is not worth its time
    int unused;
    float *logits;
};

// Takes a step's result, unless an earlier step has settled the mask.
KERNEL(advance, Advance) {
    const State before = *a.before;
    if (!before.settled) a.logits[x] = a.refined[x];
    if (x + y > 0) return;
    State after = before;
    if (!before.settled) {
        after.steps += 1;
        after.moved = *a.moved;
        after.settled = *a.moved < a.settled;
    }
    *a.after = after;
}
