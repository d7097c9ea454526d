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
    report(*me.worker, "thread " + std::to_string(me.id) + "'s local variables overflow its stack of " + std::to_string(STACK) + " bytes");
}

static void leave(Fiber& me) {
    if (me.mark != STACK_MARK) tell_overflow(me);
    emu_switch(&me.stack, me.worker->scheduler);
}

void report(Worker& worker, std::string error) {
    worker.error = std::move(error);
    worker.failed = true;
}

std::string text_of(Place place) { return place.file + (":" + std::to_string(place.line)); }

void fail(const char* format, ...) {
    Fiber& me = fiber();
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    report(*me.worker, text);
    leave(me);
    abort();
}

uint64_t next_random(Worker& worker) {
    worker.random ^= worker.random << 13;
    worker.random ^= worker.random >> 7;
    worker.random ^= worker.random << 17;
    return worker.random;
}

// ---- waiting

void wait(Fiber& me, const char* what, Place place) {
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

std::string name_shared(const Worker& worker, size_t offset) {
    for (const Static& one : worker.statics)
        if (offset - one.offset < one.bytes)
            return "byte " + std::to_string(offset - one.offset) + " of the shared memory declared at " + text_of(one.place);
    return "byte " + std::to_string(offset - dynamic_offset(*worker.launch)) + " of dynamic shared memory";
}

// ---- running a block

static void fiber_main() {
    Fiber& me = fiber();
    me.worker->launch->kernel->call(me.worker->launch->arguments);
    end_copies(me);
    me.state = State::Done;
    me.worker->done++;
    leave(me);
    abort();
}

static void add_range(std::string& text, unsigned from, unsigned to) {
    text += (text.empty() ? "" : ", ") + std::to_string(from);
    if (to > from) text += "–" + std::to_string(to);
}

/// Whether one line of a report tells of both.
static bool alike(const Fiber& a, const Fiber& b) {
    if (a.state != b.state || a.state == State::Done) return a.state == b.state;
    return a.place.line == b.place.line && a.what == b.what && a.mbarrier == b.mbarrier;
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
            bool same = j < worker.launch->threads && alike(*worker.fibers[j], first);
            if (same) told[j] = true;
            if (!same && j > from) add_range(who, from, j - 1);
            if (!same) from = j + 1;
        }
        text += "\n  threads " + who;
        if (first.state == State::Done) text += " have ended";
        else text += std::string(" wait at ") + first.what + ", " + text_of(first.place);
        if (first.mbarrier != NO_MBARRIER) text += ", for " + describe(worker, worker.mbarriers[first.mbarrier]);
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
        bool landed = (!progress || (seed > 1 && !worker.loads.empty() && next_random(worker) % 4 == 0)) && land_load(worker);
        if (worker.failed) return;
        if (!progress && !landed) return report(worker, waiting(worker));
    }
    end_loads(worker);
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
    worker.mbarriers.clear();
    worker.loads.clear();
    worker.stores.clear();
    memset(worker.barriers, 0, sizeof worker.barriers);
    memset(worker.meetings, 0, sizeof(Meeting) * ((launch.threads + 31) / 32 * 32));
    memset(worker.shared + dynamic_offset(launch), NAN_BYTE, launch.shared_bytes);
    worker.random = launch.seed * 0x9e3779b97f4a7c15ull + block.x * 0xbf58476d1ce4e5b9ull + block.y * 0x94d049bb133111ebull + block.z + 1;
    for (unsigned i = 0; i < launch.threads; i++) {
        Fiber& fiber = *worker.fibers[i];
        fiber.self = {{i, 0, 0}, block, {launch.threads, 1, 1}, launch.grid};
        fiber.state = State::Ready;
        fiber.barrier = nullptr;
        fiber.mbarrier = NO_MBARRIER;
        fiber.store_groups = 0;
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
