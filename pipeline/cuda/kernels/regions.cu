// What is instrument, decided for connected regions of cells: see `InstrumentRegions` of the CPU. Each kernel is one step:
// `mark_cells`, `join_cells`, `measure_regions`, then `decide_instruments` in the kernel that labels the cells.
#pragma once
#include "frame.cuh"

struct Regions {
    u64 members, others; // bit k: class k is an instrument; background or tissue. No members: each cell has its likeliest class
    float odds;          // a cell is marked where odds * the probability of instruments exceeds that of the others
    int least;           // cells of the smallest region
    int *roots;          // the first cell of each cell's region, or a cell nearer to it; -1 for a cell that is not marked
    int *sizes;          // cells of a region, at its first cell
};

// The sum and the largest of a cell's probabilities of some classes.
struct Group {
    float total, largest;
};

DEVICE Group group_of(u64 members, const float *chances, int classes, size_t plane) {
    Group group = {0.0f, 0.0f};
    for (int k = 0; k < classes; k++) {
        if (!(members >> k & 1)) continue;
        const float chance = chances[k * plane];
        group.total += chance;
        if (chance > group.largest) group.largest = chance;
    }
    return group;
}

DEVICE void softmax(const float *logits, float *chances, int classes, size_t plane) {
    float largest = logits[0], sum = 0.0f;
    for (int k = 1; k < classes; k++)
        if (logits[k * plane] > largest) largest = logits[k * plane];
    for (int k = 0; k < classes; k++) sum += expf(logits[k * plane] - largest);
    for (int k = 0; k < classes; k++) chances[k * plane] = expf(logits[k * plane] - largest) / sum;
}

struct MarkCells {
    int width, height; // of the grid
    const float *logits;
    int classes, unused;
    const FrameData *frame; // its probabilities are written
    Regions regions;
};

KERNEL(mark_cells, MarkCells) {
    const size_t plane = (size_t)a.width * a.height;
    const int here = y * a.width + x;
    float *chances = a.frame->probabilities + here;
    softmax(a.logits + here, chances, a.classes, plane);
    const float ours = group_of(a.regions.members, chances, a.classes, plane).total;
    const float rest = group_of(a.regions.others, chances, a.classes, plane).total;
    const bool marked = a.regions.odds * ours > rest && inside_view(*a.frame, x, y, a.width, a.height);
    a.regions.roots[here] = marked ? here : -1;
    a.regions.sizes[here] = 0;
}

// Cells only ever get a root nearer to the first cell, so that one that is read too early is still of the same region.
DEVICE int root_of(const volatile int *roots, int cell) {
    for (int next = roots[cell]; next != cell; next = roots[cell]) cell = next;
    return cell;
}

// Makes two regions one, while others do the same.
DEVICE void join(int *roots, int one, int other) {
    for (;;) {
        one = root_of(roots, one), other = root_of(roots, other);
        if (one == other) return;
        const int first = one < other ? one : other, last = one < other ? other : one;
        const int before = atomicMin(roots + last, first);
        if (before == last) return;
        one = before, other = first;
    }
}

struct JoinCells {
    int width, height; // of the grid
    int *roots;
};

// Each marked cell and those of its eight neighbours that lie before it.
KERNEL(join_cells, JoinCells) {
    const int here = y * a.width + x;
    if (a.roots[here] < 0) return;
    for (int k = 0; k < 4; k++) {
        const int i = k < 3 ? x + k - 1 : x - 1, j = k < 3 ? y - 1 : y;
        if (i < 0 || j < 0 || i >= a.width || a.roots[j * a.width + i] < 0) continue;
        join(a.roots, here, j * a.width + i);
    }
}

struct MeasureRegions {
    int width, height; // of the grid
    int *roots, *sizes;
};

KERNEL(measure_regions, MeasureRegions) {
    const int here = y * a.width + x;
    if (a.roots[here] < 0) return;
    const int root = root_of(a.roots, here);
    a.roots[here] = root;
    atomicAdd(a.sizes + root, 1);
}

// Smaller probabilities are rounding errors.
DEVICE float at_least_tiny(float probability) { return probability > 1e-9f ? probability : 1e-9f; }

// A cell's probabilities, changed so that the largest is that of the class decided on.
DEVICE void decide_instruments(const Regions &a, size_t here, float *chances, int classes, size_t plane) {
    const int root = a.roots[here];
    const bool found = root >= 0 && a.sizes[root] >= a.least;
    const Group ours = group_of(a.members, chances, classes, plane), rest = group_of(a.others, chances, classes, plane);
    float factor = a.odds * ours.total / at_least_tiny(ours.largest) * (rest.largest / at_least_tiny(rest.total)), sum = 0.0f;
    if (root >= 0 && !found) factor = 0.0f;
    for (int k = 0; k < classes; k++) {
        float &chance = chances[k * plane];
        if (!found && a.members >> k & 1) chance *= factor;
        if (found && a.others >> k & 1) chance /= at_least_tiny(factor);
        sum += chance;
    }
    for (int k = 0; k < classes; k++) chances[k * plane] /= sum;
}
