/* Stands before the C library's clock so that the Debian tools stamp a fixed
 * time: same inputs, same bytes. The time is the decimal number in the
 * environment variable GUEST_CLOCK (seconds since 1970). */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t fixed(void)
{
    const char *text = getenv("GUEST_CLOCK");
    return text ? (time_t)strtoll(text, NULL, 10) : 0;
}

time_t time(time_t *out)
{
    time_t now = fixed();
    if (out)
        *out = now;
    return now;
}

int gettimeofday(struct timeval *out, void *zone)
{
    (void)zone;
    out->tv_sec = fixed();
    out->tv_usec = 0;
    return 0;
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)
        return (int)syscall(SYS_clock_gettime, clock, out);
    out->tv_sec = fixed();
    out->tv_nsec = 0;
    return 0;
}
