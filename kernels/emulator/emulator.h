// CUDA C++ for the host's compiler: what a kernel's source may use, mapped onto the emulator.
//
// A block's threads are fibers on one thread of the host. Each runs until it has to wait; barriers, shuffles and matrix
// instructions are carried out for a whole warp by the last lane to arrive. See emulator.cpp.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__ __restrict
#define __launch_bounds__(...)

namespace emu {

struct Dim {
    unsigned x, y, z;
};

/// Where in a kernel's source something happens.
struct Place {
    const char* file;
    int line;
};
#define EMU_PLACE emu::Place place = {__builtin_FILE(), __builtin_LINE()}

/// What a fiber knows of itself; it lies at the bottom of the fiber's stack, whose size is its alignment.
struct Self {
    Dim thread, block, block_size, grid_size;
};
constexpr size_t STACK = 64 << 10;
inline const Self& self() {
    return *reinterpret_cast<const Self*>(reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) & ~(STACK - 1));
}

/// Memory shared by the block: static memory is known by the address of a variable that its declaration owns.
void* shared_static(const void* declaration, size_t bytes, size_t align, Place place);
void* shared_dynamic();

void block_barrier(Place place);
void named_barrier(unsigned id, unsigned threads, Place place);

/// Something a warp does together. Every lane of `mask` brings an operand; the last one to arrive executes for all.
typedef void (*Together)(void* const* operands, unsigned mask, void* context);
void together(const char* what, unsigned mask, void* operand, Together execute, void* context, Place place);

/// An operand of a shuffle: the lane's value and where it reads.
struct Shuffle {
    uint64_t value;
    int source;
};
void warp_barrier(unsigned mask, Place place);
void shuffle(const char* what, unsigned mask, Shuffle& operand, Place place);
unsigned ballot(unsigned mask, bool predicate, Place place);

void copy_async(void* to, const void* from, unsigned bytes, unsigned valid, EMU_PLACE);
void copy_async_commit();
void copy_async_wait(unsigned groups);

void mbarrier_init(void* at, unsigned count, Place place);
void mbarrier_invalidate(void* at, Place place);
void mbarrier_arrive(void* at, Place place);
void mbarrier_arrive_expect(void* at, unsigned bytes, Place place);
void mbarrier_wait(void* at, unsigned parity, Place place);
void fence_mbarrier_init();
void fence_proxy_async();
void bulk_load(void* to, const void* from, unsigned bytes, void* mbarrier, Place place);
void bulk_store(void* to, const void* from, unsigned bytes, Place place);
void bulk_commit();
/// `read_only`: waits for the sources to have been read alone.
void bulk_wait(unsigned groups, bool read_only);

void load_matrix(uint32_t* registers, int matrices, const void* row, bool transposed, EMU_PLACE);
void mma_bf16(float* d, const uint32_t* a, const uint32_t* b, EMU_PLACE);
void mma_tf32(float* d, const uint32_t* a, const uint32_t* b, EMU_PLACE);

uint32_t pack_bf16(float low, float high);
uint32_t pack_f16(float low, float high);
float f16_to_float(uint16_t bits);
uint32_t to_tf32(float x);

/// Ends the launch with an error.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// One kernel of a compiled source, found by its symbol `kernel_<name>`.
struct Kernel {
    /// Calls the kernel with the arguments `arguments[i]` point to.
    void (*call)(void* const* arguments);
    /// One letter per argument: p a pointer, i and I 32- and 64-bit integers, f and d floating point, s a struct.
    const char* signature;
    /// The size of each in bytes.
    const unsigned* sizes;
};

template <typename T> constexpr char letter() {
    if (__is_class(T)) return 's';
    if (__is_same(T, float)) return 'f';
    if (__is_same(T, double)) return 'd';
    return sizeof(T) == 8 ? 'I' : 'i';
}
template <typename T> struct Letter {
    static constexpr char value = letter<T>();
};
template <typename T> struct Letter<T*> {
    static constexpr char value = 'p';
};

template <size_t... I> struct Indices {};
template <size_t N, size_t... I> struct Count : Count<N - 1, N - 1, I...> {};
template <size_t... I> struct Count<0, I...> {
    typedef Indices<I...> type;
};

