// Normalisation of rows: layer norm, RMS norm, unit length; formulas in kernels/src/norm.rs. x and y are (rows, dim).
//
// A block takes one row at a time, VALUES elements a thread, which stay in registers between the passes over the row:
// memory sees one read and one write. Rows longer than a block holds at once go through it in chunks and are read again.
// Without vectors there are fewer VALUES, since each has an address: 1024 threads have 64 registers each.
#include "prelude.cuh"

typedef TYPE_T T;
constexpr int W = WIDTH;
constexpr int VALUES = W == 1 ? 4 : 8;
constexpr int VECTORS = VALUES / W;
typedef Vec<T, W> VecT;

/// The thread's share of a chunk: vectors a block's width apart, so that neighbouring threads read neighbouring memory.
#define FOR_SHARE(k, i, chunk, dim) \
    _Pragma("unroll") for (int k = 0; k < VECTORS; k++) \
        if (i64 i = (chunk) + i64(k * blockDim.x + threadIdx.x) * W; i < (dim))

#define FOR_CHUNKS(chunk, dim) for (i64 chunk = 0; chunk < (dim); chunk += VALUES * blockDim.x)
/// Whether the row is one chunk, which once loaded stays in registers.
#define ONE_CHUNK(dim) ((dim) <= VALUES * blockDim.x)

/// A thread's elements of a chunk.
struct Share {
    VecT at[VECTORS];

    __device__ void load_from(const T* row, i64 chunk, i64 dim) {
        FOR_SHARE(k, i, chunk, dim) at[k] = load<W>(row + i);
    }
    __device__ float get(int k, int j) const { return widen(at[k].at[j]); }
};

__device__ float row_sum(const T* row, Share& x, i64 dim) {
    float sum = 0;
    FOR_CHUNKS(chunk, dim) {
        x.load_from(row, chunk, dim);
        FOR_SHARE(k, i, chunk, dim) for (int j = 0; j < W; j++) sum += x.get(k, j);
    }
    return block_reduce<Sum>(sum, 0.0f);
}

/// Σ (x − mean)². `loaded` says that x holds the row already, if that is one chunk.
__device__ float row_squares(const T* row, Share& x, i64 dim, float mean, bool loaded) {
    float sum = 0;
    FOR_CHUNKS(chunk, dim) {
        if (!loaded || !ONE_CHUNK(dim)) x.load_from(row, chunk, dim);
        FOR_SHARE(k, i, chunk, dim) for (int j = 0; j < W; j++) {
            float centred = x.get(k, j) - mean;
            sum += centred * centred;
        }
    }
    return block_reduce<Sum>(sum, 0.0f);
}

/// y = (x − mean)·scale·w + b, with w = 1 or b = 0 where they are null.
__device__ void write_row(const T* row, Share& x, i64 dim, float mean, float scale, const T* w, const T* b, T* y) {
    FOR_CHUNKS(chunk, dim) {
        if (!ONE_CHUNK(dim)) x.load_from(row, chunk, dim);
        FOR_SHARE(k, i, chunk, dim) {
            VecT weight, bias, out;
            if (w) weight = load<W>(w + i);
            if (b) bias = load<W>(b + i);
            for (int j = 0; j < W; j++) {
                float value = (x.get(k, j) - mean) * scale;
                if (w) value *= widen(weight.at[j]);
                if (b) value += widen(bias.at[j]);
                out.at[j] = narrow<T>(value);
            }
            store(y + i, out);
        }
    }
}

/// y = (x − mean)·rstd·w + b with rstd = 1/√(avg((x − mean)²) + eps).
extern "C" __global__ void __launch_bounds__(1024)
layer_norm(const T* x, const T* w, const T* b, T* y, float* mean, float* rstd, i64 dim, float eps) {
    const T* row = x + blockIdx.x * dim;
    Share share;
    float m = row_sum(row, share, dim) / dim;
    float r = 1.0f / sqrtf(row_squares(row, share, dim, m, true) / dim + eps);
    write_row(row, share, dim, m, r, w, b, y + blockIdx.x * dim);
    if (threadIdx.x == 0) mean[blockIdx.x] = m, rstd[blockIdx.x] = r;
}
EXPORT_KERNEL(layer_norm)

/// y = x·rstd·w with rstd = 1/√(avg(x²) + eps).
extern "C" __global__ void __launch_bounds__(1024)
rms_norm(const T* x, const T* w, T* y, float* rstd, i64 dim, float eps) {
    const T* row = x + blockIdx.x * dim;
    Share share;
    float r = 1.0f / sqrtf(row_squares(row, share, dim, 0.0f, false) / dim + eps);
    write_row(row, share, dim, 0.0f, r, w, nullptr, y + blockIdx.x * dim);
    if (threadIdx.x == 0) rstd[blockIdx.x] = r;
}
EXPORT_KERNEL(rms_norm)

/// y = x·inverse with inverse = 1/max(‖x‖, eps).
extern "C" __global__ void __launch_bounds__(1024)
l2_normalize(const T* x, T* y, float* inverse, i64 dim, float eps) {
    const T* row = x + blockIdx.x * dim;
    Share share;
    float scale = 1.0f / fmaxf(sqrtf(row_squares(row, share, dim, 0.0f, false)), eps);
    write_row(row, share, dim, 0.0f, scale, nullptr, nullptr, y + blockIdx.x * dim);
    if (threadIdx.x == 0) inverse[blockIdx.x] = scale;
}
EXPORT_KERNEL(l2_normalize)

