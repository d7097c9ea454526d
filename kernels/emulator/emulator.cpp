// The emulator's core: runs one block of a kernel at a time, its threads as fibers that wait for each other.
//
// - A fiber runs until it waits: at a barrier for the block, at a shuffle or matrix instruction for its warp. The order
//   in which threads run comes from a seed, and so does the moment an asynchronous copy lands.
// - Shared memory starts as NaN and so does the target of a copy under way: what is read too early shows.
// - When nobody can go on, the launch fails and tells which threads wait where.
#include "checker.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <mutex>

namespace emu {

// ---- switching between stacks

#if defined(__x86_64__)
/// Saves the registers a callee must keep on the running stack, whose pointer goes to *save, and goes on where `load` was saved.
extern "C" void emu_switch(void** save, void* load);
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch, @function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch, .-emu_switch
)");

/// A stack on which emu_switch starts `entry`.
static void* fresh_stack(Fiber& fiber, void (*entry)()) {
    void** top = reinterpret_cast<void**>(reinterpret_cast<char*>(&fiber) + STACK);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    return top;
}
#elif defined(__aarch64__)
extern "C" void emu_switch(void** save, void* load);
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch, %function
emu_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size emu_switch, .-emu_switch
)");

static void* fresh_stack(Fiber& fiber, void (*entry)()) {
    void** top = reinterpret_cast<void**>(reinterpret_cast<char*>(&fiber) + STACK) - 20;
    memset(top, 0, 20 * sizeof(void*));
    top[11] = reinterpret_cast<void*>(entry);
    return top;
}
#else
#error "the emulator switches stacks on x86-64 and 64-bit Arm only"
#endif

/// Apart, so that leaving stays short.
__attribute__((noinline, cold)) static void tell_overflow(Fiber& me) {
    me.worker->error = "thread " + std::to_string(me.id) + "'s local variables overflow its stack of " + std::to_string(STACK) + " bytes";
    me.worker->failed = true;
}

static void leave(Fiber& me) {
    if (me.mark != STACK_MARK) tell_overflow(me);
    emu_switch(&me.stack, me.worker->scheduler);
}

void fail(const char* format, ...) {
    Fiber& me = fiber();
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    me.worker->error = text;
    me.worker->failed = true;
    leave(me);
    abort();
}

static uint64_t next_random(Worker& worker) {
    worker.random ^= worker.random << 13;
    worker.random ^= worker.random >> 7;
    worker.random ^= worker.random << 17;
    return worker.random;
}

// ---- waiting

static void wait(Fiber& me, const char* what, Place place) {
    me.state = State::Waiting;
    me.what = what;
    me.place = place;
    leave(me);
}

/// Tells the checker who has met at a barrier.
static void order_threads(const Worker& worker, const Barrier& barrier) {
    unsigned met[MOST_THREADS], count = 0;
    for (unsigned i = 0; i < worker.launch->threads; i++)
        if (worker.fibers[i]->barrier == &barrier) met[count++] = i;
    if (count == worker.launch->threads) check_block_met();
    else check_met(met, count);
}

static void arrive(Barrier& barrier, const char* what, unsigned expected, Place place) {
    Fiber& me = fiber();
    Worker& worker = *me.worker;
    if (barrier.arrived == 0) {
        barrier.expected = expected;
        barrier.place = place;
        barrier.first = me.id;
    }
    if (barrier.expected != expected)
        fail("%s: thread %u expects %u threads (%s:%d), thread %u expects %u (%s:%d)", what, barrier.first, barrier.expected,
             barrier.place.file, barrier.place.line, me.id, expected, place.file, place.line);
    // A named barrier is meant to be met from different lines, by those who fill memory and those who read it.
    if (&barrier == worker.barriers && (barrier.place.line != place.line || strcmp(barrier.place.file, place.file)))
        fail("divergent %s: thread %u waits at %s:%d, thread %u at %s:%d", what, barrier.first, barrier.place.file,
             barrier.place.line, me.id, place.file, place.line);
    me.barrier = &barrier;
    if (++barrier.arrived < expected) return wait(me, what, place);
    barrier.arrived = 0;
    if (worker.launch->check) order_threads(worker, barrier);
    for (unsigned i = 0; i < worker.launch->threads; i++) {
        Fiber& other = *worker.fibers[i];
        if (other.barrier != &barrier) continue;
        other.barrier = nullptr;
        if (&other != &me) other.state = State::Ready;
    }
}

