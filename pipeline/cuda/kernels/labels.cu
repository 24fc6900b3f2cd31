// From logits to labels: on the network's grid, then at the size of the frame's chroma.
#include "frame.cuh"
#include "regions.cu"

struct Classify {
    int width, height; // of the grid
    const float *logits;
    int classes;
    float share;            // a part with less of the probability of all parts is unsure
    u64 parts;              // bit k: class k is a part of an instrument; 0: no part is ever unsure
    const FrameData *frame; // its probabilities, labels and present are written
    float *confidence;
    Regions regions; // with a rule, the probabilities are written already, by `mark_cells`
};

// The union of unsure parts, one more class: see `merge_unsure` of the CPU. Behind it each part keeps what it had. Returns whether
// the parts of this cell are unsure.
DEVICE bool merge_parts(const Classify &a, float *chances, size_t plane) {
    float *kept = chances + (a.classes + 1) * plane, total = 0.0f, largest = 0.0f;
    int count = 0;
    for (int k = 0; k < a.classes; k++) {
        if (!(a.parts >> k & 1)) continue;
        const float chance = chances[k * plane];
        kept[count++ * plane] = chance;
        total += chance;
        if (chance > largest) largest = chance;
    }
    const bool unsure = largest < a.share * total;
    chances[a.classes * plane] = unsure ? largest : 0.0f;
    for (int k = 0; k < a.classes && unsure; k++)
        if (a.parts >> k & 1) chances[k * plane] = (total - largest) / (float)count;
    return unsure;
}

// The probabilities, the winner (0 outside the image), its probability, and which classes win anywhere in the image.
KERNEL(classify, Classify) {
    const size_t plane = (size_t)a.width * a.height, here = (size_t)y * a.width + x;
    const FrameData &f = *a.frame;
    float *chances = f.probabilities + here;
    if (a.regions.members)
        decide_instruments(a.regions, here, chances, a.classes, plane);
    else
        softmax(a.logits + here, chances, a.classes, plane);
    int best = 0;
    for (int k = 1; k < a.classes; k++)
        if (chances[k * plane] > chances[best * plane]) best = k;
    const bool inside = inside_view(f, x, y, a.width, a.height);
    a.confidence[here] = inside ? chances[best * plane] : 0.0f;
    int label = inside ? best : 0;
    if (a.parts && merge_parts(a, chances, plane) && (a.parts >> label & 1)) label = a.classes;
    f.labels[here] = (u8)label;
    // All who write here write the same.
    if (x >= f.touched_left && x < f.touched_right && y >= f.touched_top && y < f.touched_bottom) f.present[label] = 1;
}

struct Count {
    int width, height; // classes + 2, lines of the grid
    const FrameData *frame;
    const float *confidence;
    int columns, unused;
    float *lines; // (lines, classes + 2)
};

// Cells of each class in each line; in the last two columns the sum of confidences and the cells inside the image.
KERNEL(count_lines, Count) {
    const size_t start = (size_t)y * a.columns;
    float sum = 0.0f;
    for (int i = 0; i < a.columns; i++) {
        const float confidence = a.confidence[start + i];
        sum += x == a.width - 1 ? (float)(confidence > 0.0f) : x == a.width - 2 ? confidence : (float)(a.frame->labels[start + i] == x);
    }
    a.lines[(size_t)y * a.width + x] = sum;
}

struct Total {
    int width, height; // classes + 2, 1
    const float *lines;
    int count, unused;
    float *totals;
};

KERNEL(total, Total) {
    float sum = 0.0f;
    for (int i = y; i < a.count; i++) sum += a.lines[(size_t)i * a.width + x];
    a.totals[x] = sum;
}

struct Upsample {
    int width, height; // of the frame's chroma
    const float *probabilities;
    const u8 *present;
    int classes, rows, columns; // of the grid
    int cells_left, cells_top, cells_wide, cells_high;
    int target_left, target_top, target_wide, target_high; // where the image lies in the chroma
    int part_left, part_top;                               // the target's corner in the cells scaled whole
    int unused;
    double step_x, step_y; // cells a pixel
    ChromaDisc disc;
    u8 *labels;
};

// 65,535ths, as the reference has them.
DEVICE float quantised(float probability) { return (float)nearest(probability * 65535.0f); }

// The class whose probability, scaled up bilinearly, is the largest; of equals the lowest; of those that win anywhere.
KERNEL(upsample, Upsample) {
    u8 *label = a.labels + (size_t)y * a.width + x;
    const int i = x - a.target_left, j = y - a.target_top;
    *label = 0;
    if (i < 0 || j < 0 || i >= a.target_wide || j >= a.target_high || !in_disc(a.disc, x, y)) return;
    const Tap across = linear_tap(i + a.part_left, a.step_x, a.cells_wide);
    const Tap down = linear_tap(j + a.part_top, a.step_y, a.cells_high);
    const float *corner = a.probabilities + (size_t)a.cells_top * a.columns + a.cells_left;
    int best = -1, largest = 0;
    for (int k = 0; k < a.classes; k++) {
        if (!a.present[k]) continue;
        const float *upper = corner + ((size_t)k * a.rows + down.low) * a.columns;
        const float *lower = corner + ((size_t)k * a.rows + down.high) * a.columns;
        const float over = quantised(upper[across.low]) * (1.0f - across.weight) + quantised(upper[across.high]) * across.weight;
        const float under = quantised(lower[across.low]) * (1.0f - across.weight) + quantised(lower[across.high]) * across.weight;
        const int value = nearest(over * (1.0f - down.weight) + under * down.weight);
        if (best < 0 || value > largest) best = k, largest = value;
    }
    *label = (u8)(best < 0 ? 0 : best);
}
