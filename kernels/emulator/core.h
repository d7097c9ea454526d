// What the parts of the emulator share among themselves.
#pragma once

#include "emulator.h"

#include <setjmp.h>

#include <string>
#include <vector>

namespace emu {

constexpr unsigned MOST_THREADS = 1024;
/// Bytes of shared memory a block of sm_80 may use, static and dynamic together.
constexpr size_t SHARED = 163 << 10;
constexpr size_t MOST_STATIC = 48 << 10;
/// Bytes left free after each static declaration: what runs over its end does not land in the next one.
constexpr size_t GAP = 64;
constexpr size_t GAPS = 16 << 10;
constexpr size_t ARENA = MOST_STATIC + GAPS + SHARED;
constexpr int NAN_BYTE = 0xff;
constexpr uint64_t STACK_MARK = 0x5afe57ac5afe57acull;

struct Worker;

enum class State { Ready, Waiting, Done };

struct Barrier {
    unsigned arrived, expected, first;
    Place place;
};

/// An asynchronous copy under way.
struct Copy {
    void* to;
    const void* from;
    unsigned bytes, valid;
    /// Whether its bytes arrive with the wait, rather than having done so at once.
    bool late;
    Place place;
};

/// A thread of the block.
struct Fiber {
    Self self;
    void* stack;
    Worker* worker;
    unsigned id;
    State state;
    const char* what;
    Place place;
    Barrier* barrier;
    std::vector<Copy>* open;
    std::vector<std::vector<Copy>>* groups;
    /// The last field: a stack that grows too far overwrites it first.
    uint64_t mark;
};

/// Memory an argument points to.
struct Range {
    uintptr_t start;
    size_t bytes;
    unsigned argument;
    bool writable;
};

struct Launch {
    const Kernel* kernel;
    void* const* arguments;
    const Range* ranges;
    unsigned range_count;
    unsigned threads;
    Dim grid;
    unsigned shared_bytes;
    /// 0: threads in order and copies as late as may be; 1: in reverse; others: at random.
    uint64_t seed;
    /// Whether the kernel was compiled to report its accesses to the checker.
    bool check;
};

/// A declaration of static shared memory.
struct Static {
    const void* declaration;
    size_t offset, bytes;
    Place place;
};

/// What the lanes of one mask are doing together.
struct Meeting {
    unsigned mask, arrived;
    const char* what;
    Place place;
    void* operands[32];
};

/// Room for one block to run in.
struct Worker {
    Fiber* fibers[MOST_THREADS];
    unsigned char* shared;
    const Launch* launch;
    Fiber* current;
    void* scheduler;
    sigjmp_buf escape;
    bool running, failed;
    uint64_t random;
    unsigned done;
    size_t static_bytes, static_end;
    std::vector<Static> statics;
    Barrier barriers[16];
    Meeting meetings[MOST_THREADS];
    std::string error;
};

/// The thread that runs.
inline Fiber& fiber() {
    return *reinterpret_cast<Fiber*>(reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) & ~(STACK - 1));
}

/// Where a block's dynamic shared memory starts in its arena: it ends where the arena does.
inline size_t dynamic_offset(const Launch& launch) { return ARENA - (launch.shared_bytes + 1023) / 1024 * 1024; }

/// `address` of a kernel's code for an error's text; `name_places` puts file and line there.
std::string code_place(uintptr_t address);
std::string name_places(const std::string& text);

/// From now on faults on this thread of the host end the worker's block; without a worker they are none of ours.
void watch_faults(Worker* worker);

/// Memory of whole pages between two pages that nobody may touch.
unsigned char* guarded(size_t bytes);

/// How far an address is from the nearest argument.
std::string describe_address(const Launch& launch, uintptr_t address);

}  // namespace emu
