// What changes from frame to frame. It lies in the device's memory, so that a captured launch reads what was sent before its replay.
#pragma once
#include "common.cuh"

// The taps of every output pixel along one axis: `taps` weights from source pixel first[i] on. They shrink without aliasing.
struct Axis {
    const int *first;
    const float *weight;
    int taps;
    int unused;
};

// How the grid lies to the last frame's: source column = scale_x * column + shift_x, lines likewise.
struct Warp {
    float scale_x, shift_x, scale_y, shift_y;
};

// The endoscope's disc on the frame: column x of the network input lies at scale_x * x + shift_x, lines likewise.
struct Disc {
    double scale_x, shift_x, center_x, scale_y, shift_y, center_y;
    double squared; // of the radius
    int present, unused;
};

struct FrameData {
    const u8 *luma, *chroma;
    float *probabilities; // what is written: the results of this frame
    u8 *labels, *present;
    int luma_pitch, chroma_pitch; // bytes from line to line
    int crop_left, crop_top; // of the view, in luma pixels, even
    int placed_left, placed_top, placed_width, placed_height; // where the crop lies in the network input
    int network_width, network_height;
    Axis luma_x, luma_y, chroma_x, chroma_y;
    float matrix[9], offset[3];
    Warp warp;
    Disc disc;
    int touched_left, touched_top, touched_right, touched_bottom; // cells of the grid that the view touches
    int across, down, cell, unused;                               // cells of a strip across and down, pixels a cell
    float lowest, highest;                                        // brightness that bars may have
    int first[32];                                                // first line of each strip across, first column of each down
};

SHARED_STRUCT(frame_data, FrameData)

// Whether a pixel of a grid of width by height over the network input lies in the endoscope's image, by its center.
DEVICE bool inside_view(const FrameData &f, int x, int y, int width, int height) {
    const double u = ((double)x + 0.5) * (double)f.network_width / (double)width;
    const double v = ((double)y + 0.5) * (double)f.network_height / (double)height;
    if (u < f.placed_left || u >= f.placed_left + f.placed_width) return false;
    if (v < f.placed_top || v >= f.placed_top + f.placed_height) return false;
    if (!f.disc.present) return true;
    const double dx = u * f.disc.scale_x + f.disc.shift_x - f.disc.center_x;
    const double dy = v * f.disc.scale_y + f.disc.shift_y - f.disc.center_y;
    return dx * dx + dy * dy <= f.disc.squared;
}
