// Where the endoscope's picture ends, on strips across and down the frame: the evidence for its shape.
#include "common.cuh"

struct Strips {
    int width, height; // cells of the longer kind of strip, 2 * strips
    const u8 *luma;
    int pitch, strips;
    int across, down, cell, lines; // cells of a strip across and down, pixels a cell, lines a strip
    const int *first;              // (2 * strips): first line of each strip, first column of each
    float *cells;                  // (2 * strips, width)
};

// The brightness of a cell: all its pixels on a strip across, one line of it on a strip down.
KERNEL(strip_cells, Strips) {
    const bool down = y >= a.strips;
    if (x >= (down ? a.down : a.across)) return;
    const int first = a.first[y];
    int sum = 0;
    if (down) {
        const u8 *line = a.luma + (size_t)(a.cell / 2 + x * a.cell) * a.pitch + first;
        for (int i = 0; i < a.lines; i++) sum += line[i];
        a.cells[(size_t)y * a.width + x] = (float)sum / (float)a.lines;
        return;
    }
    for (int j = 0; j < a.lines; j++)
        for (int i = 0; i < a.cell; i++) sum += a.luma[(size_t)(first + j) * a.pitch + x * a.cell + i];
    a.cells[(size_t)y * a.width + x] = (float)nearest((float)sum * (1.0f / (float)(a.lines * a.cell)));
}

struct Levels {
    int width, height; // cells of the longer kind of strip or 4 * strips, whichever is more; 2 * strips + 1
    const float *cells;
    int strips, across, down, stride;
    float lowest, highest; // what the bars may be
    float *bright;         // (2 * strips + 1): the brightness of each strip, then that of the bars
};

DEVICE float outermost(const Levels &a, int i) {
    const int strip = i / 2, count = strip < a.strips ? a.across : a.down;
    return a.cells[(size_t)strip * a.stride + (i % 2 ? count - 1 : 0)];
}

// A strip's brightness is its 90th percentile; the bars' is the 20th of all outermost cells. Found by counting: the value with
// `rank` values below it, ties taken together, is written by whoever has it.
KERNEL(strip_levels, Levels) {
    const bool bars = y == 2 * a.strips;
    const int count = bars ? 4 * a.strips : y < a.strips ? a.across : a.down;
    if (x >= count) return;
    const int rank = bars ? count / 5 : count * 9 / 10;
    const float *cells = a.cells + (size_t)(bars ? 0 : y) * a.stride;
    const float own = bars ? outermost(a, x) : cells[x];
    int below = 0, equal = 0;
    for (int i = 0; i < count; i++) {
        const float other = bars ? outermost(a, i) : cells[i];
        below += other < own;
        equal += other == own;
    }
    if (rank < below || rank >= below + equal) return;
    a.bright[y] = !bars ? own : own < a.lowest ? a.lowest : own > a.highest ? a.highest : own;
}

struct EndsOf {
    int width, height; // 4: (two ends, two thresholds); 2 * strips
    const float *cells, *bright;
    int strips, across, down, stride, cell, unused;
    float share, rise;
    double *distances; // (2 * strips, 4)
};

// How far from an end of a strip the picture begins, in pixels: at the first of three cells above the threshold in a row. -1: nowhere.
KERNEL(strip_ends, EndsOf) {
    const int count = y < a.strips ? a.across : a.down;
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
            distance = ((double)start - 0.5 + crossing) * (double)a.cell;
        }
        break;
    }
    a.distances[(size_t)y * 4 + x] = distance;
}
