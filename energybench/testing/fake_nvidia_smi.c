/*
 * A fake nvidia-smi above the fake libnvidia-ml.so.1, with which it is linked: both tell of the same cards.
 *
 * Formats, exit codes and beat are those of the real tool: each round asks anew, prints a line a card, flushes, sleeps.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };
enum { EXIT_INVALID = 2, EXIT_NOT_FOUND = 6 };
enum { FIELD_AVERAGE = 185, FIELD_INSTANT = 186, CLOCK_SM = 1, CLOCK_MEMORY = 2 };
enum { MAX_CARDS = 64, MAX_FIELDS = 64, TEXT = 128 };

typedef struct { char legacy[16]; unsigned domain, bus, device, device_id, subsystem_id; char id[32]; } PciInfo;
typedef struct { unsigned long long total, free, used; } Memory;
typedef union { double d; unsigned u; unsigned long long ull; } Value;
typedef struct { unsigned id, scope; int64_t stamp_us, latency_us; unsigned type; int code; Value value; } FieldValue;

int nvmlInit_v2(void);
int nvmlShutdown(void);
const char *nvmlErrorString(int code);
int nvmlSystemGetDriverVersion(char *into, unsigned size);
int nvmlSystemGetNVMLVersion(char *into, unsigned size);
int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
int nvmlDeviceGetIndex(void *device, unsigned *index);
int nvmlDeviceGetUUID(void *device, char *into, unsigned size);
int nvmlDeviceGetName(void *device, char *into, unsigned size);
int nvmlDeviceGetPciInfo_v3(void *device, PciInfo *info);
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor);
int nvmlDeviceGetMemoryInfo(void *device, Memory *memory);
int nvmlDeviceGetPowerUsage(void *device, unsigned *mw);
int nvmlDeviceGetFieldValues(void *device, int count, FieldValue *values);
int nvmlDeviceGetPowerManagementLimit(void *device, unsigned *mw);
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *mw);
int nvmlDeviceGetPowerManagementDefaultLimit(void *device, unsigned *mw);
int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *min_mw, unsigned *max_mw);
int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius);
int nvmlDeviceGetClockInfo(void *device, unsigned type, unsigned *mhz);
int nvmlDeviceGetMaxClockInfo(void *device, unsigned type, unsigned *mhz);
int nvmlDeviceGetUtilizationRates(void *device, unsigned rates[2]);
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons);
int nvmlDeviceGetPerformanceState(void *device, unsigned *state);
int nvmlDeviceGetPersistenceMode(void *device, unsigned *mode);
int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending);

/* ---- fields: each writes its value without the unit, and returns NVML's code ---- */

static char driver[TEXT];

static int driver_major(void) { return atoi(driver); }

static int watts(char *into, int code, unsigned mw) {
    snprintf(into, TEXT, "%.2f", mw / 1000.0);
    return code;
}

static int whole(char *into, int code, unsigned long long value) {
    snprintf(into, TEXT, "%llu", value);
    return code;
}

static int numbered(void *card, unsigned id, char *into) {
    FieldValue value = {.id = id};
    int code = nvmlDeviceGetFieldValues(card, 1, &value);
    return watts(into, code ? code : value.code, value.value.u);
}

static int constraint(void *card, char *into, int highest) {
    unsigned mw[2] = {0};
    int code = nvmlDeviceGetPowerManagementLimitConstraints(card, &mw[0], &mw[1]);
    return watts(into, code, mw[highest]);
}

static int memory(void *card, char *into, int which) {
    Memory m = {0};
    int code = nvmlDeviceGetMemoryInfo(card, &m);
    return whole(into, code, (which == 0 ? m.total : which == 1 ? m.used : m.free) >> 20);
}

static int utilization(void *card, char *into, int which) {
    unsigned rates[2] = {0};
    int code = nvmlDeviceGetUtilizationRates(card, rates);
    return whole(into, code, rates[which]);
}

static int onoff(char *into, int code, unsigned on) {
    snprintf(into, TEXT, "%s", on ? "Enabled" : "Disabled");
    return code;
}

