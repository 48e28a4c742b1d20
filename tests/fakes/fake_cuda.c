/* A CUDA driver of four devices, of which CUDA_BUSY says which have a context of this process: "0110".
   Work on each of them ends CUDA_WORK_MS after the library was loaded; every wait, and what is held, is told on
   standard error. CUDA_FAILS: the code that waiting gives. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { DEVICES = 4 };
static int held[DEVICES], pushed[8], depth;
static struct timespec begun;

__attribute__((constructor)) static void load(void) { clock_gettime(CLOCK_MONOTONIC, &begun); }

__attribute__((destructor)) static void unload(void) {
  int left = depth;
  for (int i = 0; i < DEVICES; i++) left += held[i];
  fprintf(stderr, "left %d\n", left);
}

int cuDeviceGetCount(int *count) {
  if (!getenv("CUDA_BUSY")) return 3; /* not initialised */
  *count = DEVICES;
  return 0;
}

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
  *flags = 0;
  *active = getenv("CUDA_BUSY")[device] == '1';
  return 0;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
  if (getenv("CUDA_BUSY")[device] != '1') fprintf(stderr, "new context on %d\n", device);
  held[device]++;
  *context = (void *)(long)(device + 1);
  return 0;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
  held[device]--;
  return 0;
}

int cuCtxPushCurrent_v2(void *context) {
  pushed[depth++] = (int)(long)context - 1;
  return 0;
}

int cuCtxPopCurrent_v2(void **context) {
  *context = (void *)(long)(pushed[--depth] + 1);
  return 0;
}

int cuCtxSynchronize(void) {
  const char *work = getenv("CUDA_WORK_MS"), *code = getenv("CUDA_FAILS");
  struct timespec end = begun;
  end.tv_nsec += (work ? atol(work) : 0) * 1000000L;
  end.tv_sec += end.tv_nsec / 1000000000L;
  end.tv_nsec %= 1000000000L;
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL);
  fprintf(stderr, "waited for %d\n", pushed[depth - 1]);
  return code ? atoi(code) : 0;
}
