// What the parts of the emulator share among themselves.
#pragma once

#include "emulator.h"

#include <vector>

namespace emu {

constexpr unsigned MOST_THREADS = 1024;

struct Worker;
struct Barrier;

enum class State { Ready, Waiting, Done };

/// An asynchronous copy under way.
struct Copy {
    void* to;
    const void* from;
    unsigned bytes, valid;
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
};

}  // namespace emu
