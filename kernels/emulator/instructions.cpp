// What the PTX instructions of ptx.cuh compute. Layouts follow the PTX manual's chapters on ldmatrix and mma.
#include "checker.h"

namespace emu {

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static uint32_t to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static uint16_t round_bf16(float x) {
    uint32_t bits = to_bits(x);
    if (x != x) return 0x7fff;
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float bf16_to_float(uint16_t bits) { return from_bits(uint32_t(bits) << 16); }

uint32_t pack_bf16(float low, float high) { return round_bf16(low) | uint32_t(round_bf16(high)) << 16; }

static uint16_t round_f16(float x) {
    uint32_t bits = to_bits(x), sign = bits >> 16 & 0x8000;
    float size = fabsf(x);
    if (x != x) return 0x7fff;
    if (size >= 65520.0f) return uint16_t(sign | 0x7c00);
    if (size < 6.103515625e-5f) return uint16_t(sign | uint32_t(nearbyintf(size * 16777216.0f)));
    uint32_t kept = to_bits(size);
    kept += 0xfff + (kept >> 13 & 1);
    return uint16_t(sign | ((kept >> 13) - (112u << 10)));
}

uint32_t pack_f16(float low, float high) { return round_f16(low) | uint32_t(round_f16(high)) << 16; }

float f16_to_float(uint16_t bits) {
    uint32_t exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                 : exponent     ? from_bits((exponent + 112) << 23 | mantissa << 13)
                                : float(mantissa) / 16777216.0f;
    return bits & 0x8000 ? -size : size;
}

uint32_t to_tf32(float x) {
    uint32_t bits = to_bits(x);
    if ((bits >> 23 & 255) == 255) return bits;
    return (bits + 0x1000) & ~0x1fffu;
}

// ---- ldmatrix

struct MatrixRows {
    uint32_t* registers;
    const void* row;
};

struct MatrixLoad {
    int matrices;
    bool transposed;
    Place place;
};

static void load_rows(void* const* operands, unsigned, void* context) {
    const MatrixLoad& load = *static_cast<const MatrixLoad*>(context);
    for (int matrix = 0; matrix < load.matrices; matrix++) {
        uint16_t elements[8][8];
        for (int row = 0; row < 8; row++) {
            const void* from = static_cast<const MatrixRows*>(operands[matrix * 8 + row])->row;
            if (reinterpret_cast<uintptr_t>(from) % 16)
                fail("misaligned ldmatrix at %s:%d: lane %d's row is not aligned to 16 bytes", load.place.file, load.place.line, matrix * 8 + row);
            memcpy(elements[row], from, 16);
        }
        for (int lane = 0; lane < 32; lane++) {
            int row = lane / 4, pair = lane % 4 * 2;
            uint32_t low = load.transposed ? elements[pair][row] : elements[row][pair];
            uint32_t high = load.transposed ? elements[pair + 1][row] : elements[row][pair + 1];
            static_cast<const MatrixRows*>(operands[lane])->registers[matrix] = low | high << 16;
        }
    }
}

void load_matrix(uint32_t* registers, int matrices, const void* row, bool transposed, Place place) {
    const Fiber& me = fiber();
    if (me.worker->launch->check && int(me.id % 32) < matrices * 8) check_access(row, 16, Read, __builtin_return_address(0));
    MatrixRows rows = {registers, row};
    MatrixLoad load = {matrices, transposed, place};
    together("ldmatrix", 0xffffffffu, &rows, load_rows, &load, place);
}

// ---- mma

struct Fragments {
    float* d;
    const uint32_t *a, *b;
};

/// (16, K)·(K, 8) from unpacked operands, then the accumulators; sums run in f32, as the hardware's do roughly.
template <int K> static void multiply(void* const* operands, const float (&a)[16][K], const float (&b)[K][8]) {
    for (int g = 0; g < 16; g++) {
        float sums[8] = {};
        for (int k = 0; k < K; k++)
            for (int n = 0; n < 8; n++) sums[n] += a[g][k] * b[k][n];
        for (int n = 0; n < 8; n++) {
            const Fragments& lane = *static_cast<const Fragments*>(operands[g % 8 * 4 + n / 2]);
            lane.d[g / 8 * 2 + n % 2] += sums[n];
        }
    }
}

static void multiply_bf16(void* const* operands, unsigned, void*) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const Fragments& mine = *static_cast<const Fragments*>(operands[lane]);
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++)
            for (int half = 0; half < 2; half++)
                a[g + i % 2 * 8][2 * t + i / 2 * 8 + half] = bf16_to_float(uint16_t(mine.a[i] >> 16 * half));
        for (int i = 0; i < 2; i++)
            for (int half = 0; half < 2; half++) b[2 * t + i * 8 + half][g] = bf16_to_float(uint16_t(mine.b[i] >> 16 * half));
    }
    multiply<16>(operands, a, b);
}

static void multiply_tf32(void* const* operands, unsigned, void*) {
    float a[16][8], b[8][8];
    for (int lane = 0; lane < 32; lane++) {
        const Fragments& mine = *static_cast<const Fragments*>(operands[lane]);
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) a[g + i % 2 * 8][t + i / 2 * 4] = from_bits(mine.a[i] & ~0x1fffu);
        for (int i = 0; i < 2; i++) b[t + i * 4][g] = from_bits(mine.b[i] & ~0x1fffu);
    }
    multiply<8>(operands, a, b);
}

void mma_bf16(float* d, const uint32_t* a, const uint32_t* b, Place place) {
    Fragments mine = {d, a, b};
    together("mma.sync bf16", 0xffffffffu, &mine, multiply_bf16, nullptr, place);
}

void mma_tf32(float* d, const uint32_t* a, const uint32_t* b, Place place) {
    Fragments mine = {d, a, b};
    together("mma.sync tf32", 0xffffffffu, &mine, multiply_tf32, nullptr, place);
}

}  // namespace emu