#define FIELD(name) static int name(void *card, char *into)
#define NUMBER(name, type, call, format) \
    FIELD(name) { type value = 0; int code = call; return format(into, code, value); }

NUMBER(get_index, unsigned, nvmlDeviceGetIndex(card, &value), whole)
NUMBER(get_usage, unsigned, nvmlDeviceGetPowerUsage(card, &value), watts)
NUMBER(get_limit, unsigned, nvmlDeviceGetPowerManagementLimit(card, &value), watts)
NUMBER(get_enforced, unsigned, nvmlDeviceGetEnforcedPowerLimit(card, &value), watts)
NUMBER(get_default, unsigned, nvmlDeviceGetPowerManagementDefaultLimit(card, &value), watts)
NUMBER(get_temperature, unsigned, nvmlDeviceGetTemperature(card, 0, &value), whole)
NUMBER(get_sm, unsigned, nvmlDeviceGetClockInfo(card, CLOCK_SM, &value), whole)
NUMBER(get_mem, unsigned, nvmlDeviceGetClockInfo(card, CLOCK_MEMORY, &value), whole)
NUMBER(get_max_sm, unsigned, nvmlDeviceGetMaxClockInfo(card, CLOCK_SM, &value), whole)
NUMBER(get_max_mem, unsigned, nvmlDeviceGetMaxClockInfo(card, CLOCK_MEMORY, &value), whole)
NUMBER(get_persistence, unsigned, nvmlDeviceGetPersistenceMode(card, &value), onoff)
FIELD(get_uuid) { return nvmlDeviceGetUUID(card, into, TEXT); }
FIELD(get_name) { return nvmlDeviceGetName(card, into, TEXT); }
FIELD(get_driver) { (void)card; strcpy(into, driver); return SUCCESS; }
FIELD(get_average) { return numbered(card, FIELD_AVERAGE, into); }
FIELD(get_instant) { return numbered(card, FIELD_INSTANT, into); }
FIELD(get_min) { return constraint(card, into, 0); }
FIELD(get_max) { return constraint(card, into, 1); }
FIELD(get_total) { return memory(card, into, 0); }
FIELD(get_used) { return memory(card, into, 1); }
FIELD(get_free) { return memory(card, into, 2); }
FIELD(get_gpu_share) { return utilization(card, into, 0); }
FIELD(get_memory_share) { return utilization(card, into, 1); }

FIELD(get_count) {
    unsigned count = 0;
    (void)card;
    int code = nvmlDeviceGetCount_v2(&count);
    return whole(into, code, count);
}

FIELD(get_stamp) {
    struct timespec now;
    struct tm local;
    (void)card;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    size_t length = strftime(into, TEXT, "%Y/%m/%d %H:%M:%S", &local);
    snprintf(into + length, TEXT - length, ".%03ld", now.tv_nsec / 1000000);
    return SUCCESS;
}

FIELD(get_pci) {
    PciInfo info = {0};
    int code = nvmlDeviceGetPciInfo_v3(card, &info);
    snprintf(into, TEXT, "%s", info.id);
    return code;
}

FIELD(get_capability) {
    int major = 0, minor = 0, code = nvmlDeviceGetCudaComputeCapability(card, &major, &minor);
    snprintf(into, TEXT, "%d.%d", major, minor);
    return code;
}

FIELD(get_state) {
    unsigned state = 0;
    int code = nvmlDeviceGetPerformanceState(card, &state);
    snprintf(into, TEXT, "P%u", state);
    return code;
}

FIELD(get_reasons) {
    unsigned long long reasons = 0;
    int code = nvmlDeviceGetCurrentClocksEventReasons(card, &reasons);
    snprintf(into, TEXT, "0x%016llx", reasons);
    return code;
}

FIELD(get_mig) {
    unsigned current = 0, pending = 0;
    int code = nvmlDeviceGetMigMode(card, &current, &pending);
    return onoff(into, code, current);
}

/* The name that the header shows, another that is understood, the unit, and the first driver that knows the field. */
typedef struct { const char *name, *other, *unit; int since; int (*get)(void *card, char *into); } Field;

