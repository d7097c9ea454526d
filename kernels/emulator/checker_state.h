// What the checker's files share: what it remembers of memory and of threads.
#pragma once

#include "checker.h"

#include <unordered_map>

namespace emu {

/// Whose access it is.
enum class Agent : uint8_t {
    Thread,
    /// A cp.async that its thread has not waited for.
    SmallCopy,
    /// A bulk copy: `clock` is its number among the block's jobs.
    BulkCopy,
    /// No access, but an mbarrier's word.
    Word,
};

struct Access {
    uint32_t epoch, clock;
    /// Of the code, from the library's start.
    uint32_t where;
    uint16_t thread;
    /// Which of the cell's two bytes; none where there was no access.
    uint8_t bytes;
    bool atomic : 1;
    Agent agent : 2;
};

struct Cell {
    Access write, first, last;
};
constexpr size_t CELL_BYTES = 2;

/// Memory with what is known of it.
struct Shadow {
    uintptr_t start;
    size_t bytes;
    Cell* cells;
    /// Whether each byte has ever been written.
    bool* written;
};

struct View {
    Range range;
    Shadow shadow;
};

constexpr uint32_t NOT_LANDED = UINT32_MAX;

/// A bulk copy of the block.
struct Job {
    bool load;
    /// Into shared memory: the mbarrier it tells, and in which phase.
    size_t mbarrier;
    uint32_t phase;
    /// Out of it: since when its thread knows that the source is read and the target written; without bytes, never.
    Access read, written;
};

/// What a thread has seen of others beside their accesses.
struct Seen {
    /// Per thread: up to which of its clocks a fence.proxy.async of its own covers what it wrote.
    std::vector<uint32_t> fenced;
    /// Per mbarrier: phases known to be complete.
    std::vector<uint32_t> phases;
};

/// An mbarrier, which hands on what those who arrive have seen to those who wait.
struct Gate {
    Access init, fence;
    /// Of the phase that runs, and of the last that completed.
    std::vector<uint32_t> arriving, arrived;
    Seen arriving_seen, arrived_seen;
};

struct Checker {
    uint32_t epoch, launch_start, block_start;
    Shadow shared;
    std::vector<View> views;
    /// The view last found, and the offsets in shared memory of the declaration last found.
    size_t recent, recent_start, recent_end;
    uintptr_t code_start, code_end;
    /// clocks[t * threads + u]: up to where thread t has seen what thread u did in this epoch.
    std::vector<uint32_t> clocks;
    unsigned threads;
    /// Whether clocks were joined in this block, and beyond single warps.
    bool joined, joined_warps;
    /// The blocks' first epochs, and those whose work this block has seen through atomics.
    std::vector<uint32_t> blocks, seen;
    std::unordered_map<uintptr_t, std::vector<uint32_t>> released;
    bool fenced;
    /// Whether the block uses mbarriers, bulk copies or proxy fences; what follows is empty without.
    bool asynchronous;
    /// What each thread has seen, and what all had at the last barrier of the block.
    std::vector<Seen> seen_by;
    Seen seen_by_all;
    std::vector<Gate> gates;
    std::vector<Job> jobs;
};
extern Checker checker;

Access access_now(Kind kind, const void* pc);
/// Whether the thread may rely on what was done before.
bool ordered(const Access& before, bool shared, unsigned thread);
/// The same for a bulk copy of this block.
bool bulk_ordered(const Access& before, bool shared, unsigned thread);
/// Whether a bulk copy that the thread starts sees what another wrote: the latter has fenced it, and the thread knows.
bool proxy_ordered(const Access& before, unsigned thread);
/// All accesses of one agent to a range, which is in bounds; `job` for bulk copies.
void check_cells(const Shadow& shadow, uintptr_t address, size_t bytes, Kind kind, Agent agent, uint32_t job, const void* pc);
/// The threads see what each of them has seen beside accesses.
void join_seen(const unsigned* threads, unsigned count);
/// All threads see what any has seen.
void join_all_seen();

// bounds.cpp: what may be accessed, and errors' words.

void check_shared(size_t offset, size_t bytes, Kind kind, const void* pc);
/// The view that allows the access, or none for data of the kernel's library.
const View* check_global(uintptr_t address, size_t bytes, Kind kind, const void* pc);
std::string place_of(const Access& access);
/// What lies at an address that may be accessed.
std::string name_of(uintptr_t address);
[[noreturn]] void tell(const char* problem, size_t bytes, Kind kind, const void* pc, const std::string& more);
/// An access before that is not ordered before this one.
[[noreturn]] void tell_race(const Access& before, const char* did, uintptr_t address, size_t bytes, Kind kind, const void* pc);
[[noreturn]] void tell_bulk(const Access& before, const char* does, uintptr_t address, size_t bytes, Kind kind, const void* pc);

}  // namespace emu
