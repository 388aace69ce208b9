/* A wall clock that can be set, for one process: loaded before its libraries (LD_PRELOAD), it adds the seconds that the
 * file named by BENCH_CLOCK holds (an int64) to what the process is told of CLOCK_REALTIME, and takes them off the times
 * until which it waits. The monotonic clock is left alone, as setting a real one leaves it.
 *
 * libfaketime 0.9.10 does more, and fails at it: time.sleep of Python 3.11 (clock_nanosleep) raises after a step. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t nothing;
static const volatile int64_t *step = &nothing;

__attribute__((constructor)) static void open_clock(void) {
    const char *path = getenv("BENCH_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *seen = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (seen != MAP_FAILED)
        step = seen;
}

static void *find_next(const char *name) {
    /* Of functions with an old version beside the usual one, the usual one. */
    void *found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
    return found ? found : dlsym(RTLD_NEXT, name);
}

static int is_wall(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next)
        next = dlsym(RTLD_NEXT, "clock_gettime");
    int result = next(clock, now);
    if (!result && is_wall(clock))
        now->tv_sec += *step;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return result;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place)
        *place = now.tv_sec;
    return now.tv_sec;
}

static const struct timespec *to_real(const struct timespec *until, struct timespec *room) {
    if (!until)
        return NULL;
    *room = *until;
    room->tv_sec = until->tv_sec > *step ? until->tv_sec - *step : 0;
    return room;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    /* gRPC's own conditions wait by the monotonic clock through pthread_cond_clockwait or a futex; this is the rest. */
    static int (*next)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec room, now;
    if (!next)
        next = find_next("pthread_cond_timedwait");
    /* A condition may wait by the monotonic clock, whose times are far below those of the wall clock. */
    clock_gettime(CLOCK_MONOTONIC, &now);
    return next(condition, mutex, until->tv_sec < 2 * now.tv_sec + 100000000 ? until : to_real(until, &room));
}

int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
    static int (*next)(sem_t *, const struct timespec *);
    struct timespec room;
    if (!next)
        next = dlsym(RTLD_NEXT, "sem_timedwait");
    return next(semaphore, to_real(until, &room));
}

long syscall(long number, ...) {
    static long (*next)(long, ...);
    struct timespec room;
    long given[6];
    va_list list;
    va_start(list, number);
    for (int index = 0; index < 6; index++)
        given[index] = va_arg(list, long);
    va_end(list);
    if (!next)
        next = dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_futex && (given[1] & FUTEX_CLOCK_REALTIME))
        given[3] = (long)to_real((const struct timespec *)given[3], &room);
    return next(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}
