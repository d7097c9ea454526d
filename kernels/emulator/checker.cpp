// The checker: whether each access to memory is in bounds, of memory once written, and ordered after those it depends on.
//
// Kernels are compiled with the compiler's thread sanitizer and linked to sanitizer.cpp, which calls check_access. Every
// two bytes of memory have a cell that remembers who wrote and read them last. Two accesses of which one writes must be
// ordered: by a barrier between them, or by both being atomic. Order is counted in two ways:
// - epochs: a __syncthreads starts a new one and orders all before it, whatever the number of threads;
// - clocks within an epoch: one vector per thread, joined by __syncwarp and by barriers of some of the threads. Shuffles
//   and matrix instructions order nothing: CUDA promises that of __syncwarp alone.
// Of many readers a cell keeps two, of different warps where it can: races with others show with another seed.
//
// A copy in the background is an agent of its own. A cp.async is a write that nobody may see before its thread has waited;
// from then on the write is the thread's. Bulk copies are in proxies.cpp; what else reads and writes on its own (matrix
// instructions that take their operands from shared memory) can be added there as another kind of job.
//
// One checked launch runs at a time, its blocks one after the other: the Rust side sees to that.
#include "checker_state.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <mutex>

namespace emu {

Checker checker;

/// Memory handed out to be checked.
static std::map<uintptr_t, Shadow> allocations;
static std::mutex allocations_lock;

static void* zeroed(size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : memory;
}

static size_t cells_size(size_t bytes) { return (bytes / CELL_BYTES + 1) * sizeof(Cell); }

static bool make_shadow(Shadow& shadow, uintptr_t start, size_t bytes) {
    shadow = {start, bytes, static_cast<Cell*>(zeroed(cells_size(bytes))), static_cast<bool*>(zeroed(bytes + 1))};
    return shadow.cells && shadow.written;
}

static void drop_shadow(const Shadow& shadow) {
    munmap(shadow.cells, cells_size(shadow.bytes));
    munmap(shadow.written, shadow.bytes + 1);
}

// ---- order

/// Whether a block of this launch that ran before has shown its work to this one through atomics.
static bool seen_block(uint32_t epoch) {
    uint32_t block = *--std::upper_bound(checker.blocks.begin(), checker.blocks.end(), epoch);
    return std::find(checker.seen.begin(), checker.seen.end(), block) != checker.seen.end();
}

bool ordered(const Access& before, bool shared, unsigned thread) {
    if (before.agent == Agent::BulkCopy && before.epoch >= checker.block_start) return bulk_ordered(before, shared, thread);
    if (before.epoch == checker.epoch)
        return before.thread == thread || checker.clocks[thread * checker.threads + before.thread] >= before.clock;
    return before.epoch >= checker.block_start || before.epoch < checker.launch_start || shared || seen_block(before.epoch);
}

void check_met(const unsigned* threads, unsigned count) {
    unsigned all = checker.threads, first = 0, last = all;
    bool within = true;
    for (unsigned i = 1; i < count; i++) within &= threads[i] / 32 == threads[0] / 32;
    checker.joined = true;
    checker.joined_warps |= !within;
    if (!checker.joined_warps) {
        first = threads[0] / 32 * 32;
        last = std::min(all, first + 32);
    }
    static std::vector<uint32_t> most;
    most.assign(all, 0);
    for (unsigned i = 0; i < count; i++) {
        const uint32_t* mine = &checker.clocks[threads[i] * all];
        for (unsigned j = first; j < last; j++) most[j] = std::max(most[j], mine[j]);
    }
    for (unsigned i = 0; i < count; i++) {
        uint32_t* mine = &checker.clocks[threads[i] * all];
        std::copy(&most[first], &most[first] + (last - first), mine + first);
        mine[threads[i]]++;
    }
    if (checker.asynchronous) join_seen(threads, count);
}

void check_block_met() {
    checker.epoch++;
    if (checker.asynchronous) join_all_seen();
}

void check_fence() { checker.fenced = true; }

/// An atomic shows what its block did before a fence to blocks that later change the same place.
static void note_atomic(uintptr_t address) {
    std::vector<uint32_t>& blocks = checker.released[address];
    for (uint32_t block : blocks)
        if (std::find(checker.seen.begin(), checker.seen.end(), block) == checker.seen.end()) checker.seen.push_back(block);
    if (checker.fenced && (blocks.empty() || blocks.back() != checker.block_start)) blocks.push_back(checker.block_start);
}

// ---- cells

/// A bulk copy's read stays until a write replaces it: no barrier orders it, only its thread's wait.
static void note_read(Cell& cell, const Access& now) {
    Access &first = cell.first, &last = cell.last;
    bool bulk = first.agent == Agent::BulkCopy && first.epoch >= checker.block_start;
    bool passed = !bulk && (first.epoch < checker.launch_start || (first.epoch >= checker.block_start && first.epoch < checker.epoch));
    bool again = first.epoch == now.epoch && first.thread == now.thread && first.agent == now.agent;
    if (!first.bytes || passed || again) {
        uint8_t both = again ? first.bytes : 0;
        first = now;
        first.bytes |= both;
    } else if (now.agent == Agent::BulkCopy) {
        last = first;
        first = now;
    } else if (!last.bytes || last.epoch != now.epoch || last.thread / 32 == first.thread / 32 || now.thread / 32 != first.thread / 32) {
        last = now;
    }
}

static void note_write(Cell& cell, const Access& now) {
    Access& write = cell.write;
    bool same = write.epoch == now.epoch && write.clock == now.clock && write.thread == now.thread && write.atomic == now.atomic &&
                write.agent == now.agent;
    uint8_t bytes = same ? write.bytes : 0;
    write = now;
    write.bytes |= bytes;
    cell.first.bytes &= ~now.bytes;
    cell.last.bytes &= ~now.bytes;
}

Access access_now(Kind kind, const void* pc) {
    unsigned id = fiber().id;
    uint32_t where = uint32_t(reinterpret_cast<uintptr_t>(pc) - checker.code_start);
    return {checker.epoch, checker.clocks[id * checker.threads + id], where, uint16_t(id), 0, (kind & Atomic) != 0, {}};
}

/// Ends the launch if what the cell remembers to be there forbids any access.
static void check_agent(const Access& write, uintptr_t address, size_t bytes, Kind kind, const void* pc) {
    if (write.epoch < checker.block_start) return;
    if (write.agent == Agent::SmallCopy)
        tell("cp.async under way", bytes, kind, pc,
             ", " + name_of(address) + ", the target of thread " + std::to_string(write.thread) + "'s cp.async at " + place_of(write) +
                 ", which has not waited for it");
    if (write.agent == Agent::Word)
        tell("mbarrier accessed as ordinary memory", bytes, kind, pc,
             ", " + name_of(address) + ", which thread " + std::to_string(write.thread) + " initialised as an mbarrier at " + place_of(write));
}

[[noreturn]] static void tell_unordered(const Access& before, bool wrote, uintptr_t address, size_t bytes, Kind kind, const void* pc) {
    bool bulk = before.agent == Agent::BulkCopy && before.epoch >= checker.block_start;
    if (bulk) tell_bulk(before, wrote ? "writes" : "reads", address, bytes, kind, pc);
    tell_race(before, wrote ? "wrote" : "read", address, bytes, kind, pc);
}

static void check_cell(Cell& cell, const Access& now, uintptr_t address, size_t bytes, Kind kind, bool shared, const void* pc) {
    const Access& write = cell.write;
    if (write.bytes & now.bytes) {
        if (write.agent != Agent::Thread) check_agent(write, address, bytes, kind, pc);
        if (!(write.atomic && now.atomic) && !ordered(write, shared, now.thread)) tell_unordered(write, true, address, bytes, kind, pc);
        if (now.agent == Agent::BulkCopy && shared && !proxy_ordered(write, now.thread))
            tell("missing fence.proxy.async", bytes, kind, pc,
                 " in a bulk copy, " + name_of(address) + "; thread " + std::to_string(write.thread) + " wrote it at " + place_of(write) +
                     " without that fence between its write and what orders the two");
    }
    if (!(kind & Write)) return note_read(cell, now);
    for (const Access* read : {&cell.first, &cell.last})
        if (read->bytes & now.bytes && !(read->atomic && now.atomic) && !ordered(*read, shared, now.thread))
            tell_unordered(*read, false, address, bytes, kind, pc);
    note_write(cell, now);
}

/// The first byte nobody has written.
static const bool* find_missing(const bool* written, size_t bytes) {
    uint32_t four;
    if (bytes == 4 && (memcpy(&four, written, 4), four == 0x01010101)) return nullptr;
    return static_cast<const bool*>(memchr(written, 0, bytes));
}

/// Most reads by far: nobody has written in this epoch, and the cell knows of a read as good as this one.
static bool read_quickly(Cell& cell, const Access& now) {
    const Access& write = cell.write;
    if (write.epoch >= checker.epoch || write.epoch < checker.block_start || write.agent != Agent::Thread) return false;
    if (cell.first.agent == Agent::Thread && cell.first.epoch == checker.epoch && cell.first.bytes == now.bytes && cell.first.clock == now.clock) {
        if (cell.first.thread == now.thread) return true;
        if (cell.first.thread / 32 == now.thread / 32 && cell.last.epoch == checker.epoch && cell.last.bytes == now.bytes) return true;
    }
    return false;
}

void check_cells(const Shadow& shadow, uintptr_t address, size_t bytes, Kind kind, Agent agent, uint32_t job, const void* pc) {
    bool shared = shadow.start == checker.shared.start;
    size_t offset = address - shadow.start;
    bool* written = shadow.written + offset;
    if (kind & Read) {
        const bool* missing = find_missing(written, bytes);
        if (missing)
            tell(shared ? "uninitialised shared memory" : "uninitialised global memory", bytes, kind, pc,
                 ", " + name_of(address + (missing - written)) + ", which nobody has written");
    }
    Access now = access_now(kind, pc);
    now.agent = agent;
    if (agent == Agent::BulkCopy) now.clock = job;
    for (size_t at = offset; at < offset + bytes;) {
        size_t in_cell = at % CELL_BYTES, take = std::min(CELL_BYTES - in_cell, offset + bytes - at);
        now.bytes = uint8_t(((1u << take) - 1) << in_cell);
        Cell& cell = shadow.cells[at / CELL_BYTES];
        if (kind != Read || agent != Agent::Thread || !read_quickly(cell, now)) check_cell(cell, now, shadow.start + at, bytes, kind, shared, pc);
        at += take;
    }
    if (kind & Write) memset(written, 1, bytes);
}

// ---- accesses

void check_access(const void* at, size_t bytes, Kind kind, const void* pc) {
    uintptr_t address = reinterpret_cast<uintptr_t>(at);
    if (address - reinterpret_cast<uintptr_t>(&fiber()) < STACK) return;
    // The pages around the arena are meant for shared memory, too.
    if (address - (checker.shared.start - 4096) < ARENA + 2 * 4096) {
        check_shared(address - checker.shared.start, bytes, kind, pc);
        return check_cells(checker.shared, address, bytes, kind, Agent::Thread, 0, pc);
    }
    const View* view = check_global(address, bytes, kind, pc);
    if (!view) return;
    check_cells(view->shadow, address, bytes, kind, Agent::Thread, 0, pc);
    if (kind & Atomic) note_atomic(address);
}

void check_copy_starts(const void* to, size_t bytes, const void* pc) {
    uintptr_t address = reinterpret_cast<uintptr_t>(to);
    check_shared(address - checker.shared.start, bytes, Write, pc);
    check_cells(checker.shared, address, bytes, Write, Agent::SmallCopy, 0, pc);
}

void check_copy_done(const void* to, size_t bytes) {
    size_t first = (reinterpret_cast<uintptr_t>(to) - checker.shared.start) / CELL_BYTES;
    Access now = access_now(Write, nullptr);
    for (size_t i = first; i < first + bytes / CELL_BYTES; i++) {
        now.where = checker.shared.cells[i].write.where;
        now.bytes = checker.shared.cells[i].write.bytes;
        checker.shared.cells[i].write = now;
    }
}

// ---- launches and blocks

static int find_code(dl_phdr_info* info, size_t, void* wanted) {
    uintptr_t inside = *static_cast<uintptr_t*>(wanted), start = UINTPTR_MAX, end = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
        uintptr_t from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        start = std::min(start, from);
        end = std::max(end, from + info->dlpi_phdr[i].p_memsz);
    }
    if (inside < start || inside >= end) return 0;
    checker.code_start = start;
    checker.code_end = end;
    return 1;
}