/// dx = inverse·(dy − y·⟨y, dy⟩).
extern "C" __global__ void __launch_bounds__(1024)
l2_normalize_backward(const T* y, const float* inverse, const T* dy, T* dx, i64 dim) {
    i64 first = blockIdx.x * dim;
    Share sy, sdy;
    float product = 0;
    FOR_CHUNKS(chunk, dim) {
        sy.load_from(y + first, chunk, dim);
        sdy.load_from(dy + first, chunk, dim);
        FOR_SHARE(k, i, chunk, dim) for (int j = 0; j < W; j++) product += sy.get(k, j) * sdy.get(k, j);
    }
    product = block_reduce<Sum>(product, 0.0f);
    FOR_CHUNKS(chunk, dim) {
        if (!ONE_CHUNK(dim)) sy.load_from(y + first, chunk, dim), sdy.load_from(dy + first, chunk, dim);
        FOR_SHARE(k, i, chunk, dim) {
            VecT out;
            for (int j = 0; j < W; j++)
                out.at[j] = narrow<T>(inverse[blockIdx.x] * (sdy.get(k, j) - sy.get(k, j) * product));
            store(dx + first + i, out);
        }
    }
}
EXPORT_KERNEL(l2_normalize_backward)

/// A thread's sums over the rows its block took, one for each of its columns: in registers while rows are one chunk, else
/// in `memory`, which in the end holds them either way.
struct ColumnSums {
    float at[VECTORS][W];
    float* memory;

    __device__ ColumnSums(float* memory, i64 dim) : memory(memory) {
        FOR_CHUNKS(chunk, dim) FOR_SHARE(k, i, chunk, dim) for (int j = 0; j < W; j++) {
            at[k][j] = 0;
            if (!ONE_CHUNK(dim)) memory[i + j] = 0;
        }
    }
    __device__ void add(int k, int j, i64 i, float value, i64 dim) {
        if (ONE_CHUNK(dim)) at[k][j] += value;
        else memory[i + j] += value;
    }
    __device__ void finish(i64 dim) {
        if (!ONE_CHUNK(dim)) return;
        FOR_SHARE(k, i, 0, dim) for (int j = 0; j < W; j++) memory[i + j] = at[k][j];
    }
};

/// The derivative of layer norm (CENTER) and RMS norm. With x̂ = (x − mean)·rstd and g = dy·w:
/// dx = rstd·(g − avg(g) − x̂·avg(g·x̂)), where RMS norm lacks avg(g); dw = Σ dy·x̂ and db = Σ dy over the rows.
///
/// Block b takes rows b, b + gridDim.x, … and leaves its part of dw and db in row b of dw and db (gridDim.x, dim).
template <bool CENTER> __device__ void norm_backward(const T* x, const T* w, const float* mean, const float* rstd, const T* dy,
                                                     T* dx, float* dw, float* db, i64 rows, i64 dim) {
    ColumnSums dw_sums(dw + blockIdx.x * dim, dim), db_sums(CENTER ? db + blockIdx.x * dim : nullptr, CENTER ? dim : 0);
    for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {
        Share sx, sdy;
        float m = CENTER ? mean[r] : 0.0f, scale = rstd[r], sum_g = 0, sum_gx = 0;
        FOR_CHUNKS(chunk, dim) {
            sx.load_from(x + r * dim, chunk, dim);
            sdy.load_from(dy + r * dim, chunk, dim);
            FOR_SHARE(k, i, chunk, dim) {
                VecT weight = load<W>(w + i);
                for (int j = 0; j < W; j++) {
                    float normal = (sx.get(k, j) - m) * scale, d = sdy.get(k, j), g = d * widen(weight.at[j]);
                    sum_g += g;
                    sum_gx += g * normal;
                    dw_sums.add(k, j, i, d * normal, dim);
                    if (CENTER) db_sums.add(k, j, i, d, dim);
                }
            }
        }
        float average_g = CENTER ? block_reduce<Sum>(sum_g, 0.0f) / dim : 0.0f;
        float average_gx = block_reduce<Sum>(sum_gx, 0.0f) / dim;
        FOR_CHUNKS(chunk, dim) {
            if (!ONE_CHUNK(dim)) sx.load_from(x + r * dim, chunk, dim), sdy.load_from(dy + r * dim, chunk, dim);
            FOR_SHARE(k, i, chunk, dim) {
                VecT weight = load<W>(w + i), out;
                for (int j = 0; j < W; j++) {
                    float normal = (sx.get(k, j) - m) * scale, g = sdy.get(k, j) * widen(weight.at[j]);
                    out.at[j] = narrow<T>(scale * (g - average_g - normal * average_gx));
                }
                store(dx + r * dim + i, out);
            }
        }
    }
    dw_sums.finish(dim);
    if (CENTER) db_sums.finish(dim);
}

extern "C" __global__ void __launch_bounds__(1024)
layer_norm_backward(const T* x, const T* w, const float* mean, const float* rstd, const T* dy, T* dx, float* dw, float* db,
                    i64 rows, i64 dim) {
    norm_backward<true>(x, w, mean, rstd, dy, dx, dw, db, rows, dim);
}
EXPORT_KERNEL(layer_norm_backward)

extern "C" __global__ void __launch_bounds__(1024)
rms_norm_backward(const T* x, const T* w, const float* rstd, const T* dy, T* dx, float* dw, i64 rows, i64 dim) {
    norm_backward<false>(x, w, nullptr, rstd, dy, dx, dw, nullptr, rows, dim);
}
EXPORT_KERNEL(rms_norm_backward)
