// Mbarriers: phases that complete once so many arrivals and so many bytes have come.
//
// The counts lie in the kernel's own 8 bytes of shared memory as well as in the worker's list: where the two differ, the
// kernel has written there as to ordinary memory. What the PTX manual leaves opaque, the bits of the word, is our own.
#include "checker.h"

namespace emu {

constexpr unsigned MOST_ARRIVALS = (1 << 20) - 1;
constexpr int MOST_BYTES = (1 << 20) - 1;

static uint64_t word_of(const Mbarrier& mbarrier) {
    uint64_t bytes = uint64_t(mbarrier.bytes) & 0x1fffff, parity = mbarrier.phase & 1;
    return uint64_t(1) << 62 | parity << 61 | bytes << 40 | uint64_t(mbarrier.count) << 20 | mbarrier.pending;
}

static std::string name_of(const Worker& worker, const void* at) {
    return name_shared(worker, size_t(static_cast<const unsigned char*>(at) - worker.shared));
}

std::string describe(const Worker& worker, const Mbarrier& mbarrier) {
    unsigned came = mbarrier.count - mbarrier.pending;
    std::string text = "the mbarrier at " + name_of(worker, mbarrier.at) + " (initialised at " + text_of(mbarrier.init) + "), in phase " +
                       std::to_string(mbarrier.phase) + " with " + std::to_string(came) + " of " + std::to_string(mbarrier.count) + " arrivals";
    if (mbarrier.announced.file)
        text += ", " + std::to_string(mbarrier.bytes > 0 ? mbarrier.bytes : 0) + " bytes announced (last at " + text_of(mbarrier.announced) + ") still to come";
    if (mbarrier.bytes < 0) text += ", " + std::to_string(-mbarrier.bytes) + " bytes brought (last from " + text_of(mbarrier.copy) + ") that nobody announced";
    return text;
}

/// An address that cannot be an mbarrier's ends the launch.
static void check_address(const char* what, const void* at, Place place) {
    const Fiber& me = fiber();
    size_t offset = size_t(static_cast<const unsigned char*>(at) - me.worker->shared);
    if (reinterpret_cast<uintptr_t>(at) % 8) fail("misaligned mbarrier: thread %u, %s at %s: %p is no multiple of 8", me.id, what, text_of(place).c_str(), at);
    if (offset > ARENA - 8) fail("thread %u, %s at %s: %p is not shared memory", me.id, what, text_of(place).c_str(), at);
}

static size_t known(const Worker& worker, const void* at) {
    for (size_t i = 0; i < worker.mbarriers.size(); i++)
        if (worker.mbarriers[i].at == at) return i;
    return NO_MBARRIER;
}

size_t find_mbarrier(const char* what, const void* at, Place place) {
    Fiber& me = fiber();
    const Worker& worker = *me.worker;
    check_address(what, at, place);
    size_t index = known(worker, at);
    if (index == NO_MBARRIER || !worker.mbarriers[index].live)
        fail("uninitialised mbarrier: thread %u, %s at %s, %s", me.id, what, text_of(place).c_str(), name_of(worker, at).c_str());
    const Mbarrier& found = worker.mbarriers[index];
    if (*found.at != word_of(found))
        fail("mbarrier overwritten as ordinary memory, found by thread %u, %s at %s: %s", me.id, what, text_of(place).c_str(), describe(worker, found).c_str());
    me.place = place;
    return index;
}

void mbarrier_init(void* at, unsigned count, Place place) {
    Fiber& me = fiber();
    Worker& worker = *me.worker;
    check_address("mbarrier.init", at, place);
    if (count == 0 || count > MOST_ARRIVALS) fail("mbarrier.init at %s: thread %u gives a count of %u, which is none of 1 to %u", text_of(place).c_str(), me.id, count, MOST_ARRIVALS);
    size_t index = known(worker, at);
    uint32_t phase = 0;
    if (index == NO_MBARRIER) {
        index = worker.mbarriers.size();
        worker.mbarriers.push_back({});
    } else if (worker.mbarriers[index].live) {
        fail("mbarrier initialised twice: thread %u at %s, without invalidating %s", me.id, text_of(place).c_str(), describe(worker, worker.mbarriers[index]).c_str());
    } else {
        // Phases never repeat within a block: the checker tells an old copy's phase from a new one's.
        phase = (worker.mbarriers[index].phase + 2) & ~1u;
    }
    Mbarrier& mbarrier = worker.mbarriers[index];
    mbarrier = {static_cast<uint64_t*>(at), true, count, count, 0, phase, 0, 0, place, {}, {}};
    if (worker.launch->check) check_mbarrier_init(index, at, __builtin_return_address(0));
    *mbarrier.at = word_of(mbarrier);
}

void mbarrier_invalidate(void* at, Place place) {
    Worker& worker = *fiber().worker;
    size_t index = find_mbarrier("mbarrier.inval", at, place);
    if (worker.launch->check) check_mbarrier_invalidated(index, at, __builtin_return_address(0));
    worker.mbarriers[index].live = false;
    memset(at, NAN_BYTE, 8);
}

/// Starts the next phase if this one lacks nothing.
static void complete(Worker& worker, size_t index) {
    Mbarrier& mbarrier = worker.mbarriers[index];
    if (mbarrier.pending == 0 && mbarrier.bytes == 0) {
        mbarrier.phase++;
        mbarrier.pending = mbarrier.count;
        if (worker.launch->check) check_phase_completes(index);
        for (unsigned i = 0; i < worker.launch->threads; i++) {
            Fiber& other = *worker.fibers[i];
            if (other.state == State::Waiting && other.mbarrier == index) other.state = State::Ready;
        }
    }
    *mbarrier.at = word_of(mbarrier);
}

static void arrive_at(size_t index, const void* pc) {
    Fiber& me = fiber();
    Worker& worker = *me.worker;
    Mbarrier& mbarrier = worker.mbarriers[index];
    if (worker.launch->check) check_arrival(index, pc);
    if (mbarrier.pending == 0)
        fail("too many arrivals: thread %u arrives at %s on %s", me.id, text_of(me.place).c_str(), describe(worker, mbarrier).c_str());
    mbarrier.pending--;
    if (mbarrier.pending == 0 && mbarrier.bytes < 0)
        fail("bytes that nobody announced: thread %u completes at %s the arrivals on %s", me.id, text_of(me.place).c_str(), describe(worker, mbarrier).c_str());
    complete(worker, index);
}

void mbarrier_arrive(void* at, Place place) { arrive_at(find_mbarrier("mbarrier.arrive", at, place), __builtin_return_address(0)); }

void mbarrier_arrive_expect(void* at, unsigned bytes, Place place) {
    Fiber& me = fiber();
    size_t index = find_mbarrier("mbarrier.arrive.expect_tx", at, place);
    Mbarrier& mbarrier = me.worker->mbarriers[index];
    if (bytes > unsigned(MOST_BYTES) || mbarrier.bytes + int(bytes) > MOST_BYTES)
        fail("mbarrier.arrive.expect_tx at %s: thread %u announces %u bytes, more than the %d of a phase, on %s", text_of(place).c_str(), me.id, bytes, MOST_BYTES, describe(*me.worker, mbarrier).c_str());
    mbarrier.announced = place;
    mbarrier.bytes += int(bytes);
    arrive_at(index, __builtin_return_address(0));
}

void bring_bytes(Worker& worker, size_t index, unsigned bytes, Place copy) {
    Mbarrier& mbarrier = worker.mbarriers[index];
    mbarrier.bytes -= int(bytes);
    mbarrier.brought = mbarrier.phase + 1;
    mbarrier.copy = copy;
    bool too_many = mbarrier.bytes < 0 && (mbarrier.pending == 0 || mbarrier.bytes < -MOST_BYTES);
    if (too_many) report(worker, "bytes that nobody announced: the bulk copy from " + text_of(copy) + " brings " + std::to_string(bytes) + " to " + describe(worker, mbarrier));
    else complete(worker, index);
}

/// A phase that starts while somebody still waits for the one before the last would leave that thread waiting: it sees
/// nothing but the parity.
static void wait_for_phase(Fiber& me, size_t index, Place place) {
    const Worker& worker = *me.worker;
    uint32_t phase = worker.mbarriers[index].phase;
    me.mbarrier = index;
    wait(me, "mbarrier", place);
    me.mbarrier = NO_MBARRIER;
    if (worker.mbarriers[index].phase != phase + 1)
        fail("mbarrier ran ahead: thread %u waits at %s for phase %u, and sees none but the parity, of %s", me.id, text_of(place).c_str(), phase, describe(worker, worker.mbarriers[index]).c_str());
}

void mbarrier_wait(void* at, unsigned parity, Place place) {
    Fiber& me = fiber();
    Worker& worker = *me.worker;
    const void* pc = __builtin_return_address(0);
    size_t index = find_mbarrier("mbarrier.try_wait", at, place);
    if (worker.launch->check) check_mbarrier_use(index, pc);
    if (parity > 1) fail("mbarrier.try_wait at %s: thread %u waits for parity %u, which is neither 0 nor 1", text_of(place).c_str(), me.id, parity);
    if ((worker.mbarriers[index].phase & 1) == parity) wait_for_phase(me, index, place);
    Mbarrier& mbarrier = worker.mbarriers[index];
    mbarrier.waited = mbarrier.phase;
    if (worker.launch->check) check_phase_seen(index);
}

void fence_mbarrier_init() {
    if (fiber().worker->launch->check) check_mbarrier_fence();
}

void fence_proxy_async() {
    if (fiber().worker->launch->check) check_proxy_fence();
}

void end_loads(Worker& worker) {
    while (!worker.failed && land_load(worker)) {}
    for (const Mbarrier& mbarrier : worker.mbarriers)
        if (!worker.failed && mbarrier.brought > mbarrier.waited)
            report(worker, "the block ends with a bulk copy that nobody has waited for, from " + text_of(mbarrier.copy) + ", on " + describe(worker, mbarrier));
}

}  // namespace emu