static const Field FIELDS[] = {
    {"timestamp", NULL, NULL, 0, get_stamp},
    {"driver_version", NULL, NULL, 0, get_driver},
    {"count", NULL, NULL, 0, get_count},
    {"name", "gpu_name", NULL, 0, get_name},
    {"uuid", "gpu_uuid", NULL, 0, get_uuid},
    {"pci.bus_id", "gpu_bus_id", NULL, 0, get_pci},
    {"index", NULL, NULL, 0, get_index},
    {"persistence_mode", NULL, NULL, 0, get_persistence},
    {"pstate", NULL, NULL, 0, get_state},
    {"clocks_event_reasons.active", NULL, NULL, 535, get_reasons},
    {"clocks_throttle_reasons.active", NULL, NULL, 0, get_reasons},
    {"memory.total", NULL, "MiB", 0, get_total},
    {"memory.used", NULL, "MiB", 0, get_used},
    {"memory.free", NULL, "MiB", 0, get_free},
    {"compute_cap", NULL, NULL, 510, get_capability},
    {"utilization.gpu", NULL, "%", 0, get_gpu_share},
    {"utilization.memory", NULL, "%", 0, get_memory_share},
    {"temperature.gpu", NULL, NULL, 0, get_temperature},
    {"power.draw", NULL, "W", 0, get_usage},
    {"power.draw.average", "gpu.power.draw.average", "W", 530, get_average},
    {"power.draw.instant", "gpu.power.draw.instant", "W", 530, get_instant},
    {"power.limit", NULL, "W", 0, get_limit},
    {"enforced.power.limit", NULL, "W", 0, get_enforced},
    {"power.default_limit", NULL, "W", 0, get_default},
    {"power.min_limit", NULL, "W", 0, get_min},
    {"power.max_limit", NULL, "W", 0, get_max},
    {"clocks.current.sm", "clocks.sm", "MHz", 0, get_sm},
    {"clocks.current.graphics", "clocks.gr", "MHz", 0, get_sm},
    {"clocks.current.memory", "clocks.mem", "MHz", 0, get_mem},
    {"clocks.max.sm", NULL, "MHz", 0, get_max_sm},
    {"clocks.max.memory", "clocks.max.mem", "MHz", 0, get_max_mem},
    {"mig.mode.current", NULL, NULL, 450, get_mig},
};
enum { KNOWN = sizeof FIELDS / sizeof *FIELDS };

static const Field *find_field(const char *name) {
    for (int i = 0; i < KNOWN; i++) {
        const Field *field = &FIELDS[i];
        int named = !strcmp(name, field->name) || (field->other && !strcmp(name, field->other));
        if (named && driver_major() >= field->since) return field;
    }
    return NULL;
}

static const char *error_words(int code) {
    if (code == NOT_SUPPORTED) return driver_major() < 440 ? "Not Supported" : "N/A";
    return nvmlErrorString(code);
}

/* ---- the command line ---- */

typedef struct {
    const char *query, *format, *ids, *file;
    int list, help, help_query, version;
    double loop_s;
} Options;

static int usage(void) {
    puts("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n");
    return EXIT_INVALID;
}

static int help(void) {
    puts("NVIDIA System Management Interface\n\nnvidia-smi [OPTION1 [ARG1]] [OPTION2 [ARG2]] ...\n\n"
         "    -h,   --help\n    -L,   --list-gpus\n    --version\n    --help-query-gpu\n    --query-gpu=\n"
         "    --format=\n    -i,   --id=\n    -f,   --filename=\n    -l,   --loop=\n    -lms, --loop-ms=\n");
    return 0;
}

/* The value of "--long=VALUE", "-s VALUE", "-s=VALUE" or "--long VALUE"; NULL: this is another option. */
static const char *value_of(const char *name, const char *letter, int count, char **words, int *i) {
    const char *word = words[*i], *names[] = {name, letter};
    for (int k = 0; k < 2; k++) {
        size_t length = names[k] ? strlen(names[k]) : 0;
        if (!length || strncmp(word, names[k], length)) continue;
        if (word[length] == '=') return word + length + 1;
        if (!word[length] && *i + 1 < count) return words[++*i];
    }
    return NULL;
}

