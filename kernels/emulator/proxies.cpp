// The checker's view of mbarriers and of bulk copies, which access shared memory through a proxy of their own.
//
// A bulk copy is a job. What it writes into shared memory may be used by threads that know the phase of its mbarrier to be
// complete: they waited for it, or met somebody who had. What it reads there may be overwritten, and what it writes to global
// memory used, by threads ordered after its own thread's wait. Before a copy touches what a thread wrote, that thread has to
// have executed fence.proxy.async; that one thread fences for all after a barrier is not accepted, since no manual shows it.
// Reads need no such fence: a thread that reports at an mbarrier or barrier holds what it has read.
#include "checker_state.h"

#include <algorithm>

namespace emu {

static void join(std::vector<uint32_t>& into, const std::vector<uint32_t>& from) {
    if (into.size() < from.size()) into.resize(from.size());
    for (size_t i = 0; i < from.size(); i++) into[i] = std::max(into[i], from[i]);
}

static void join(Seen& into, const Seen& from) {
    join(into.fenced, from.fenced);
    join(into.phases, from.phases);
}

static uint32_t at(const std::vector<uint32_t>& values, size_t i) { return i < values.size() ? values[i] : 0; }

static void begin_asynchronous() {
    if (checker.asynchronous) return;
    checker.asynchronous = true;
    checker.seen_by.assign(checker.threads, {});
    checker.seen_by_all = {};
}

void join_seen(const unsigned* threads, unsigned count) {
    Seen all;
    for (unsigned i = 0; i < count; i++) join(all, checker.seen_by[threads[i]]);
    for (unsigned i = 0; i < count; i++) checker.seen_by[threads[i]] = all;
}

void join_all_seen() {
    for (const Seen& seen : checker.seen_by) join(checker.seen_by_all, seen);
}

bool bulk_ordered(const Access& before, bool shared, unsigned thread) {
    const Job& job = checker.jobs[before.clock];
    if (job.load) {
        uint32_t seen = std::max(at(checker.seen_by[thread].phases, job.mbarrier), at(checker.seen_by_all.phases, job.mbarrier));
        return job.phase != NOT_LANDED && seen > job.phase;
    }
    const Access& known = shared ? job.read : job.written;
    return known.bytes && ordered(known, shared, thread);
}

bool proxy_ordered(const Access& write, unsigned thread) {
    if (write.agent != Agent::Thread || write.epoch < checker.block_start) return true;
    uint32_t fenced = std::max(at(checker.seen_by[thread].fenced, write.thread), at(checker.seen_by_all.fenced, write.thread));
    return fenced >= write.clock;
}

/// From now on others can tell what the thread did before from what it does later.
static void advance_clock(unsigned thread) {
    checker.joined = checker.joined_warps = true;
    checker.clocks[thread * checker.threads + thread]++;
}

/// An access of the running thread's that stands for itself.
static Access point_now(const void* pc) {
    Access now = access_now(Read, pc);
    now.bytes = 1;
    return now;
}

// ---- mbarriers

void check_mbarrier_init(size_t mbarrier, const void* at, const void* pc) {
    uintptr_t address = reinterpret_cast<uintptr_t>(at);
    begin_asynchronous();
    check_shared(address - checker.shared.start, 8, Write, pc);
    check_cells(checker.shared, address, 8, Write, Agent::Word, 0, pc);
    checker.gates.resize(std::max(checker.gates.size(), mbarrier + 1));
    checker.gates[mbarrier] = {};
    checker.gates[mbarrier].init = point_now(pc);
}

/// Its memory is ordinary again, and nobody has written there.
void check_mbarrier_invalidated(size_t mbarrier, const void* at, const void* pc) {
    check_mbarrier_use(mbarrier, pc);
    size_t offset = reinterpret_cast<uintptr_t>(at) - checker.shared.start;
    Access now = access_now(Write, pc);
    now.bytes = (1 << CELL_BYTES) - 1;
    for (size_t i = 0; i < 8 / CELL_BYTES; i++) checker.shared.cells[offset / CELL_BYTES + i].write = now;
    memset(checker.shared.written + offset, 0, 8);
}

void check_mbarrier_use(size_t mbarrier, const void* pc) {
    const Fiber& me = fiber();
    const Access& init = checker.gates[mbarrier].init;
    if (ordered(init, true, me.id)) return;
    fail("race on an mbarrier: thread %u uses it at %s, and nothing orders that after thread %u's initialisation at %s", me.id,
         code_place(reinterpret_cast<uintptr_t>(pc)).c_str(), init.thread, place_of(init).c_str());
}

void check_arrival(size_t mbarrier, const void* pc) {
    unsigned me = fiber().id;
    check_mbarrier_use(mbarrier, pc);
    Gate& gate = checker.gates[mbarrier];
    const uint32_t* clocks = &checker.clocks[me * checker.threads];
    join(gate.arriving, std::vector<uint32_t>(clocks, clocks + checker.threads));
    join(gate.arriving_seen, checker.seen_by[me]);
    advance_clock(me);
}

void check_phase_completes(size_t mbarrier) {
    Gate& gate = checker.gates[mbarrier];
    gate.arrived.swap(gate.arriving);
    gate.arriving.clear();
    gate.arrived_seen = gate.arriving_seen;
    gate.arriving_seen = {};
}

void check_phase_seen(size_t mbarrier) {
    const Fiber& me = fiber();
    const Gate& gate = checker.gates[mbarrier];
    uint32_t* clocks = &checker.clocks[me.id * checker.threads];
    for (size_t i = 0; i < gate.arrived.size(); i++) clocks[i] = std::max(clocks[i], gate.arrived[i]);
    Seen& seen = checker.seen_by[me.id];
    join(seen, gate.arrived_seen);
    if (seen.phases.size() <= mbarrier) seen.phases.resize(mbarrier + 1);
    seen.phases[mbarrier] = std::max(seen.phases[mbarrier], me.worker->mbarriers[mbarrier].phase);
}

// ---- fences

void check_mbarrier_fence() {
    Access now = point_now(__builtin_return_address(0));
    for (Gate& gate : checker.gates)
        if (gate.init.thread == now.thread && !gate.fence.bytes) gate.fence = now;
}

void check_proxy_fence() {
    begin_asynchronous();
    check_mbarrier_fence();
    unsigned me = fiber().id;
    std::vector<uint32_t>& fenced = checker.seen_by[me].fenced;
    fenced.resize(checker.threads);
    fenced[me] = checker.clocks[me * checker.threads + me];
    advance_clock(me);
}

// ---- bulk copies

static unsigned new_job(bool load, size_t mbarrier) {
    begin_asynchronous();
    checker.jobs.push_back({load, mbarrier, NOT_LANDED, {}, {}});
    return unsigned(checker.jobs.size() - 1);
}

static void check_bulk_shared(const void* memory, unsigned bytes, Kind kind, unsigned job, const void* pc) {
    uintptr_t address = reinterpret_cast<uintptr_t>(memory);
    check_shared(address - checker.shared.start, bytes, kind, pc);
    check_cells(checker.shared, address, bytes, kind, Agent::BulkCopy, job, pc);
}

static void check_bulk_global(const void* memory, unsigned bytes, Kind kind, unsigned job, const void* pc) {
    uintptr_t address = reinterpret_cast<uintptr_t>(memory);
    const View* view = check_global(address, bytes, kind, pc);
    if (view) check_cells(view->shadow, address, bytes, kind, Agent::BulkCopy, job, pc);
}

unsigned check_load_starts(const BulkLoad& load, const void* pc) {
    check_mbarrier_use(load.mbarrier, pc);
    const Fiber& me = fiber();
    const Gate& gate = checker.gates[load.mbarrier];
    if (!gate.fence.bytes || !ordered(gate.fence, true, me.id))
        fail("missing fence.mbarrier_init: thread %u's bulk copy at %s uses the mbarrier that thread %u initialised at %s without "
             "that fence between the two", me.id, code_place(reinterpret_cast<uintptr_t>(pc)).c_str(), gate.init.thread, place_of(gate.init).c_str());
    unsigned job = new_job(true, load.mbarrier);
    check_bulk_global(load.from, load.bytes, Read, job, pc);
    check_bulk_shared(load.to, load.bytes, Write, job, pc);
    return job;
}

void check_load_lands(unsigned job, uint32_t phase) { checker.jobs[job].phase = phase; }

unsigned check_store_starts(const BulkStore& store, const void* pc) {
    unsigned job = new_job(false, NO_MBARRIER);
    check_bulk_shared(store.from, store.bytes, Read, job, pc);
    check_bulk_global(store.to, store.bytes, Write, job, pc);
    return job;
}

void check_store_read(unsigned job) { checker.jobs[job].read = point_now(nullptr); }

void check_store_written(unsigned job) { checker.jobs[job].written = point_now(nullptr); }

}  // namespace emu
