/* AMD's library with two cards: the first draws 120 W; the second 300 W, and its energy counter counts a hundredfold.
 * HIP numbers them the other way round than the library does. Every call fails unless amdsmi_init was called. The
 * functions that are not played here are in rest.h, which the test writes from the names that amdsmi binds. */
#include <stdint.h>
#include <string.h>
#include <time.h>

enum { OK = 0, NOT_SUPPORTED = 2, NOT_INIT = 32 };
static int opened;
static int cards[2] = {0, 1};
static const uint32_t watts[2] = {120, 300};

typedef struct { uint32_t render, card, hsa, hip; char uuid[256]; } Enumeration;
typedef struct { uint64_t socket; uint32_t current, average; uint64_t volts[3]; uint32_t limit; uint64_t reserved[18]; } Power;
typedef struct {
    char market_name[256]; uint32_t vendor_id; char vendor[256]; uint32_t subvendor; uint64_t device; uint32_t rev;
    char serial[256]; uint32_t oam, units; uint64_t target; uint32_t subsystem, reserved[21];
} Asic;

int amdsmi_init(uint64_t flags) { (void)flags; opened = 1; return OK; }
int amdsmi_shut_down(void) { opened = 0; return OK; }

int amdsmi_get_socket_handles(uint32_t *count, void **handles) {
    if (!opened) return NOT_INIT;
    *count = 1;
    if (handles) handles[0] = cards;
    return OK;
}

int amdsmi_get_processor_handles(void *socket, uint32_t *count, void **handles) {
    (void)socket;
    if (!opened) return NOT_INIT;
    *count = 2;
    if (handles) { handles[0] = &cards[0]; handles[1] = &cards[1]; }
    return OK;
}

int amdsmi_get_gpu_enumeration_info(int *card, Enumeration *info) {
    memset(info, 0, sizeof *info);
    info->hip = 1 - *card;
    return OK;
}

int amdsmi_get_gpu_asic_info(int *card, Asic *info) {
    memset(info, 0, sizeof *info);
    strcpy(info->market_name, *card ? "AMD Instinct MI210" : "AMD Instinct MI300X");
    info->target = *card ? 0x90a : 0x942;
    return OK;
}

int amdsmi_get_gpu_device_uuid(int *card, uint32_t *length, char *uuid) {
    strcpy(uuid, *card ? "11ff74a1-0000-1000-80aa-000000000001" : "00ff74a1-0000-1000-80aa-000000000000");
    *length = strlen(uuid) + 1;
    return OK;
}

int amdsmi_get_gpu_device_bdf(int *card, uint64_t *bdf) { *bdf = (uint64_t)(*card + 1) << 8; return OK; }

int amdsmi_get_power_info(int *card, Power *info) {
    if (!opened) return NOT_INIT;
    memset(info, 0, sizeof *info);
    info->current = watts[*card];
    info->average = 0xFFFF;
    return OK;
}

int amdsmi_get_energy_count(int *card, uint64_t *count, float *resolution_uj, uint64_t *stamp) {
    struct timespec now;
    if (!opened) return NOT_INIT;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = now.tv_sec + now.tv_nsec / 1e9;
    *resolution_uj = 16.0f;
    *count = (uint64_t)(seconds * watts[*card] * 1e6 / 16.0) * (*card ? 100 : 1);
    *stamp = 0;
    return OK;
}

#include "rest.h"