static int parse(Options *o, int count, char **words) {
    for (int i = 1; i < count; i++) {
        const char *value;
        if (!strcmp(words[i], "-L") || !strcmp(words[i], "--list-gpus")) o->list = 1;
        else if (!strcmp(words[i], "-h") || !strcmp(words[i], "--help")) o->help = 1;
        else if (!strcmp(words[i], "--help-query-gpu")) o->help_query = 1;
        else if (!strcmp(words[i], "--version")) o->version = 1;
        else if ((value = value_of("--query-gpu", NULL, count, words, &i))) o->query = value;
        else if ((value = value_of("--format", NULL, count, words, &i))) o->format = value;
        else if ((value = value_of("--loop-ms", "-lms", count, words, &i))) o->loop_s = atof(value) / 1000;
        else if ((value = value_of("--loop", "-l", count, words, &i))) o->loop_s = atof(value);
        else if ((value = value_of("--id", "-i", count, words, &i))) o->ids = value;
        else if ((value = value_of("--filename", "-f", count, words, &i))) o->file = value;
        else return 0;
    }
    return o->list || o->help || o->help_query || o->version || o->query;
}

/* ---- the cards ---- */

typedef struct { void *card[MAX_CARDS]; int count; } Cards;

static int named_by(const char *id, unsigned index, void *card) {
    char uuid[TEXT] = "", pci[TEXT] = "", number[16];
    get_uuid(card, uuid);
    get_pci(card, pci);
    snprintf(number, sizeof number, "%u", index);
    return !strcmp(id, number) || !strcmp(id, uuid) || !strcasecmp(id, pci);
}

static int wanted(const char *ids, unsigned index, void *card) {
    if (!ids) return 1;
    char copy[4096], *rest = copy, *id;
    snprintf(copy, sizeof copy, "%s", ids);
    while ((id = strsep(&rest, ",")))
        if (named_by(id, index, card)) return 1;
    return 0;
}

static int no_handle(unsigned index, int code) {
    printf("Unable to determine the device handle for GPU%u: %s%s\n\n", index, nvmlErrorString(code),
           code == GPU_IS_LOST ? ".  Reboot the system to recover this GPU" : "");
    return code;
}

/* Cards in the driver's order, whatever the order of `ids`. One without handle ends the tool, unless not asked for. */
static int find_cards(Cards *cards, const char *ids) {
    unsigned count = 0, lost = 0;
    int code = nvmlDeviceGetCount_v2(&count), worst = 0;
    for (unsigned i = 0; !code && i < count; i++) {
        void *card = NULL;
        int failed = nvmlDeviceGetHandleByIndex_v2(i, &card);
        if (failed) lost = i, worst = failed;
        else if (wanted(ids, i, card)) cards->card[cards->count++] = card;
    }
    if (worst && (!ids || !cards->count)) return no_handle(lost, worst);
    if (!code && !cards->count) puts("No devices were found"), code = EXIT_NOT_FOUND;
    return code;
}

/* ---- what it prints ---- */

/* A card without handle is named as such, and the others are listed. */
static int list(void) {
    unsigned count = 0;
    int worst = nvmlDeviceGetCount_v2(&count);
    for (unsigned i = 0; i < count; i++) {
        void *card = NULL;
        char name[TEXT], uuid[TEXT];
        int code = nvmlDeviceGetHandleByIndex_v2(i, &card);
        if (!code) code = get_name(card, name);
        if (!code) code = get_uuid(card, uuid);
        if (code) worst = no_handle(i, code);
        else printf("GPU %u: %s (UUID: %s)\n", i, name, uuid);
    }
    return worst;
}

