// Images as rows of patches; see kernels/src/patch.rs. image is (batch, channels, height, width); patches is (batch,
// height/patch, width/patch, channels, side, side) with windows of side = patch + 2·margin pixels.
//
// Each thread takes W pixels of a line. The launch takes W > 1 only without a margin, where `patch` and `width` are
// multiples of W: the W pixels then lie in one patch and all inside the image.
#include "prelude.cuh"

typedef TYPE_T T;
constexpr int W = WIDTH;
typedef Vec<T, W> VecT;

extern "C" __global__ void unfold(const T* image, T* patches, i64 len, int channels, int height, int width, int patch,
                                  int margin) {
    int side = patch + 2 * margin, rows = height / patch, columns = width / patch;
    for (i64 i = global_thread() * W; i < len; i += global_threads() * W) {
        i64 rest = i / side;
        int x = int(i % side), y = int(rest % side);
        rest /= side;
        int channel = int(rest % channels);
        rest /= channels;
        x += int(rest % columns) * patch - margin;
        rest /= columns;
        y += int(rest % rows) * patch - margin;
        i64 plane = rest / rows * channels + channel;

        VecT pixels = {};
        if (x >= 0 && x < width && y >= 0 && y < height) pixels = load<W>(image + (plane * height + y) * width + x);
        store(patches + i, pixels);
    }
}
EXPORT_KERNEL(unfold)

/// dimage = the sum of dpatches over the windows that hold each pixel, patch by patch in their order.
extern "C" __global__ void fold(const T* dpatches, T* dimage, i64 len, int channels, int height, int width, int patch,
                                int margin) {
    int side = patch + 2 * margin, rows = height / patch, columns = width / patch;
    for (i64 i = global_thread() * W; i < len; i += global_threads() * W) {
        i64 line = i / width, plane = line / height;
        int x = int(i % width), y = int(line % height), channel = int(plane % channels);
        i64 picture = plane / channels;

        // Window r covers the lines from r·patch − margin to r·patch − margin + side − 1; columns alike.
        int first_row = max(0, (y + margin - side + patch) / patch), last_row = min(rows - 1, (y + margin) / patch);
        int first_column = max(0, (x + margin - side + patch) / patch), last_column = min(columns - 1, (x + margin) / patch);
        float sum[W] = {};
        for (int row = first_row; row <= last_row; row++)
            for (int column = first_column; column <= last_column; column++) {
                i64 window = ((picture * rows + row) * columns + column) * channels + channel;
                int top = y + margin - row * patch, left = x + margin - column * patch;
                VecT d = load<W>(dpatches + (window * side + top) * side + left);
                for (int j = 0; j < W; j++) sum[j] += widen(d.at[j]);
            }
        VecT out;
        for (int j = 0; j < W; j++) out.at[j] = narrow<T>(sum[j]);
        store(dimage + i, out);
    }
}
EXPORT_KERNEL(fold)
