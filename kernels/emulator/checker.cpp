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
// A copy in the background is a write that nobody may see before its thread has waited; from then on the write is the
// thread's own. Other agents (the tensor memory accelerator, matrix instructions that read shared memory on their own) can
// be added the same way: an access that is `under_way`, and what makes it somebody's own.
//
// One checked launch runs at a time, its blocks one after the other: the Rust side sees to that.
#include "checker.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <unordered_map>

namespace emu {

struct Access {
    uint32_t epoch, clock;
    /// Of the code, from the library's start.
    uint32_t where;
    uint16_t thread;
    /// Which of the cell's two bytes; none where there was no access.
    uint8_t bytes;
    bool atomic : 1, under_way : 1;
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
};
static Checker checker;

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

// ---- telling

static std::string place_of(const Access& access) { return code_place(checker.code_start + access.where); }

/// What lies at an address that may be accessed.
static std::string name_of(uintptr_t address) {
    const Worker& worker = *fiber().worker;
    size_t offset = address - checker.shared.start;
    if (offset < ARENA) {
        for (const Static& one : worker.statics)
            if (offset - one.offset < one.bytes)
                return "byte " + std::to_string(offset - one.offset) + " of the shared memory declared at " + one.place.file + ":" +
                       std::to_string(one.place.line);
        return "byte " + std::to_string(offset - dynamic_offset(*worker.launch)) + " of dynamic shared memory";
    }
    for (const View& view : checker.views)
        if (address - view.range.start < view.range.bytes)
            return "byte " + std::to_string(address - view.range.start) + " of argument " + std::to_string(view.range.argument);
    return "unknown memory";
}

static const char* verb(Kind kind) { return kind == Read ? "reads" : kind == Write ? "writes" : kind == AtomicRead ? "reads atomically" : "changes atomically"; }

[[noreturn]] static void tell(const char* problem, size_t bytes, Kind kind, const void* pc, const std::string& more) {
    fail("%s: thread %u %s %zu bytes at %s%s", problem, fiber().id, verb(kind), bytes,
         code_place(reinterpret_cast<uintptr_t>(pc)).c_str(), more.c_str());
}

static std::string block_of(uint32_t epoch) {
    if (epoch >= checker.block_start) return "";
    auto after = std::upper_bound(checker.blocks.begin(), checker.blocks.end(), epoch);
    return " of the grid's block " + std::to_string(after - checker.blocks.begin() - 1);
}

[[noreturn]] static void tell_race(const Access& before, const char* did, uintptr_t address, size_t bytes, Kind kind, const void* pc) {
    const char* problem = address - checker.shared.start < ARENA ? "race on shared memory" : "race on global memory";
    tell(problem, bytes, kind, pc,
         ", " + name_of(address) + "; thread " + std::to_string(before.thread) + block_of(before.epoch) + " " + did + " it at " +
             place_of(before) + ", and nothing orders the two");
}

// ---- order

/// Whether a block of this launch that ran before has shown its work to this one through atomics.
static bool seen_block(uint32_t epoch) {
    uint32_t block = *--std::upper_bound(checker.blocks.begin(), checker.blocks.end(), epoch);
    return std::find(checker.seen.begin(), checker.seen.end(), block) != checker.seen.end();
}

static bool ordered(const Access& before, bool shared, unsigned thread) {
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
}

void check_block_met() { checker.epoch++; }

void check_fence() { checker.fenced = true; }

/// An atomic shows what its block did before a fence to blocks that later change the same place.
static void note_atomic(uintptr_t address) {
    std::vector<uint32_t>& blocks = checker.released[address];
    for (uint32_t block : blocks)
        if (std::find(checker.seen.begin(), checker.seen.end(), block) == checker.seen.end()) checker.seen.push_back(block);
    if (checker.fenced && (blocks.empty() || blocks.back() != checker.block_start)) blocks.push_back(checker.block_start);
}

// ---- cells

static void note_read(Cell& cell, const Access& now) {
    Access &first = cell.first, &last = cell.last;
    bool passed = first.epoch < checker.launch_start || (first.epoch >= checker.block_start && first.epoch < checker.epoch);
    if (!first.bytes || passed || (first.thread == now.thread && first.epoch == now.epoch)) {
        uint8_t both = first.epoch == now.epoch && first.thread == now.thread ? first.bytes : 0;
        first = now;
        first.bytes |= both;
    } else if (!last.bytes || last.epoch != now.epoch || last.thread / 32 == first.thread / 32 || now.thread / 32 != first.thread / 32) {
        last = now;
    }
}

static void note_write(Cell& cell, const Access& now) {
    Access& write = cell.write;
    bool same = write.epoch == now.epoch && write.clock == now.clock && write.thread == now.thread && write.atomic == now.atomic &&
                write.under_way == now.under_way;
    uint8_t bytes = same ? write.bytes : 0;
    write = now;
    write.bytes |= bytes;
    cell.first.bytes &= ~now.bytes;
    cell.last.bytes &= ~now.bytes;
}

static Access access_now(Kind kind, const void* pc) {
    unsigned id = fiber().id;
    uint32_t where = uint32_t(reinterpret_cast<uintptr_t>(pc) - checker.code_start);
    return {checker.epoch, checker.clocks[id * checker.threads + id], where, uint16_t(id), 0, (kind & Atomic) != 0, false};
}

static void check_cell(Cell& cell, const Access& now, uintptr_t address, size_t bytes, Kind kind, bool shared, const void* pc) {
    const Access& write = cell.write;
    if (write.bytes & now.bytes) {
        if (write.under_way && write.epoch >= checker.block_start)
            tell("cp.async under way", bytes, kind, pc,
                 ", " + name_of(address) + ", the target of thread " + std::to_string(write.thread) + "'s cp.async at " + place_of(write) +
                     ", which has not waited for it");
        if (!(write.atomic && now.atomic) && !ordered(write, shared, now.thread)) tell_race(write, "wrote", address, bytes, kind, pc);
    }
    if (!(kind & Write)) return note_read(cell, now);
    for (const Access* read : {&cell.first, &cell.last})
        if (read->bytes & now.bytes && !(read->atomic && now.atomic) && !ordered(*read, shared, now.thread)) tell_race(*read, "read", address, bytes, kind, pc);
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
    if (write.epoch >= checker.epoch || write.epoch < checker.block_start || write.under_way) return false;
    if (cell.first.epoch == checker.epoch && cell.first.bytes == now.bytes && cell.first.clock == now.clock) {
        if (cell.first.thread == now.thread) return true;
        if (cell.first.thread / 32 == now.thread / 32 && cell.last.epoch == checker.epoch && cell.last.bytes == now.bytes) return true;
    }
    return false;
}

static void check_cells(const Shadow& shadow, uintptr_t address, size_t bytes, Kind kind, bool under_way, const void* pc) {
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
    now.under_way = under_way;
    for (size_t at = offset; at < offset + bytes;) {
        size_t in_cell = at % CELL_BYTES, take = std::min(CELL_BYTES - in_cell, offset + bytes - at);
        now.bytes = uint8_t(((1u << take) - 1) << in_cell);
        Cell& cell = shadow.cells[at / CELL_BYTES];
        if (kind != Read || !read_quickly(cell, now)) check_cell(cell, now, shadow.start + at, bytes, kind, shared, pc);
        at += take;
    }
    if (kind & Write) memset(written, 1, bytes);
}

// ---- bounds

static void check_shared(size_t offset, size_t bytes, Kind kind, const void* pc) {
    const Worker& worker = *fiber().worker;
    size_t dynamic = dynamic_offset(*worker.launch);
    if (offset >= checker.recent_start && offset + bytes <= checker.recent_end) return;
    if (offset >= dynamic && offset + bytes <= dynamic + worker.launch->shared_bytes) return;
    for (const Static& one : worker.statics)
        if (offset >= one.offset && offset + bytes <= one.offset + one.bytes) {
            checker.recent_start = one.offset;
            checker.recent_end = one.offset + one.bytes;
            return;
        }
    std::string nearest = ", outside the " + std::to_string(worker.launch->shared_bytes) + " bytes of dynamic shared memory";
    for (const Static& one : worker.statics)
        if (offset < dynamic && offset + GAP >= one.offset && offset < one.offset + one.bytes + GAP)
            nearest = ", at byte " + std::to_string(int64_t(offset) - int64_t(one.offset)) + " of the " + std::to_string(one.bytes) +
                      " declared at " + one.place.file + ":" + std::to_string(one.place.line);
    tell("out of bounds of shared memory", bytes, kind, pc, nearest);
}

/// The view that allows the access, or none for data of the kernel's library.
static const View* check_global(uintptr_t address, size_t bytes, Kind kind, const void* pc) {
    std::vector<View>& views = checker.views;
    auto allows = [&](const View& view) {
        return address >= view.range.start && address + bytes <= view.range.start + view.range.bytes &&
               (!(kind & Write) || view.range.writable);
    };
    if (checker.recent < views.size() && allows(views[checker.recent])) return &views[checker.recent];
    for (size_t i = 0; i < views.size(); i++)
        if (allows(views[i])) return &views[checker.recent = i, i];
    if (address >= checker.code_start && address < checker.code_end) return nullptr;
    for (const View& view : views)
        if (address >= view.range.start && address + bytes <= view.range.start + view.range.bytes)
            tell("write to a read-only argument", bytes, kind, pc, ", " + name_of(address));
    tell("out of bounds", bytes, kind, pc, ", " + describe_address(*fiber().worker->launch, address));
}

void check_access(const void* at, size_t bytes, Kind kind, const void* pc) {
    uintptr_t address = reinterpret_cast<uintptr_t>(at);
    if (address - reinterpret_cast<uintptr_t>(&fiber()) < STACK) return;
    // The pages around the arena are meant for shared memory, too.
    if (address - (checker.shared.start - 4096) < ARENA + 2 * 4096) {
        check_shared(address - checker.shared.start, bytes, kind, pc);
        return check_cells(checker.shared, address, bytes, kind, false, pc);
    }
    const View* view = check_global(address, bytes, kind, pc);
    if (!view) return;
    check_cells(view->shadow, address, bytes, kind, false, pc);
    if (kind & Atomic) note_atomic(address);
}

void check_copy_starts(const void* to, size_t bytes, const void* pc) {
    uintptr_t address = reinterpret_cast<uintptr_t>(to);
    check_shared(address - checker.shared.start, bytes, Write, pc);
    check_cells(checker.shared, address, bytes, Write, true, pc);
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
    checker.joined = checker.joined_warps = checker.fenced = false;
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
