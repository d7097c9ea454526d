/* Preloaded into a process, it lets the N-th call that touches a file fail: kills the process before or in the middle of it, or
 * answers with an error, or writes less than it was given. FAULT_AT is N, FAULT_KIND how, FAULT_LOG where calls are counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static long calls;

/* Tells how many calls there were, where FAULT_COUNT names a file. */
__attribute__((destructor)) static void told(void) {
    const char *path = getenv("FAULT_COUNT");
    if (!path) return;
    FILE *to = fopen(path, "w");
    if (to) { fprintf(to, "%ld", calls); fclose(to); }
}

static int is(const char *kind) {
    const char *wanted = getenv("FAULT_KIND");
    return wanted && strcmp(wanted, kind) == 0;
}

/* Counts a call; whether it is the one that fails. */
static int fails(const char *what) {
    const char *at = getenv("FAULT_AT"), *log = getenv("FAULT_LOG");
    if (!at) return 0;
    long number = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    if (number != atol(at)) return 0;
    if (log) {
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
        ssize_t (*put)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
        int to = real(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (to >= 0) { put(to, what, strlen(what)); put(to, "\n", 1); close(to); }
    }
    if (is("kill")) raise(SIGKILL);
    return 1;
}

/* The error of the kind that is asked for; 0 where this kind is none. */
static int error_of(void) {
    if (is("ENOSPC")) return ENOSPC;
    if (is("EIO")) return EIO;
    if (is("EROFS")) return EROFS;
    if (is("EINTR")) return EINTR;
    return 0;
}

#define ANSWER(what) do { if (fails(what) && error_of()) { errno = error_of(); return -1; } } while (0)

ssize_t write(int fd, const void *from, size_t count) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (fd > 2 && fails("write")) {
        if (is("half-kill")) { real(fd, from, count / 2); raise(SIGKILL); }
        if (is("short")) return real(fd, from, count > 1 ? count / 2 : count);
        if (error_of()) { errno = error_of(); return -1; }
    }
    return real(fd, from, count);
}

int open64(const char *path, int flags, ...) {
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    if (flags & (O_WRONLY | O_RDWR)) ANSWER("open");
    return real(path, flags, mode);
}

int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    ANSWER("rename");
    return real(from, to);
}

int fsync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    ANSWER("fsync");
    return real(fd);
}

int ftruncate64(int fd, off_t length) {
    int (*real)(int, off_t) = dlsym(RTLD_NEXT, "ftruncate64");
    ANSWER("ftruncate");
    return real(fd, length);
}

int mkdir(const char *path, mode_t mode) {
    int (*real)(const char *, mode_t) = dlsym(RTLD_NEXT, "mkdir");
    ANSWER("mkdir");
    return real(path, mode);
}

int unlink(const char *path) {
    int (*real)(const char *) = dlsym(RTLD_NEXT, "unlink");
    ANSWER("unlink");
    return real(path);
}

int unlinkat(int folder, const char *path, int flags) {
    int (*real)(int, const char *, int) = dlsym(RTLD_NEXT, "unlinkat");
    ANSWER("unlinkat");
    return real(folder, path, flags);
}

int rmdir(const char *path) {
    int (*real)(const char *) = dlsym(RTLD_NEXT, "rmdir");
    ANSWER("rmdir");
    return real(path);
}