void block_barrier(Place place) {
    Worker& worker = *fiber().worker;
    arrive(worker.barriers[0], "__syncthreads", worker.launch->threads, place);
}

void named_barrier(unsigned id, unsigned threads, Place place) {
    if (id > 15 || threads == 0 || threads % 32)
        fail("barrier %u for %u threads at %s:%d: numbers are 0 to 15, threads come in whole warps", id, threads, place.file,
             place.line);
    arrive(fiber().worker->barriers[id], "named barrier", threads, place);
}

void together(const char* what, unsigned mask, void* operand, Together execute, void* context, Place place) {
    Fiber& me = fiber();
    Worker& worker = *me.worker;
    unsigned lane = me.id % 32, bit = 1u << lane, warp = me.id - lane;
    if (!(mask & bit)) fail("%s at %s:%d: thread %u is not in its own mask %#x", what, place.file, place.line, me.id, mask);
    Meeting& meeting = worker.meetings[warp + __builtin_ctz(mask)];
    if (meeting.arrived == 0) meeting.mask = mask, meeting.what = what, meeting.place = place;
    if (meeting.mask != mask || meeting.what != what || meeting.place.line != place.line)
        fail("lanes of a warp part: thread %u is at %s, %s:%d with mask %#x, where others of its warp are at %s, %s:%d with mask %#x",
             me.id, what, place.file, place.line, mask, meeting.what, meeting.place.file, meeting.place.line, meeting.mask);
    meeting.operands[lane] = operand;
    meeting.arrived |= bit;
    if (meeting.arrived != mask) return wait(me, what, place);
    if (execute) execute(meeting.operands, mask, context);
    meeting.arrived = 0;
    for (unsigned rest = mask & ~bit; rest; rest &= rest - 1) worker.fibers[warp + __builtin_ctz(rest)]->state = State::Ready;
}

static void order_lanes(void* const*, unsigned mask, void*) {
    Fiber& me = fiber();
    if (!me.worker->launch->check) return;
    unsigned met[32], count = 0;
    for (unsigned rest = mask; rest; rest &= rest - 1) met[count++] = me.id / 32 * 32 + __builtin_ctz(rest);
    check_met(met, count);
}

void warp_barrier(unsigned mask, Place place) { together("__syncwarp", mask, nullptr, order_lanes, nullptr, place); }

/// Which shuffle it is, and where.
struct ShuffleCall {
    const char* what;
    Place place;
};

static void exchange_values(void* const* operands, unsigned mask, void* context) {
    const ShuffleCall& call = *static_cast<const ShuffleCall*>(context);
    unsigned warp = fiber().id / 32 * 32;
    uint64_t values[32];
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        int lane = __builtin_ctz(rest);
        values[lane] = static_cast<Shuffle*>(operands[lane])->value;
    }
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        Shuffle& mine = *static_cast<Shuffle*>(operands[__builtin_ctz(rest)]);
        if (!(mask >> mine.source & 1))
            fail("%s at %s:%d: lane %d of threads %u–%u reads lane %d, which is not in the mask %#x", call.what, call.place.file,
                 call.place.line, __builtin_ctz(rest), warp, warp + 31, mine.source, mask);
        mine.value = values[mine.source];
    }
}

void shuffle(const char* what, unsigned mask, Shuffle& operand, Place place) {
    ShuffleCall call = {what, place};
    together(what, mask, &operand, exchange_values, &call, place);
}

struct Vote {
    bool mine;
    unsigned all;
};

static void count_votes(void* const* operands, unsigned mask, void*) {
    unsigned all = 0;
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        int lane = __builtin_ctz(rest);
        all |= unsigned(static_cast<Vote*>(operands[lane])->mine) << lane;
    }
    for (unsigned rest = mask; rest; rest &= rest - 1) static_cast<Vote*>(operands[__builtin_ctz(rest)])->all = all;
}

unsigned ballot(unsigned mask, bool predicate, Place place) {
    Vote vote = {predicate, 0};
    together("__ballot_sync", mask, &vote, count_votes, nullptr, place);
    return vote.all;
}

// ---- shared memory

