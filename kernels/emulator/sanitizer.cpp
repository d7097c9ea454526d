// What kernels compiled with -fsanitize=thread,alignment call: each access goes to the checker. No sanitizer library is
// linked. The names and arguments are the compilers'; gcc's and clang's differ a little.
#include "checker.h"

namespace emu {

/// The head of what the compilers say of an access through a pointer of a type.
struct Mismatch {
    const char* file;
    uint32_t line, column;
    const void* type;
    unsigned char log_alignment, kind;
};

[[noreturn]] static void misaligned(const void* address, size_t alignment, const void* pc) {
    fail("misaligned: thread %u accesses %p at %s, which is no multiple of %zu", fiber().id, address,
         code_place(reinterpret_cast<uintptr_t>(pc)).c_str(), alignment);
}

static void aligned(const void* address, size_t bytes, Kind kind, const void* pc) {
    // Larger ones may be several accesses in one; -fsanitize=alignment sees to those.
    if (bytes <= 8 && reinterpret_cast<uintptr_t>(address) % bytes) misaligned(address, bytes, pc);
    check_access(address, bytes, kind, pc);
}

}  // namespace emu

#define PC __builtin_return_address(0)

extern "C" {

#define SIZED(bytes)                                                                                               \
    void __tsan_read##bytes(void* p) { emu::aligned(p, bytes, emu::Read, PC); }                                   \
    void __tsan_write##bytes(void* p) { emu::aligned(p, bytes, emu::Write, PC); }                                 \
    void __tsan_unaligned_read##bytes(void* p) { emu::check_access(p, bytes, emu::Read, PC); }                    \
    void __tsan_unaligned_write##bytes(void* p) { emu::check_access(p, bytes, emu::Write, PC); }                  \
    void __tsan_read_write##bytes(void* p) {                                                                       \
        emu::aligned(p, bytes, emu::Read, PC);                                                                    \
        emu::check_access(p, bytes, emu::Write, PC);                                                              \
    }                                                                                                              \
    void __tsan_unaligned_read_write##bytes(void* p) {                                                             \
        emu::check_access(p, bytes, emu::Read, PC);                                                               \
        emu::check_access(p, bytes, emu::Write, PC);                                                              \
    }
SIZED(1)
SIZED(2)
SIZED(4)
SIZED(8)
SIZED(16)

void __tsan_read_range(void* p, size_t bytes) { emu::check_access(p, bytes, emu::Read, PC); }
void __tsan_write_range(void* p, size_t bytes) { emu::check_access(p, bytes, emu::Write, PC); }

void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
    emu::check_access(from, bytes, emu::Read, PC);
    emu::check_access(to, bytes, emu::Write, PC);
    return memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) {
    emu::check_access(from, bytes, emu::Read, PC);
    emu::check_access(to, bytes, emu::Write, PC);
    return memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
    emu::check_access(to, bytes, emu::Write, PC);
    return memset(to, value, bytes);
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_atomic_signal_fence(int) {}
void __tsan_atomic_thread_fence(int) { emu::check_fence(); }

// Blocks run one after the other and threads as fibers: plain operations are atomic here.
#define CHANGE(bits, name, expression)                                                             \
    uint##bits##_t __tsan_atomic##bits##_##name(volatile uint##bits##_t* p, uint##bits##_t x, int) { \
        emu::aligned(const_cast<uint##bits##_t*>(p), bits / 8, emu::AtomicChange, PC);                  \
        uint##bits##_t old = *p;                                                                   \
        *p = uint##bits##_t(expression);                                                           \
        return old;                                                                                \
    }
#define EXCHANGE(bits, name)                                                                                     \
    int __tsan_atomic##bits##_compare_exchange_##name(volatile uint##bits##_t* p, uint##bits##_t* expected,      \
                                                      uint##bits##_t x, int, int) {                              \
        emu::aligned(const_cast<uint##bits##_t*>(p), bits / 8, emu::AtomicChange, PC);                                \
        uint##bits##_t old = *p;                                                                                 \
        bool same = old == *expected;                                                                            \
        if (same) *p = x;                                                                                        \
        else *expected = old;                                                                                    \
        return same;                                                                                             \
    }
#define ATOMICS(bits)                                                                              \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t* p, int) {             \
        emu::aligned(const_cast<uint##bits##_t*>(p), bits / 8, emu::AtomicRead, PC);                  \
        return *p;                                                                                 \
    }                                                                                              \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t* p, uint##bits##_t x, int) {          \
        emu::aligned(const_cast<uint##bits##_t*>(p), bits / 8, emu::AtomicWrite, PC);                  \
        *p = x;                                                                                    \
    }                                                                                              \
    CHANGE(bits, exchange, x)                                                                      \
    CHANGE(bits, fetch_add, old + x)                                                               \
    CHANGE(bits, fetch_sub, old - x)                                                               \
    CHANGE(bits, fetch_and, old & x)                                                               \
    CHANGE(bits, fetch_or, old | x)                                                                \
    CHANGE(bits, fetch_xor, old ^ x)                                                               \
    CHANGE(bits, fetch_nand, ~(old & x))                                                           \
    EXCHANGE(bits, strong)                                                                         \
    EXCHANGE(bits, weak)                                                                           \
    uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(volatile uint##bits##_t* p, uint##bits##_t expected, \
                                                              uint##bits##_t x, int, int) {        \
        emu::aligned(const_cast<uint##bits##_t*>(p), bits / 8, emu::AtomicChange, PC);                  \
        uint##bits##_t old = *p;                                                                   \
        if (old == expected) *p = x;                                                               \
        return old;                                                                                \
    }
ATOMICS(8)
ATOMICS(16)
ATOMICS(32)
ATOMICS(64)

void __ubsan_handle_type_mismatch_v1(const emu::Mismatch* found, void* address) {
    emu::misaligned(address, size_t(1) << found->log_alignment, PC);
}
void __ubsan_handle_type_mismatch_v1_abort(const emu::Mismatch* found, void* address) {
    emu::misaligned(address, size_t(1) << found->log_alignment, PC);
}

}  // extern "C"
