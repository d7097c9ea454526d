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

/// An mbarrier: its counts, which its 8 bytes of shared memory hold as well, and what reports tell of it.
struct Mbarrier {
    uint64_t* at;
    /// False once it is invalidated.
    bool live;
    /// Arrivals a phase takes and those it lacks; bytes announced that have not come, below 0 for bytes nobody announced.
    unsigned count, pending;
    int bytes;
    /// The phase that runs, counted from the block's start; its lowest bit is the parity.
    uint32_t phase;
    /// One more than the latest phases that brought bytes and that somebody waited for.
    uint32_t brought, waited;
    Place init, announced, copy;
};

/// A bulk copy into shared memory that has not landed.
struct BulkLoad {
    void* to;
    const void* from;
    unsigned bytes, thread;
    /// Index in the worker's mbarriers, and the copy's number to the checker.
    size_t mbarrier;
    unsigned job;
    Place place;
};

/// A bulk copy from shared to global memory whose thread has not waited for all of it.
struct BulkStore {
    void* to;
    const void* from;
    unsigned bytes, thread;
    /// Groups of its thread that were closed before it.
    unsigned group;
    unsigned job;
    /// Whether its thread has waited for the source to be read.
    bool released;
    /// Whether source and target are touched with the wait, rather than at once. Between the two the bytes are in `held`.
    bool late_read, late_write;
    std::vector<unsigned char> held;
    Place place;
};

constexpr size_t NO_MBARRIER = SIZE_MAX;

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
    /// Index of the mbarrier it waits for.
    size_t mbarrier;
    /// Groups of bulk stores it has closed.
    unsigned store_groups;
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
    std::vector<Mbarrier> mbarriers;
    std::vector<BulkLoad> loads;
    std::vector<BulkStore> stores;
    std::string error;
};

/// The thread that runs.
inline Fiber& fiber() {
    return *reinterpret_cast<Fiber*>(reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) & ~(STACK - 1));
}

/// Where a block's dynamic shared memory starts in its arena: it ends where the arena does.
inline size_t dynamic_offset(const Launch& launch) { return ARENA - (launch.shared_bytes + 1023) / 1024 * 1024; }

/// Lets other threads run until somebody makes this one ready again.
void wait(Fiber& me, const char* what, Place place);

uint64_t next_random(Worker& worker);

/// Ends the block with an error, from wherever it is found; a thread that finds one calls `fail` instead.
void report(Worker& worker, std::string error);

/// `name:line`.
std::string text_of(Place place);

/// What lies at an offset of shared memory.
std::string name_shared(const Worker& worker, size_t offset);

/// Which mbarrier it is and what its phase waits for.
std::string describe(const Worker& worker, const Mbarrier& mbarrier);
/// The mbarrier at an address, for an operation of the thread that runs; it must be initialised and intact.
size_t find_mbarrier(const char* what, const void* at, Place place);
/// Bytes of a copy have come: completes the phase if nothing else is missing.
void bring_bytes(Worker& worker, size_t mbarrier, unsigned bytes, Place copy);

/// Lets one bulk copy into shared memory land, if any is under way.
bool land_load(Worker& worker);
/// The thread ends: what it has started must be finished.
void end_copies(Fiber& me);
/// The block ends: somebody has waited for all that was brought.
void end_loads(Worker& worker);

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