static int help_query(void) {
    puts("List of valid properties to query for the switch \"--query-gpu\":\n");
    for (int i = 0; i < KNOWN; i++) {
        if (driver_major() < FIELDS[i].since) continue;
        printf(FIELDS[i].other ? "\"%s\" or \"%s\"\n\n" : "\"%s\"\n\n", FIELDS[i].name, FIELDS[i].other);
    }
    return SUCCESS;
}

static int has(const char *format, const char *word) { return format && strstr(format, word); }

static int parse_query(const char *query, const Field **fields) {
    char copy[4096], *rest = copy, *name;
    int n = 0;
    snprintf(copy, sizeof copy, "%s", query);
    while ((name = strsep(&rest, ",")) && n < MAX_FIELDS)
        if (!(fields[n++] = find_field(name))) {
            printf("Field \"%s\" is not a valid field to query.\n\n", name);
            return 0;
        }
    return n;
}

static void print_header(FILE *out, const Field **fields, int n, int units) {
    for (int i = 0; i < n; i++) {
        fprintf(out, "%s%s", i ? ", " : "", fields[i]->name);
        if (units && fields[i]->unit) fprintf(out, " [%s]", fields[i]->unit);
    }
    fputc('\n', out);
}

/* NVML's code that ends the tool, or 0: other errors stand in the place of their value. */
static int print_card(FILE *out, void *card, const Field **fields, int n, int units) {
    char text[MAX_FIELDS][TEXT];
    int code[MAX_FIELDS];
    for (int i = 0; i < n; i++)
        if ((code[i] = fields[i]->get(card, text[i])) == UNINITIALIZED) return DRIVER_NOT_LOADED;
    for (int i = 0; i < n; i++) {
        if (i) fputs(", ", out);
        if (code[i]) fprintf(out, "[%s]", error_words(code[i]));
        else fprintf(out, "%s%s%s", text[i], units && fields[i]->unit ? " " : "", units && fields[i]->unit ? fields[i]->unit : "");
    }
    fputc('\n', out);
    return SUCCESS;
}

static void pause_for(double seconds) {
    struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) && errno == EINTR) { }
}

static int query(const Options *o, const Cards *cards, const Field **fields, int n) {
    FILE *out = o->file ? fopen(o->file, "w") : stdout;
    int units = !has(o->format, "nounits"), code = SUCCESS;
    if (!out) return EXIT_INVALID;
    if (!has(o->format, "noheader")) print_header(out, fields, n, units);
    do {
        for (int i = 0; i < cards->count && !code; i++) code = print_card(out, cards->card[i], fields, n, units);
        fflush(out);
        if (o->loop_s > 0 && !code) pause_for(o->loop_s);
    } while (o->loop_s > 0 && !code);
    return code;
}

static int no_driver(int code) {
    if (code == DRIVER_NOT_LOADED)
        puts("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
             "NVIDIA driver is installed and running.\n");
    else
        printf("Failed to initialize NVML: %s\n", nvmlErrorString(code));
    return code > 254 ? 255 : code;
}

static int version(void) {
    char nvml[TEXT] = "";
    nvmlSystemGetNVMLVersion(nvml, sizeof nvml);
    printf("NVIDIA-SMI version  : %s\nNVML version        : %s\nDRIVER version      : %s\n", driver, nvml, driver);
    return SUCCESS;
}

static int run(const Options *o) {
    const Field *fields[MAX_FIELDS];
    Cards cards = {.count = 0};
    if (o->version) return version();
    if (o->help_query) return help_query();
    if (o->list) return list();
    int n = parse_query(o->query, fields);
    if (!n) return EXIT_INVALID;
    int code = find_cards(&cards, o->ids);
    if (code) return code;
    code = query(o, &cards, fields, n);
    return code == DRIVER_NOT_LOADED ? no_driver(code) : code;
}

int main(int count, char **words) {
    Options options = {.loop_s = 0};
    if (!parse(&options, count, words)) return usage();
    if (options.help) return help();
    int code = nvmlInit_v2();
    if (!code) code = nvmlSystemGetDriverVersion(driver, sizeof driver);
    if (code) return no_driver(code);
    code = run(&options);
    nvmlShutdown();
    return code > 254 ? 255 : code;
}
