/* Fails the n-th write, flush, truncation or rename under one folder: preloaded by test_faults.py, armed through ctypes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ONCE = 0, STICKY = 1, TORN = 2 };

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static long left = -1, seen = 0, hits = 0;
static int error_code = EIO, mode = ONCE;

void fault_arm(const char *where, long at, int code, int how) {
  pthread_mutex_lock(&gate);
  snprintf(folder, sizeof folder, "%s", where);
  left = at, error_code = code, mode = how, seen = 0, hits = 0;
  pthread_mutex_unlock(&gate);
}
void fault_disarm(void) { left = -1; }
long fault_hits(void) { return hits; }
long fault_seen(void) { return seen; }

static int inside(int fd) {
  char link[64], path[PATH_MAX];
  if (left < 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return strncmp(path, folder, strlen(folder)) == 0;
}

static int fails(void) {
  int now;
  pthread_mutex_lock(&gate);
  seen++;
  now = left >= 0 && (seen == left || (mode == STICKY && seen > left));
  hits += now;
  pthread_mutex_unlock(&gate);
  if (now) errno = error_code;
  return now;
}

#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t size) {
  REAL(ssize_t, "write", int, const void *, size_t);
  if (inside(fd) && fails()) {
    if (mode == TORN && size > 1 && real(fd, data, size / 2) < 0) return -1;
    return errno = error_code, -1;
  }
  return real(fd, data, size);
}

#define PWRITE(name, offset_type) \
  ssize_t name(int fd, const void *data, size_t size, offset_type at) { \
    REAL(ssize_t, #name, int, const void *, size_t, offset_type); \
    if (inside(fd) && fails()) { \
      if (mode == TORN && size > 1 && real(fd, data, size / 2, at) < 0) return -1; \
      return errno = error_code, -1; \
    } \
    return real(fd, data, size, at); \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(ssize_t, "writev", int, const struct iovec *, int);
  return inside(fd) && fails() ? -1 : real(fd, parts, count);
}

#define FLUSH(name) \
  int name(int fd) { \
    REAL(int, #name, int); \
    return inside(fd) && fails() ? -1 : real(fd); \
  }
FLUSH(fsync)
FLUSH(fdatasync)

#define TRUNCATE(name, offset_type) \
  int name(int fd, offset_type size) { \
    REAL(int, #name, int, offset_type); \
    return inside(fd) && fails() ? -1 : real(fd, size); \
  }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

int rename(const char *from, const char *to) {
  REAL(int, "rename", const char *, const char *);
  int here = left >= 0 && strncmp(to, folder, strlen(folder)) == 0;
  return here && fails() ? -1 : real(from, to);
}
