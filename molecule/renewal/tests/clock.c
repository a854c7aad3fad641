/* Another date for every program that starts while /run/clock says by how many seconds, through /etc/ld.so.preload.

   Only the time of day is another: what measures how long to wait is left alone. libfaketime of Debian 12 breaks the
   sleep of Python there (clock_nanosleep answers EINVAL), and its settings are lost where an environment is not
   passed on, as Portico's tool passes none on to certbot. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset;

__attribute__((constructor)) static void read_offset(void) {
  FILE *file = fopen("/run/clock", "re");
  if (file == NULL)
    return;
  if (fscanf(file, "%ld", &offset) != 1)
    offset = 0;
  fclose(file);
}

int clock_gettime(clockid_t which, struct timespec *now) {
  long done = syscall(SYS_clock_gettime, which, now);
  if (done == 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
    now->tv_sec += offset;
  return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  long done = syscall(SYS_gettimeofday, now, zone);
  if (done == 0)
    now->tv_sec += offset;
  return done;
}

time_t time(time_t *now) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  if (now != NULL)
    *now = at.tv_sec;
  return at.tv_sec;
}
