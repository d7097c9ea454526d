// Copies in the background: cp.async, a few bytes for the thread that starts it, and bulk copies, of any size, which run in
// a proxy of their own and tell an mbarrier (into shared memory) or their thread's groups (out of it) that they are done.
//
// When a copy takes place comes from the seed: at once, or as late as its wait allows. Until then its target is NaN.
#include "checker.h"

namespace emu {

/// Whether a copy that the thread starts now takes place later.
static bool is_late(Worker& worker) { return worker.launch->seed == 0 || (next_random(worker) & 1); }

// ---- cp.async

static void land(const Copy& copy) {
    memcpy(copy.to, copy.from, copy.valid);
    memset(static_cast<char*>(copy.to) + copy.valid, 0, copy.bytes - copy.valid);
}

static void check_copy(const Copy& copy, const void* pc) {
    if (copy.valid) check_access(copy.from, copy.valid, Read, pc);
    check_copy_starts(copy.to, copy.bytes, pc);
}

void copy_async(void* to, const void* from, unsigned bytes, unsigned valid, Place place) {
    Fiber& me = fiber();
    if (reinterpret_cast<uintptr_t>(to) % bytes || (valid && reinterpret_cast<uintptr_t>(from) % bytes))
        fail("misaligned cp.async at %s:%d: thread %u copies %u bytes from %p to %p, both must be multiples of %u", place.file,
             place.line, me.id, bytes, from, to, bytes);
    if (size_t(static_cast<unsigned char*>(to) - me.worker->shared) > ARENA - bytes)
        fail("cp.async at %s:%d: thread %u copies to %p, which is not shared memory", place.file, place.line, me.id, to);
    bool late = is_late(*me.worker);
    Copy copy = {to, from, bytes, valid, late, place};
    me.place = place;
    if (me.worker->launch->check) check_copy(copy, __builtin_return_address(0));
    // A source that must not be read is told of here and not at the wait.
    if (valid) (void)*static_cast<const volatile char*>(from), (void)static_cast<const volatile char*>(from)[valid - 1];
    if (late) memset(to, NAN_BYTE, bytes);
    else land(copy);
    me.open->push_back(copy);
}

void copy_async_commit() {
    Fiber& me = fiber();
    me.groups->emplace_back();
    me.groups->back().swap(*me.open);
}

void copy_async_wait(unsigned groups) {
    Fiber& me = fiber();
    while (me.groups->size() > groups) {
        for (const Copy& copy : me.groups->front()) {
            if (copy.late) land(copy);
            if (me.worker->launch->check) check_copy_done(copy.to, copy.bytes);
        }
        me.groups->erase(me.groups->begin());
    }
}

static void end_small_copies(const Fiber& me) {
    for (const auto& group : *me.groups)
        if (!group.empty()) fail("thread %u ends with a cp.async under way, from %s", me.id, text_of(group[0].place).c_str());
    if (!me.open->empty()) fail("thread %u ends with a cp.async it has not waited for, from %s", me.id, text_of(me.open->front().place).c_str());
}

// ---- bulk copies

/// Sizes and addresses the hardware takes; the checker knows the bounds better.
static void check_bulk(const Fiber& me, const void* shared, const void* global, unsigned bytes, Place place) {
    if (bytes % 16 || bytes == 0) fail("bulk copy of a wrong size: thread %u copies %u bytes at %s, which is no multiple of 16", me.id, bytes, text_of(place).c_str());
    for (const void* address : {shared, global})
        if (reinterpret_cast<uintptr_t>(address) % 16)
            fail("misaligned bulk copy: thread %u copies between %p and %p at %s, both must be multiples of 16", me.id, shared, global, text_of(place).c_str());
    size_t offset = size_t(static_cast<const unsigned char*>(shared) - me.worker->shared);
    if (offset >= ARENA) fail("bulk copy at %s: thread %u names %p, which is not shared memory", text_of(place).c_str(), me.id, shared);
    if (bytes > ARENA - offset) fail("out of bounds of shared memory: thread %u copies %u bytes at %s, %zu before its end", me.id, bytes, text_of(place).c_str(), ARENA - offset);
}

/// A range that must not be accessed is told of where the copy starts.
static void touch(const void* memory, unsigned bytes) {
    const volatile char* start = static_cast<const volatile char*>(memory);
    (void)start[0], (void)start[bytes - 1];
}

static void land(Worker& worker, const BulkLoad& load) {
    memcpy(load.to, load.from, load.bytes);
    if (worker.launch->check) check_load_lands(load.job, worker.mbarriers[load.mbarrier].phase);
    bring_bytes(worker, load.mbarrier, load.bytes, load.place);
}

bool land_load(Worker& worker) {
    if (worker.loads.empty()) return false;
    size_t which = worker.launch->seed == 0 ? 0 : next_random(worker) % worker.loads.size();
    BulkLoad load = worker.loads[which];
    worker.loads.erase(worker.loads.begin() + ptrdiff_t(which));
    land(worker, load);
    return true;
}

void bulk_load(void* to, const void* from, unsigned bytes, void* mbarrier, Place place) {
    Fiber& me = fiber();
    Worker& worker = *me.worker;
    const void* pc = __builtin_return_address(0);
    check_bulk(me, to, from, bytes, place);
    BulkLoad load = {to, from, bytes, me.id, find_mbarrier("bulk copy", mbarrier, place), 0, place};
    if (worker.launch->check) load.job = check_load_starts(load, pc);
    touch(from, bytes);
    if (is_late(worker)) {
        memset(to, NAN_BYTE, bytes);
        worker.loads.push_back(load);
        return;
    }
    land(worker, load);
    if (worker.failed) fail("%s", std::string(worker.error).c_str());
}

static void read_source(BulkStore& store) {
    const unsigned char* from = static_cast<const unsigned char*>(store.from);
    store.held.assign(from, from + store.bytes);
    store.late_read = false;
}

static void write_target(BulkStore& store) {
    if (store.late_read) read_source(store);
    memcpy(store.to, store.held.data(), store.bytes);
    store.late_write = false;
}

void bulk_store(void* to, const void* from, unsigned bytes, Place place) {
    Fiber& me = fiber();
    Worker& worker = *me.worker;
    const void* pc = __builtin_return_address(0);
    check_bulk(me, from, to, bytes, place);
    me.place = place;
    BulkStore store = {to, from, bytes, me.id, me.store_groups, 0, false, is_late(worker), is_late(worker), {}, place};
    if (worker.launch->check) store.job = check_store_starts(store, pc);
    touch(to, bytes);
    if (!store.late_read) read_source(store);
    if (!store.late_write) write_target(store);
    else memset(to, NAN_BYTE, bytes);
    worker.stores.push_back(std::move(store));
}

void bulk_commit() { fiber().store_groups++; }

static void release_source(Worker& worker, BulkStore& store) {
    if (store.released) return;
    store.released = true;
    if (store.late_read) read_source(store);
    if (worker.launch->check) check_store_read(store.job);
}

static void finish(Worker& worker, BulkStore& store) {
    release_source(worker, store);
    if (store.late_write) write_target(store);
    if (worker.launch->check) check_store_written(store.job);
}

void bulk_wait(unsigned groups, bool read_only) {
    Fiber& me = fiber();
    Worker& worker = *me.worker;
    std::vector<BulkStore>& stores = worker.stores;
    for (size_t i = 0; i < stores.size();) {
        bool waits = stores[i].thread == me.id && stores[i].group + groups < me.store_groups;
        if (waits) read_only ? release_source(worker, stores[i]) : finish(worker, stores[i]);
        if (waits && !read_only) stores.erase(stores.begin() + ptrdiff_t(i));
        else i++;
    }
}

/// What a store has read may still be written after its thread has ended.
static void end_stores(Fiber& me) {
    for (BulkStore& store : me.worker->stores) {
        if (store.thread != me.id) continue;
        if (!store.released) fail("thread %u ends with a bulk store it has not waited for, from %s", me.id, text_of(store.place).c_str());
        finish(*me.worker, store);
    }
}

void end_copies(Fiber& me) {
    end_small_copies(me);
    end_stores(me);
}

}  // namespace emu