/// The arena of another worker has cells of its own.
static void use_arena(uintptr_t start) {
    if (checker.shared.start == start) return;
    if (checker.shared.cells) drop_shadow(checker.shared);
    make_shadow(checker.shared, start, ARENA);
}

void check_block_starts(Worker& worker) {
    const Launch& launch = *worker.launch;
    use_arena(reinterpret_cast<uintptr_t>(worker.shared));
    if (checker.threads != launch.threads || checker.joined) {
        checker.clocks.assign(size_t(launch.threads) * launch.threads, 0);
        for (unsigned i = 0; i < launch.threads; i++) checker.clocks[i * launch.threads + i] = 1;
    }
    checker.threads = launch.threads;
    checker.joined = checker.joined_warps = checker.fenced = checker.asynchronous = false;
    checker.jobs.clear();
    checker.gates.clear();
    checker.block_start = ++checker.epoch;
    checker.blocks.push_back(checker.epoch);
    checker.seen.clear();
    checker.recent_start = checker.recent_end = 0;
    memset(checker.shared.written, 0, MOST_STATIC + GAPS);
    memset(checker.shared.written + dynamic_offset(launch), 0, launch.shared_bytes);
}

}  // namespace emu

/// Starts a checked launch. Until its last block has run no other may start.
extern "C" void emu_check_launch(const emu::Launch* launch) {
    using namespace emu;
    uintptr_t code = reinterpret_cast<uintptr_t>(launch->kernel->call);
    dl_iterate_phdr(find_code, &code);
    checker.launch_start = ++checker.epoch;
    checker.blocks.clear();
    checker.released.clear();
    checker.views.clear();
    std::lock_guard<std::mutex> guard(allocations_lock);
    for (unsigned i = 0; i < launch->range_count; i++) {
        auto after = allocations.upper_bound(launch->ranges[i].start);
        if (after != allocations.begin()) checker.views.push_back({launch->ranges[i], std::prev(after)->second});
    }
}

/// From now on the memory can be checked. Answers whether there was room for it.
extern "C" bool emu_check_memory(const void* start, size_t bytes) {
    using namespace emu;
    Shadow shadow;
    if (!make_shadow(shadow, reinterpret_cast<uintptr_t>(start), bytes)) return false;
    std::lock_guard<std::mutex> guard(allocations_lock);
    allocations[shadow.start] = shadow;
    return true;
}

extern "C" void emu_forget_memory(const void* start) {
    using namespace emu;
    std::lock_guard<std::mutex> guard(allocations_lock);
    auto found = allocations.find(reinterpret_cast<uintptr_t>(start));
    drop_shadow(found->second);
    allocations.erase(found);
}

/// The host has written there.
extern "C" void emu_host_wrote(const void* start, size_t bytes) {
    using namespace emu;
    uintptr_t address = reinterpret_cast<uintptr_t>(start);
    std::lock_guard<std::mutex> guard(allocations_lock);
    const Shadow& shadow = std::prev(allocations.upper_bound(address))->second;
    memset(shadow.written + (address - shadow.start), 1, bytes);
}