void* shared_static(const void* declaration, size_t bytes, size_t align, Place place) {
    Worker& worker = *fiber().worker;
    for (const Static& known : worker.statics)
        if (known.declaration == declaration) return worker.shared + known.offset;
    size_t total = worker.static_bytes + (bytes + align - 1) / align * align;
    size_t offset = (worker.static_end + align - 1) / align * align;
    if (total > MOST_STATIC || total + worker.launch->shared_bytes > SHARED || offset + bytes > MOST_STATIC + GAPS)
        fail("%s:%d: %zu bytes of static shared memory (at most %zu) with %u of dynamic (at most %zu in all)", place.file, place.line,
             total, MOST_STATIC, worker.launch->shared_bytes, SHARED);
    worker.statics.push_back({declaration, offset, bytes, place});
    worker.static_bytes = total;
    worker.static_end = offset + bytes + GAP;
    memset(worker.shared + offset, NAN_BYTE, bytes);
    return worker.shared + offset;
}

void* shared_dynamic() {
    Worker& worker = *fiber().worker;
    return worker.shared + dynamic_offset(*worker.launch);
}

// ---- asynchronous copies

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
    bool late = me.worker->launch->seed == 0 || (next_random(*me.worker) & 1);
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

// ---- running a block

static void fiber_main() {
    Fiber& me = fiber();
    me.worker->launch->kernel->call(me.worker->launch->arguments);
    for (const auto& group : *me.groups)
        if (!group.empty()) fail("thread %u ends with a cp.async under way, from %s:%d", me.id, group[0].place.file, group[0].place.line);
    if (!me.open->empty()) fail("thread %u ends with a cp.async it has not waited for, from %s:%d", me.id, me.open->front().place.file, me.open->front().place.line);
    me.state = State::Done;
    me.worker->done++;
    leave(me);
    abort();
}

static void add_range(std::string& text, unsigned from, unsigned to) {
    text += (text.empty() ? "" : ", ") + std::to_string(from);
    if (to > from) text += "–" + std::to_string(to);
}

/// One line per place at which threads wait.
static std::string waiting(Worker& worker) {
    std::string text = "deadlock:";
    std::vector<bool> told(worker.launch->threads);
    for (unsigned i = 0; i < worker.launch->threads; i++) {
        if (told[i]) continue;
        const Fiber& first = *worker.fibers[i];
        std::string who;
        for (unsigned from = i, j = i; j <= worker.launch->threads; j++) {
            const Fiber* other = j < worker.launch->threads ? worker.fibers[j] : nullptr;
            bool same = other && other->state == first.state &&
                        (first.state == State::Done || (other->place.line == first.place.line && other->what == first.what));
            if (same) told[j] = true;
            if (!same && j > from) add_range(who, from, j - 1);
            if (!same) from = j + 1;
        }
        text += "\n  threads " + who;
        text += first.state == State::Done ? " have ended"
                                           : std::string(" wait at ") + first.what + ", " + first.place.file + ":" + std::to_string(first.place.line);
    }
    return text;
}

static void run_fiber(Worker& worker, Fiber& fiber) {
    worker.current = &fiber;
    emu_switch(&worker.scheduler, fiber.stack);
}

/// Lets the ready threads of a warp run until none can; for seeds above 1 it may leave earlier.
static bool run_warp(Worker& worker, unsigned warp) {
    uint64_t seed = worker.launch->seed;
    bool any = false, progress = true;
    while (progress) {
        progress = false;
        unsigned flip = seed == 1 ? 31 : seed > 1 ? next_random(worker) % 32 : 0;
        for (unsigned i = 0; i < 32; i++) {
            unsigned id = warp * 32 + (i ^ flip);
            if (id >= worker.launch->threads || worker.fibers[id]->state != State::Ready) continue;
            run_fiber(worker, *worker.fibers[id]);
            if (worker.failed) return false;
            progress = any = true;
        }
        if (seed > 1 && next_random(worker) % 4 == 0) return any;
    }
    return any;
}

/// Random seeds hold one warp back while any other can go on, a new one now and then: only a warp that lags by a whole
/// stage of a pipeline shows that a barrier is missing there.
static void run_threads(Worker& worker) {
    unsigned threads = worker.launch->threads, warps = (threads + 31) / 32;
    uint64_t seed = worker.launch->seed;
    std::vector<unsigned> order(warps);
    for (unsigned i = 0; i < warps; i++) order[i] = seed == 1 ? warps - 1 - i : i;
    unsigned held = warps;
    while (worker.done < threads) {
        if (seed > 1) {
            for (unsigned i = warps; i > 1; i--) std::swap(order[i - 1], order[next_random(worker) % i]);
            if (next_random(worker) % 8 == 0) held = next_random(worker) % (warps + 1);
        }
        bool progress = false;
        for (unsigned warp : order) {
            if (warp != held) progress |= run_warp(worker, warp);
            if (worker.failed) return;
        }
        if (!progress && held < warps) progress = run_warp(worker, held);
        if (worker.failed) return;
        if (progress) continue;
        worker.error = waiting(worker);
        worker.failed = true;
        return;
    }
}

