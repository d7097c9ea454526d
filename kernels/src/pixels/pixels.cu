// Images from bytes to the numbers an encoder reads; see kernels/src/pixels.rs.
//
// Each thread takes W neighbouring pixels, all three colours: their bytes lie together, their numbers in three planes. In
// double, as on the CPU: there is little of it beside an encoder's work.
#include "prelude.cuh"

typedef TYPE_T T;
constexpr int W = WIDTH;

/// bytes (images, area, 3), out (images, 3, area), `pixels` = images·area.
extern "C" __global__ void normalise(const u8* bytes, T* out, i64 pixels, i64 area, double r, double g, double b,
                                     double r_deviation, double g_deviation, double b_deviation) {
    double mean[3] = {r, g, b}, deviation[3] = {r_deviation, g_deviation, b_deviation};
    for (i64 i = global_thread() * W; i < pixels; i += global_threads() * W) {
        Vec<u8, W> part[3];
#pragma unroll
        for (int j = 0; j < 3; j++) part[j] = load<W>(bytes + 3 * i + j * W);
#pragma unroll
        for (int colour = 0; colour < 3; colour++) {
            Vec<T, W> numbers;
#pragma unroll
            for (int j = 0; j < W; j++) {
                int place = 3 * j + colour;
                double byte = part[place / W].at[place % W];
                numbers.at[j] = narrow<T>(float((byte / 255.0 - mean[colour]) / deviation[colour]));
            }
            store(out + (i / area * 3 + colour) * area + i % area, numbers);
        }
    }
}
EXPORT_KERNEL(normalise)
