// Where the endoscope's image ends, on strips across and down the frame: the evidence for its shape.
#include "frame.cuh"

struct Strips {
    int width, height; // room for the cells of a strip, 2 * strips
    const FrameData *frame;
    int strips, lines; // lines a strip
    float *cells;      // (2 * strips, width)
};

// The brightness of a cell: all its pixels on a strip across, one line of it on a strip down.
KERNEL(strip_cells, Strips) {
    const FrameData &f = *a.frame;
    const bool down = y >= a.strips;
    if (x >= (down ? f.down : f.across)) return;
    const int first = f.first[y];
    int sum = 0;
    if (down) {
        const u8 *line = f.luma + (size_t)(f.cell / 2 + x * f.cell) * f.luma_pitch + first;
        for (int i = 0; i < a.lines; i++) sum += line[i];
        a.cells[(size_t)y * a.width + x] = (float)sum / (float)a.lines;
        return;
    }
    for (int j = 0; j < a.lines; j++)
        for (int i = 0; i < f.cell; i++) sum += f.luma[(size_t)(first + j) * f.luma_pitch + x * f.cell + i];
    a.cells[(size_t)y * a.width + x] = (float)nearest((float)sum * (1.0f / (float)(a.lines * f.cell)));
}

struct Levels {
    int width, height; // room for the cells of a strip, at least 4 * strips; 2 * strips + 1
    const FrameData *frame;
    const float *cells; // (2 * strips, width)
    int strips, unused;
    float *bright; // (2 * strips + 1): the brightness of each strip, then that of the bars
};

DEVICE float outermost(const Levels &a, int i) {
    const int strip = i / 2, count = strip < a.strips ? a.frame->across : a.frame->down;
    if (count < 1) return 0.0f;
    return a.cells[(size_t)strip * a.width + (i % 2 ? count - 1 : 0)];
}

// A strip's brightness is its 90th percentile; the bars' is the 20th of all outermost cells. Found by counting: the value with
// `rank` values below it, ties taken together, is written by whoever has it.
KERNEL(strip_levels, Levels) {
    const bool bars = y == 2 * a.strips;
    const int count = bars ? 4 * a.strips : y < a.strips ? a.frame->across : a.frame->down;
    if (x >= count) return;
    const int rank = bars ? count / 5 : count * 9 / 10;
    const float *cells = a.cells + (size_t)(bars ? 0 : y) * a.width;
    const float own = bars ? outermost(a, x) : cells[x];
    int below = 0, equal = 0;
    for (int i = 0; i < count; i++) {
        const float other = bars ? outermost(a, i) : cells[i];
        below += other < own;
        equal += other == own;
    }
    if (rank < below || rank >= below + equal) return;
    a.bright[y] = !bars ? own : own < a.frame->lowest ? a.frame->lowest : own > a.frame->highest ? a.frame->highest : own;
}

struct EndsOf {
    int width, height; // 4: (two ends, two thresholds); 2 * strips
    const FrameData *frame;
    const float *cells, *bright; // (2 * strips, stride), (2 * strips + 1)
    int strips, stride;
    float share, rise;
    double *distances; // (2 * strips, 4)
};

// How far from an end of a strip the image begins, in pixels: at the first of three cells above the threshold in a row. -1: nowhere.
KERNEL(strip_ends, EndsOf) {
    const int count = y < a.strips ? a.frame->across : a.frame->down;
    const float *cells = a.cells + (size_t)y * a.stride;
    const float black = a.bright[2 * a.strips];
    double rise = x % 2 ? (double)((a.bright[y] - black) * a.share) : 0.0;
    if (rise < (double)a.rise) rise = (double)a.rise;
    const double threshold = (double)black + rise;
    double distance = -1.0;
    for (int i = 0, run = 0; i < count; i++) {
        const int start = i - 2;
        run = (double)cells[x / 2 ? count - 1 - i : i] > threshold ? run + 1 : 0;
        if (run < 3) continue;
        distance = 0.0;
        if (start > 0) {
            const float inside = cells[x / 2 ? count - 1 - start : start];
            const float outside = cells[x / 2 ? count - start : start - 1];
            float step = inside - outside;
            if (step < 1e-3f) step = 1e-3f;
            double crossing = (threshold - (double)outside) / (double)step;
            crossing = crossing < 0.0 ? 0.0 : crossing > 1.0 ? 1.0 : crossing;
            distance = ((double)start - 0.5 + crossing) * (double)a.frame->cell;
        }
        break;
    }
    a.distances[(size_t)y * 4 + x] = distance;
}