// ---- workers

/// Each guard page costs two of the 65,530 mappings Linux allows a process; stacks beyond these rely on their mark alone.
constexpr int MOST_GUARDS = 12000;
static std::atomic<int> guards;

/// Stacks for all the threads of a block, each aligned to its size, with a guard page above what a fiber knows of itself.
static bool make_fibers(Worker& worker) {
    size_t whole = (MOST_THREADS + 1) * STACK;
    void* start = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) return false;
    uintptr_t first = (reinterpret_cast<uintptr_t>(start) + STACK - 1) / STACK * STACK;
    for (unsigned i = 0; i < MOST_THREADS; i++) {
        char* bottom = reinterpret_cast<char*>(first + i * STACK);
        if (guards++ < MOST_GUARDS) mprotect(bottom + 4096, 4096, PROT_NONE);
        worker.fibers[i] = new (bottom) Fiber();
        worker.fibers[i]->worker = &worker;
        worker.fibers[i]->id = i;
        worker.fibers[i]->open = new std::vector<Copy>();
        worker.fibers[i]->groups = new std::vector<std::vector<Copy>>();
    }
    return true;
}

static Worker* make_worker() {
    Worker* worker = new Worker();
    worker->shared = guarded(ARENA);
    return worker->shared && make_fibers(*worker) ? worker : nullptr;
}

/// Workers that no block uses: as many are made as blocks ever ran at once, whatever threads of the host come and go.
static std::vector<Worker*> idle_workers;
static std::mutex idle_lock;

static Worker* take_worker() {
    std::lock_guard<std::mutex> guard(idle_lock);
    if (idle_workers.empty()) return make_worker();
    Worker* worker = idle_workers.back();
    idle_workers.pop_back();
    return worker;
}

static void give_back(Worker* worker) {
    std::lock_guard<std::mutex> guard(idle_lock);
    idle_workers.push_back(worker);
}

static void reset(Worker& worker, const Launch& launch, Dim block) {
    worker.launch = &launch;
    worker.failed = false;
    worker.done = 0;
    worker.static_bytes = worker.static_end = 0;
    worker.statics.clear();
    memset(worker.barriers, 0, sizeof worker.barriers);
    memset(worker.meetings, 0, sizeof(Meeting) * ((launch.threads + 31) / 32 * 32));
    memset(worker.shared + dynamic_offset(launch), NAN_BYTE, launch.shared_bytes);
    worker.random = launch.seed * 0x9e3779b97f4a7c15ull + block.x * 0xbf58476d1ce4e5b9ull + block.y * 0x94d049bb133111ebull + block.z + 1;
    for (unsigned i = 0; i < launch.threads; i++) {
        Fiber& fiber = *worker.fibers[i];
        fiber.self = {{i, 0, 0}, block, {launch.threads, 1, 1}, launch.grid};
        fiber.state = State::Ready;
        fiber.barrier = nullptr;
        fiber.mark = STACK_MARK;
        fiber.open->clear();
        fiber.groups->clear();
        fiber.stack = fresh_stack(fiber, fiber_main);
    }
    if (launch.check) check_block_starts(worker);
}

}  // namespace emu

/// Runs one block; 0 for success, else `error` holds what went wrong.
extern "C" int emu_run_block(const emu::Launch* launch, unsigned x, unsigned y, unsigned z, char* error, size_t capacity) {
    using namespace emu;
    Worker* here = take_worker();
    if (!here) {
        snprintf(error, capacity, "no memory for the emulator's stacks");
        return 1;
    }
    reset(*here, *launch, {x, y, z});
    watch_faults(here);
    here->running = true;
    if (sigsetjmp(here->escape, 1) == 0) run_threads(*here);
    here->running = false;
    watch_faults(nullptr);
    bool failed = here->failed;
    if (failed) snprintf(error, capacity, "block (%u, %u, %u): %s", x, y, z, name_places(here->error).c_str());
    give_back(here);
    return failed;
}

/// Bytes of shared memory a launch may ask for.
extern "C" size_t emu_most_shared() { return emu::SHARED; }
