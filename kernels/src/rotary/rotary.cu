// Rotary position embedding; see kernels/src/rotary.rs. x and y are (tokens, heads, 2·half).
#include "prelude.cuh"

typedef TYPE_T T;
constexpr int W = WIDTH;
typedef Vec<T, W> VecT;

/// sin and cos of an angle, to about 1e-7 for angles up to 1e9. CUDA's own keep a table in local memory for large angles.
///
/// The angle is reduced to r in ±π/4 and a number of quarter turns, in double since angles reach many turns; there the
/// polynomials are those of Cephes' sinf and cosf. Quarter turns swap sine and cosine and turn signs.
__device__ inline void sine_cosine(float angle, float& sine, float& cosine) {
    double turns = rint(double(angle) * 0.63661977236758134);
    float r = float(fma(turns, -1.5707963267948966, double(angle))), r2 = r * r;
    float s = r + r * r2 * (-1.6666654611e-1f + r2 * (8.3321608736e-3f - r2 * 1.9515295891e-4f));
    float c = 1.0f - 0.5f * r2 + r2 * r2 * (4.166664568298827e-2f + r2 * (-1.388731625493765e-3f + r2 * 2.443315711809948e-5f));
    i64 quarter = i64(turns) & 3;
    sine = quarter & 1 ? c : s;
    cosine = quarter & 1 ? s : c;
    if (quarter & 2) sine = -sine;
    if (quarter == 1 || quarter == 2) cosine = -cosine;
}

/// Rotates the pairs (x[i], x[i + half]) of every head by positions[token] · inv_freq[i], times −1 for the derivative:
/// (a, b) → (a·cos − b·sin, b·cos + a·sin). A thread takes W pairs and goes through the heads with the same angles.
extern "C" __global__ void rotary(const T* x, const int* positions, const float* inv_freq, T* y, i64 tokens, int heads,
                                  int half, float direction) {
    i64 pairs = tokens * half;
    for (i64 pair = global_thread() * W; pair < pairs; pair += global_threads() * W) {
        i64 token = pair / half;
        int i = int(pair % half);
        float sine[W], cosine[W];
        for (int j = 0; j < W; j++) {
            sine_cosine(float(positions[token]) * inv_freq[i + j], sine[j], cosine[j]);
            sine[j] *= direction;
        }
        for (int head = 0; head < heads; head++) {
            i64 first = (token * heads + head) * 2 * half + i;
            VecT a = load<W>(x + first), b = load<W>(x + first + half);
            for (int j = 0; j < W; j++) {
                float left = widen(a.at[j]), right = widen(b.at[j]);
                a.at[j] = narrow<T>(left * cosine[j] - right * sine[j]);
                b.at[j] = narrow<T>(right * cosine[j] + left * sine[j]);
            }
            store(y + first, a);
            store(y + first + half, b);
        }
    }
}
EXPORT_KERNEL(rotary)
