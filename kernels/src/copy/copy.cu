// Copies of strided blocks; see kernels/src/copy.rs.
#include "prelude.cuh"

typedef TYPE_T T;
constexpr int W = WIDTH;

/// Element i of all blocks counted through: i % block of block i / block.
struct Strided {
    i64 block, stride, offset;
    __device__ i64 place(i64 i) const { return i / block * stride + i % block + offset; }
};

/// dst = src block by block. Bits are moved, so T stands for any type of its size.
extern "C" __global__ void copy_blocks(const T* src, T* dst, i64 len, i64 block, i64 src_stride, i64 src_offset,
                                       i64 dst_stride, i64 dst_offset) {
    Strided from = {block, src_stride, src_offset}, to = {block, dst_stride, dst_offset};
    for (i64 i = global_thread() * W; i < len; i += global_threads() * W)
        store(dst + to.place(i), load<W>(src + from.place(i)));
}
EXPORT_KERNEL(copy_blocks)

/// dst += src block by block.
extern "C" __global__ void add_blocks(const T* src, T* dst, i64 len, i64 block, i64 src_stride, i64 src_offset,
                                      i64 dst_stride, i64 dst_offset) {
    Strided from = {block, src_stride, src_offset}, to = {block, dst_stride, dst_offset};
    for (i64 i = global_thread() * W; i < len; i += global_threads() * W) {
        Vec<T, W> a = load<W>(src + from.place(i)), b = load<W>(dst + to.place(i));
        for (int j = 0; j < W; j++) b.at[j] = narrow<T>(widen(b.at[j]) + widen(a.at[j]));
        store(dst + to.place(i), b);
    }
}
EXPORT_KERNEL(add_blocks)