template <typename F, F function> struct Thunk;
template <typename... A, void (*function)(A...)> struct Thunk<void (*)(A...), function> {
    // Arguments are the host's memory, none the checker knows.
    template <size_t... I> __attribute__((no_sanitize("thread"))) static void apply(void* const* arguments, Indices<I...>) {
        function(*static_cast<A*>(arguments[I])...);
    }
    static void call(void* const* arguments) { apply(arguments, typename Count<sizeof...(A)>::type()); }
    static constexpr char signature[] = {Letter<A>::value..., 0};
    static constexpr unsigned sizes[] = {sizeof(A)..., 0};
};

}  // namespace emu

#define EXPORT_KERNEL(name)                                                                              \
    extern "C" __attribute__((visibility("default"))) const emu::Kernel kernel_##name;                   \
    const emu::Kernel kernel_##name = {emu::Thunk<decltype(&name), &name>::call,                         \
                                       emu::Thunk<decltype(&name), &name>::signature,                    \
                                       emu::Thunk<decltype(&name), &name>::sizes};

#define SMEM_STATIC(T, name, dims)                                                                       \
    static const char name##_declaration = 0;                                                            \
    typedef T name##_type dims;                                                                          \
    name##_type& name = *static_cast<name##_type*>(emu::shared_static(                                   \
        &name##_declaration, sizeof(name##_type), alignof(T) > 16 ? alignof(T) : 16, {__FILE__, __LINE__}))
#define SMEM_DYNAMIC(T, name) T* name = static_cast<T*>(emu::shared_dynamic())

#define threadIdx (emu::self().thread)
#define blockIdx (emu::self().block)
#define blockDim (emu::self().block_size)
#define gridDim (emu::self().grid_size)

inline void __syncthreads(EMU_PLACE) { emu::block_barrier(place); }
inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_PLACE) {
    emu::warp_barrier(mask, place);
}
inline unsigned __ballot_sync(unsigned mask, bool predicate, EMU_PLACE) { return emu::ballot(mask, predicate, place); }
inline bool __any_sync(unsigned mask, bool predicate, EMU_PLACE) { return emu::ballot(mask, predicate, place) != 0; }
inline bool __all_sync(unsigned mask, bool predicate, EMU_PLACE) { return emu::ballot(mask, predicate, place) == mask; }

namespace emu {
/// A lane that reads beyond the warp reads its own value, as on a GPU.
template <typename T> inline T exchange(const char* what, unsigned mask, T value, int source, Place place) {
    static_assert(sizeof(T) <= 8, "shuffles move up to 8 bytes");
    int lane = self().thread.x % 32;
    Shuffle operand = {0, source >= 0 && source < 32 ? source : lane};
    memcpy(&operand.value, &value, sizeof(T));
    shuffle(what, mask, operand, place);
    memcpy(&value, &operand.value, sizeof(T));
    return value;
}
inline int lane_of_warp() { return self().thread.x % 32; }
}  // namespace emu

template <typename T> inline T __shfl_sync(unsigned mask, T value, int source, EMU_PLACE) {
    return emu::exchange("__shfl_sync", mask, value, source & 31, place);
}
template <typename T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, EMU_PLACE) {
    return emu::exchange("__shfl_xor_sync", mask, value, emu::lane_of_warp() ^ bits, place);
}
template <typename T> inline T __shfl_down_sync(unsigned mask, T value, int by, EMU_PLACE) {
    return emu::exchange("__shfl_down_sync", mask, value, emu::lane_of_warp() + by, place);
}
template <typename T> inline T __shfl_up_sync(unsigned mask, T value, int by, EMU_PLACE) {
    return emu::exchange("__shfl_up_sync", mask, value, emu::lane_of_warp() - by, place);
}

template <typename T> inline T atomicAdd(T* p, T x) {
    T old, sum;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do sum = old + x;
    while (!__atomic_compare_exchange(p, &old, &sum, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}
inline int atomicCAS(int* p, int expected, int value) {
    __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

inline float __int_as_float(int bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline float __uint_as_float(unsigned bits) { return __int_as_float(int(bits)); }
inline int __float_as_int(float x) {
    int bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline unsigned __float_as_uint(float x) { return unsigned(__float_as_int(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
template <typename T> inline T __ldg(const T* p) { return *p; }
template <typename T> inline T min(T a, T b) { return b < a ? b : a; }
template <typename T> inline T max(T a, T b) { return a < b ? b : a; }
