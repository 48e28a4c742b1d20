/*
 * A fake libnvidia-ml.so.1: plays declared power curves through declared sensors.
 *
 * Loaded below the real pynvml. The scenario, written by energybench.testing.server, is the file that the environment
 * variable ENERGYBENCH_FAKE_NVML names; without it there is "no driver". Every value is a function of CLOCK_MONOTONIC and
 * the scenario alone, so that all processes see the same cards; what a setter sets they share in a file beside the
 * scenario. Loaded by LD_PRELOAD it also lets the wall clock step.
 *
 * Time t is in seconds since the scenario's start; power is in watts, energy in joules, until a value is handed out.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, VERSION_MISMATCH = 25, UNKNOWN_ERROR = 999
};
enum { TYPE_UINT = 1, TYPE_ULONGLONG = 3 };
enum { FIELD_ENERGY = 83, FIELD_AVERAGE = 185, FIELD_INSTANT = 186 };
enum { TOTAL_POWER_SAMPLES = 0 };
enum { MAX_CARDS = 64, MAX_INSTANCES = 7, MAX_LINE = 1 << 16, TEXT = 96 };

typedef struct { double t, w; } Knot;
typedef struct { double from, to, period, phase; int n; Knot *knots; } Part;
typedef struct { double from, to; } Span;
typedef struct { char function[64]; int code; Span span; } Failure;
typedef struct { int there; double update, phase, latency, window, lag, gain, offset; } Sensor;
typedef struct { int there; double update, phase, latency, gain, offset, start, read, worst; int every; } Counter;
typedef struct {
    int there; double update, phase, latency, window, gain, offset; int count, monotonic; double clock_offset, drift;
} Buffer;
typedef struct { unsigned pid; unsigned long long bytes; int graphics; } Process;

/* What a card says of itself, from a time on. */
typedef struct {
    double from;
    unsigned limit, temperature, sm_mhz, mem_mhz, utilization, mem_utilization, pstate;
    unsigned long long reasons, used;
    int processes; Process *process;
} State;

typedef struct {
    char name[TEXT], uuid[TEXT], pci[32];
    int major, minor, architecture;
    unsigned long long memory;
    unsigned default_limit, min_limit, max_limit, max_sm_mhz, max_mem_mhz, persistence;
    int mig, may_set;
    int states; State *state;
    int instances; char instance[MAX_INSTANCES][TEXT];
    int parts; Part *part;
    int resets; double *reset;
    int failures; Failure *failure;
    int losses; Span *loss;
    Counter counter;
    Sensor usage, instant, average;
    Buffer buffer;
} Card;

typedef struct {
    int64_t start_ns, wall_offset_ns;
    char driver[TEXT], nvml[TEXT];
    int cuda;
    int steps; Knot *step;
    int reloads; Span *reload;
    int failures; Failure *failure;
    int cards; Card *card;
} Scenario;

typedef struct { unsigned index; double since; } Handle;

/* What was set, by any process; 0: nothing, it is as declared. */
typedef struct { uint32_t limit_mw, persistence; uint64_t locked_mhz; } Settings;
enum { PERSISTENCE_OFF = 1, PERSISTENCE_ON = 2 };

static Scenario *scenario;
static Settings *settings;
static Handle handles[MAX_CARDS];
static Handle instance_handles[MAX_CARDS][MAX_INSTANCES];
static int users;
static double initialized_at;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- clocks ---- */

static int64_t system_ns(clockid_t id) {
    struct timespec now;
    syscall(SYS_clock_gettime, id, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static double seconds(const Scenario *s, int64_t monotonic_ns) { return (double)(monotonic_ns - s->start_ns) / 1e9; }

static double now_s(void) { return seconds(scenario, system_ns(CLOCK_MONOTONIC)); }

static double stepped_s(const Scenario *s, double t) {
    double sum = 0;
    for (int i = 0; i < s->steps; i++)
        if (s->step[i].t <= t) sum += s->step[i].w;
    return sum;
}

/* The wall clock as it stood at t, in microseconds. */
static unsigned long long wall_us(double t) {
    double ns = t * 1e9 + stepped_s(scenario, t) * 1e9;
    return (unsigned long long)((scenario->start_ns + scenario->wall_offset_ns + llround(ns)) / 1000);
}

static void sleep_until(double t) {
    int64_t ns = scenario->start_ns + llround(t * 1e9);
    struct timespec end = {ns / 1000000000, ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR) { }
}

/* ---- the truth: closed forms ---- */

static double knots_power(const Part *p, double x) {
    if (x < p->knots[0].t) return p->knots[0].w;
    for (int i = 1; i < p->n; i++) {
        Knot a = p->knots[i - 1], b = p->knots[i];
        if (x < b.t) return a.w + (b.w - a.w) * (x - a.t) / (b.t - a.t);
    }
    return p->knots[p->n - 1].w;
}

static double knots_energy(const Part *p, double x) {
    if (x < p->knots[0].t) return p->knots[0].w * (x - p->knots[0].t);
    double sum = 0;
    for (int i = 1; i < p->n; i++) {
        Knot a = p->knots[i - 1], b = p->knots[i];
        if (x < b.t) {
            double w = a.w + (b.w - a.w) * (x - a.t) / (b.t - a.t);
            return sum + (a.w + w) / 2 * (x - a.t);
        }
        sum += (a.w + b.w) / 2 * (b.t - a.t);
    }
    return sum + p->knots[p->n - 1].w * (x - p->knots[p->n - 1].t);
}

static double part_power(const Part *p, double t) {
    if (t < p->from || t >= p->to) return 0;
    double x = t - p->phase;
    return knots_power(p, p->period > 0 ? x - floor(x / p->period) * p->period : x);
}

static double part_energy(const Part *p, double t) {
    double x = fmin(fmax(t, p->from), p->to) - p->phase;
    if (p->period <= 0) return knots_energy(p, x);
    double n = floor(x / p->period);
    return n * knots_energy(p, p->period) + knots_energy(p, x - n * p->period);
}

static double energy(const Card *c, double from, double to) {
    double sum = 0;
    for (int i = 0; i < c->parts; i++) sum += part_energy(&c->part[i], to) - part_energy(&c->part[i], from);
    return sum;
}

static double power(const Card *c, double t) {
    double sum = 0;
    for (int i = 0; i < c->parts; i++) sum += part_power(&c->part[i], t);
    return sum;
}

/* The next time after t at which the part's power may bend or jump, or limit. */
static double next_bend(const Part *p, double t, double limit) {
    double least = 1e-9, x = t - p->phase, base = 0, next = limit;
    if (p->from > t + least) next = fmin(next, p->from);
    if (p->to > t + least) next = fmin(next, p->to);
    if (p->period > 0) base = floor(x / p->period) * p->period;
    for (int turn = 0; turn <= (p->period > 0); turn++)
        for (int i = 0; i < p->n; i++) {
            double bend = p->knots[i].t + base + turn * p->period + p->phase;
            if (bend > t + least) next = fmin(next, bend);
        }
    return next;
}

/* A first-order lag: y' = (p - y) / lag, solved piece by piece; what is older than 30 lags weighs 1e-13. */
static double part_lagged(const Part *p, double t, double lag) {
    double s = t - 30 * lag, y = part_power(p, s);
    while (s < t) {
        double end = next_bend(p, s, t), d = end - s;
        if (d <= 0) break;
        double low = part_power(p, s + d / 4), high = part_power(p, s + 3 * d / 4);
        double slope = (high - low) / (d / 2), first = low - slope * d / 4;
        y = first + slope * (d - lag) + (y - first + slope * lag) * exp(-d / lag);
        s = end;
    }
    return y;
}

static double seen(const Card *c, double t, double window, double lag) {
    if (window > 0) return energy(c, t - window, t) / window;
    if (lag <= 0) return power(c, t);
    double sum = 0;
    for (int i = 0; i < c->parts; i++) sum += part_lagged(&c->part[i], t, lag);
    return sum;
}

/* ---- the sensors ---- */

static double last_update(double t, double update, double phase) {
    return update > 0 ? floor((t - phase) / update) * update + phase : t;
}

static unsigned milliwatts(double w) { return w > 0 ? (unsigned)llround(w * 1000) : 0; }

static unsigned sensor_mw(const Card *c, const Sensor *s, double t) {
    double u = last_update(t - s->latency, s->update, s->phase);
    return milliwatts(s->gain * seen(c, u, s->window, s->lag) + s->offset);
}

static unsigned long long counter_mj(const Card *c, double t) {
    const Counter *k = &c->counter;
    double since = 0, joules = k->start;
    int reset = 0;
    for (int i = 0; i < c->resets; i++)
        if (c->reset[i] <= t && (!reset || c->reset[i] > since)) { since = c->reset[i]; joules = 0; reset = 1; }
    double u = last_update(t - k->latency, k->update, k->phase);
    if (u > since || !reset) joules += k->gain * energy(c, since, u) + k->offset * (u - since);
    return joules > 0 ? (unsigned long long)floor(joules * 1000) : 0;
}

/* A read takes its time; the value is that of its middle. */
static unsigned long long read_counter(const Card *c) {
    const Counter *k = &c->counter;
    double start = now_s(), length = k->read;
    long tick = k->update > 0 ? (long)floor((start - k->phase) / k->update) : 0;
    if (k->every > 0 && tick % k->every == 0) length = k->worst;
    if (length > 0) sleep_until(start + length);
    return counter_mj(c, start + length / 2);
}

static unsigned long long stamp_us(const Buffer *b, double t) {
    if (!b->monotonic) return wall_us(t);
    double ns = t * 1e9 + b->clock_offset * 1e9 + b->drift * t * 1e9;
    return (unsigned long long)((scenario->start_ns + llround(ns)) / 1000);
}

/* ---- the scenario file ---- */

static void *grown(void *items, int n, size_t size) {
    void *more = realloc(items, (size_t)(n + 1) * size);
    if (!more) abort();
    return more;
}

#define APPEND(items, n) ((items) = grown((items), (n), sizeof *(items)), &(items)[(n)++])

static double number(char **rest) {
    char *word = strsep(rest, " ");
    return word ? strtod(word, NULL) : 0;
}

static void text(char *into, size_t size, const char *from) { snprintf(into, size, "%s", from ? from : ""); }

static void parse_part(Card *c, char *rest) {
    Part *p = APPEND(c->part, c->parts);
    p->from = number(&rest), p->to = number(&rest), p->period = number(&rest), p->phase = number(&rest);
    p->n = (int)number(&rest);
    p->knots = calloc((size_t)p->n + 1, sizeof(Knot));
    for (int i = 0; i < p->n; i++) p->knots[i].t = number(&rest), p->knots[i].w = number(&rest);
}

static void parse_sensor(Sensor *s, char *rest) {
    s->there = 1;
    s->update = number(&rest), s->phase = number(&rest), s->latency = number(&rest), s->window = number(&rest);
    s->lag = number(&rest), s->gain = number(&rest), s->offset = number(&rest);
}

static void parse_counter(Counter *k, char *rest) {
    k->there = 1;
    k->update = number(&rest), k->phase = number(&rest), k->latency = number(&rest), k->gain = number(&rest);
    k->offset = number(&rest), k->start = number(&rest), k->read = number(&rest), k->worst = number(&rest);
    k->every = (int)number(&rest);
}

static void parse_buffer(Buffer *b, char *rest) {
    b->there = 1;
    b->update = number(&rest), b->phase = number(&rest), b->latency = number(&rest), b->window = number(&rest);
    b->gain = number(&rest), b->offset = number(&rest), b->count = (int)number(&rest);
    b->monotonic = (int)number(&rest), b->clock_offset = number(&rest), b->drift = number(&rest);
}

static void parse_state(State *s, char *rest) {
    s->from = number(&rest), s->limit = (unsigned)number(&rest), s->temperature = (unsigned)number(&rest);
    s->sm_mhz = (unsigned)number(&rest), s->mem_mhz = (unsigned)number(&rest);
    s->utilization = (unsigned)number(&rest), s->mem_utilization = (unsigned)number(&rest);
    s->pstate = (unsigned)number(&rest), s->reasons = (unsigned long long)number(&rest);
    s->used = (unsigned long long)number(&rest), s->processes = 0, s->process = NULL;
}

static int parse_process(Card *c, char *rest, int graphics) {
    if (!c->states) return 0;
    State *s = &c->state[c->states - 1];
    Process *p = APPEND(s->process, s->processes);
    p->pid = (unsigned)number(&rest), p->bytes = (unsigned long long)number(&rest), p->graphics = graphics;
    return 1;
}

static void parse_failure(Failure *f, char *rest) {
    text(f->function, sizeof f->function, strsep(&rest, " "));
    f->code = (int)number(&rest), f->span.from = number(&rest), f->span.to = number(&rest);
}

static Span parse_span(char *rest) {
    Span span = {0, 0};
    span.from = number(&rest), span.to = number(&rest);
    return span;
}

static int parse_server(Scenario *s, const char *key, char *rest) {
    if (!strcmp(key, "start_ns")) s->start_ns = strtoll(rest, NULL, 10);
    else if (!strcmp(key, "wall_offset_ns")) s->wall_offset_ns = strtoll(rest, NULL, 10);
    else if (!strcmp(key, "driver")) text(s->driver, sizeof s->driver, rest);
    else if (!strcmp(key, "nvml")) text(s->nvml, sizeof s->nvml, rest);
    else if (!strcmp(key, "cuda")) s->cuda = (int)number(&rest);
    else if (!strcmp(key, "wall_step")) {
        Knot *step = APPEND(s->step, s->steps);
        step->t = number(&rest), step->w = number(&rest);
    } else if (!strcmp(key, "reload")) *APPEND(s->reload, s->reloads) = parse_span(rest);
    else if (!strcmp(key, "server_failure")) parse_failure(APPEND(s->failure, s->failures), rest);
    else if (!strcmp(key, "card") && s->cards < MAX_CARDS) memset(APPEND(s->card, s->cards), 0, sizeof(Card));
    else return 0;
    return 1;
}

static int parse_card(Card *c, const char *key, char *rest) {
    if (!strcmp(key, "name")) text(c->name, sizeof c->name, rest);
    else if (!strcmp(key, "uuid")) text(c->uuid, sizeof c->uuid, rest);
    else if (!strcmp(key, "pci")) text(c->pci, sizeof c->pci, rest);
    else if (!strcmp(key, "capability")) c->major = (int)number(&rest), c->minor = (int)number(&rest);
    else if (!strcmp(key, "architecture")) c->architecture = (int)number(&rest);
    else if (!strcmp(key, "memory")) c->memory = (unsigned long long)number(&rest);
    else if (!strcmp(key, "limits_mw")) {
        c->default_limit = (unsigned)number(&rest);
        c->min_limit = (unsigned)number(&rest), c->max_limit = (unsigned)number(&rest);
    } else if (!strcmp(key, "max_mhz")) c->max_sm_mhz = (unsigned)number(&rest), c->max_mem_mhz = (unsigned)number(&rest);
    else if (!strcmp(key, "modes")) {
        c->persistence = (unsigned)number(&rest), c->mig = (int)number(&rest), c->may_set = (int)number(&rest);
    }
    else if (!strcmp(key, "state")) parse_state(APPEND(c->state, c->states), rest);
    else if (!strcmp(key, "process")) return parse_process(c, rest, 0);
    else if (!strcmp(key, "graphics_process")) return parse_process(c, rest, 1);
    else if (!strcmp(key, "part")) parse_part(c, rest);
    else if (!strcmp(key, "counter")) parse_counter(&c->counter, rest);
    else if (!strcmp(key, "reset")) *APPEND(c->reset, c->resets) = number(&rest);
    else if (!strcmp(key, "usage")) parse_sensor(&c->usage, rest);
    else if (!strcmp(key, "instant")) parse_sensor(&c->instant, rest);
    else if (!strcmp(key, "average")) parse_sensor(&c->average, rest);
    else if (!strcmp(key, "buffer")) parse_buffer(&c->buffer, rest);
    else if (!strcmp(key, "failure")) parse_failure(APPEND(c->failure, c->failures), rest);
    else if (!strcmp(key, "instance") && c->instances < MAX_INSTANCES)
        text(c->instance[c->instances++], TEXT, rest);
    else if (!strcmp(key, "lost")) *APPEND(c->loss, c->losses) = parse_span(rest);
    else return 0;
    return 1;
}

/* A scenario is small and never freed: a thread may still be reading the one before. NULL: none, or a bad line. */
static Scenario *load(void) {
    const char *path = getenv("ENERGYBENCH_FAKE_NVML");
    FILE *file = path && *path ? fopen(path, "re") : NULL;
    if (!file) return NULL;
    Scenario *s = calloc(1, sizeof *s);
    char *line = malloc(MAX_LINE);
    while (s && line && fgets(line, MAX_LINE, file)) {
        line[strcspn(line, "\n")] = 0;
        char *rest = line, *key = strsep(&rest, " ");
        char empty[1] = "";
        if (!*key || *key == '#') continue;
        if (!rest) rest = empty;
        if (parse_server(s, key, rest)) continue;
        if (s->cards && parse_card(&s->card[s->cards - 1], key, rest)) continue;
        fprintf(stderr, "fake NVML: %s: unknown line '%s'\n", path, key);
        s = NULL;
    }
    free(line);
    fclose(file);
    return s;
}

/* ---- what was set ---- */

/* Shared by all processes of this scenario, in the file PATH.set; NULL where that cannot be made. */
static Settings *map_settings(void) {
    char path[4096];
    size_t size = MAX_CARDS * sizeof(Settings);
    snprintf(path, sizeof path, "%s.set", getenv("ENERGYBENCH_FAKE_NVML"));
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) return NULL;
    void *map = ftruncate(file, (off_t)size) ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return map == MAP_FAILED ? NULL : map;
}

#define GET(pointer) __atomic_load_n((pointer), __ATOMIC_SEQ_CST)
#define SET(pointer, value) __atomic_store_n((pointer), (value), __ATOMIC_SEQ_CST)

static Settings *settings_of(const Card *c) { return settings ? &settings[c - scenario->card] : NULL; }

/* ---- failures ---- */

static int inside(Span span, double t) { return t >= span.from && t < span.to; }

static int planned(const Failure *failure, int n, const char *function, double t) {
    for (int i = 0; i < n; i++)
        if ((!strcmp(failure[i].function, "*") || !strcmp(failure[i].function, function)) && inside(failure[i].span, t))
            return failure[i].code;
    return SUCCESS;
}

static int reloading(const Scenario *s, double t) {
    for (int i = 0; i < s->reloads; i++)
        if (inside(s->reload[i], t)) return 1;
    return 0;
}

/* Whether the driver was reloaded after `since`: what was opened before is gone. */
static int reloaded(const Scenario *s, double since, double t) {
    for (int i = 0; i < s->reloads; i++)
        if (s->reload[i].from > since && s->reload[i].from <= t) return 1;
    return 0;
}

static int enter(const char *function) {
    if (!users || !scenario) return UNINITIALIZED;
    double t = now_s();
    if (reloaded(scenario, initialized_at, t)) return UNINITIALIZED;
    return planned(scenario->failure, scenario->failures, function, t);
}

static int enter_card(const char *function, void *device, Card **card) {
    int code = enter(function);
    if (code) return code;
    Handle *handle = device;
    if (handle < handles || handle >= handles + MAX_CARDS || (int)handle->index >= scenario->cards)
        return INVALID_ARGUMENT;
    *card = &scenario->card[handle->index];
    double t = now_s();
    for (int i = 0; i < (*card)->losses; i++)
        if (inside((*card)->loss[i], t)) return GPU_IS_LOST;
    return planned((*card)->failure, (*card)->failures, function, t);
}

/* The card's state now; the first holds from ever on. */
static const State *state(const Card *c) {
    double t = now_s();
    int i = c->states - 1;
    while (i > 0 && c->state[i].from > t) i--;
    return &c->state[i];
}

#define API __attribute__((visibility("default")))
#define ENTER() do { int code_ = enter(__func__); if (code_) return code_; } while (0)
#define CARD() Card *card; do { int code_ = enter_card(__func__, device, &card); if (code_) return code_; } while (0)
#define NEED(pointer) do { if (!(pointer)) return INVALID_ARGUMENT; } while (0)

/* ---- NVML: library ---- */

API int energybench_fake_nvml(void) { return 1; }

API int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int code = SUCCESS;
    pthread_mutex_lock(&lock);
    if (!users) {
        Scenario *s = load();
        double t = s ? seconds(s, system_ns(CLOCK_MONOTONIC)) : 0;
        if (!s || reloading(s, t)) code = DRIVER_NOT_LOADED;
        else code = planned(s->failure, s->failures, "nvmlInit", t);
        if (!code) scenario = s, initialized_at = t, settings = map_settings();
    }
    if (!code) users++;
    pthread_mutex_unlock(&lock);
    return code;
}

API int nvmlInit(void) { return nvmlInitWithFlags(0); }
API int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

API int nvmlShutdown(void) {
    pthread_mutex_lock(&lock);
    int code = users ? SUCCESS : UNINITIALIZED;
    if (users) users--;
    pthread_mutex_unlock(&lock);
    return code;
}

API const char *nvmlErrorString(int code) {
    switch (code) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case 10: return "Timeout";
    case 13: return "Function Not Found";
    case GPU_IS_LOST: return "GPU is lost";
    case 16: return "GPU requires restart";
    case 18: return "Driver/library version mismatch";
    case VERSION_MISMATCH: return "Argument version mismatch";
    default: return "Unknown Error";
    }
}

static int copy(char *into, unsigned size, const char *from) {
    NEED(into);
    if (strlen(from) >= size) return INSUFFICIENT_SIZE;
    strcpy(into, from);
    return SUCCESS;
}

API int nvmlSystemGetDriverVersion(char *into, unsigned size) { ENTER(); return copy(into, size, scenario->driver); }
API int nvmlSystemGetNVMLVersion(char *into, unsigned size) { ENTER(); return copy(into, size, scenario->nvml); }

API int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    ENTER();
    NEED(version);
    *version = scenario->cuda;
    return SUCCESS;
}

API int nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }

/* ---- NVML: which card ---- */

API int nvmlDeviceGetCount_v2(unsigned *count) {
    ENTER();
    NEED(count);
    *count = (unsigned)scenario->cards;
    return SUCCESS;
}

API int nvmlDeviceGetCount(unsigned *count) { return nvmlDeviceGetCount_v2(count); }

static int hand_out(int index, void **device) {
    const Card *c = &scenario->card[index];
    for (int i = 0; i < c->losses; i++)
        if (inside(c->loss[i], now_s())) return GPU_IS_LOST;
    handles[index].index = (unsigned)index;
    *device = &handles[index];
    return SUCCESS;
}

API int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    ENTER();
    NEED(device);
    return index < (unsigned)scenario->cards ? hand_out((int)index, device) : INVALID_ARGUMENT;
}

API int nvmlDeviceGetHandleByIndex(unsigned i, void **device) { return nvmlDeviceGetHandleByIndex_v2(i, device); }

API int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    ENTER();
    NEED(uuid && device);
    for (int i = 0; i < scenario->cards; i++)
        if (!strcmp(scenario->card[i].uuid, uuid)) return hand_out(i, device);
    return NOT_FOUND;
}

static int parse_pci(const char *text_, unsigned id[4]) {
    return sscanf(text_, "%x:%x:%x.%x", &id[0], &id[1], &id[2], &id[3]) == 4;
}

API int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, void **device) {
    ENTER();
    unsigned wanted[4], have[4];
    NEED(pci && device && parse_pci(pci, wanted));
    for (int i = 0; i < scenario->cards; i++)
        if (parse_pci(scenario->card[i].pci, have) && !memcmp(wanted, have, sizeof have)) return hand_out(i, device);
    return NOT_FOUND;
}

API int nvmlDeviceGetHandleByPciBusId(const char *pci, void **device) {
    return nvmlDeviceGetHandleByPciBusId_v2(pci, device);
}

API int nvmlDeviceGetName(void *device, char *into, unsigned size) { CARD(); return copy(into, size, card->name); }

static const char *instance_uuid(const Handle *handle) {
    if (handle < instance_handles[0] || handle >= instance_handles[MAX_CARDS]) return NULL;
    return scenario->card[(handle - instance_handles[0]) / MAX_INSTANCES].instance[handle->index];
}

API int nvmlDeviceGetUUID(void *device, char *into, unsigned size) {
    if (instance_uuid(device)) {
        ENTER();
        return copy(into, size, instance_uuid(device));
    }
    CARD();
    return copy(into, size, card->uuid);
}

API int nvmlDeviceGetIndex(void *device, unsigned *index) {
    CARD();
    NEED(index);
    *index = (unsigned)(card - scenario->card);
    return SUCCESS;
}

API int nvmlDeviceGetMinorNumber(void *device, unsigned *minor) {
    CARD();
    NEED(minor);
    *minor = (unsigned)(card - scenario->card);
    return SUCCESS;
}

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char id[32];
} PciInfo;

API int nvmlDeviceGetPciInfo_v3(void *device, PciInfo *info) {
    CARD();
    unsigned id[4] = {0};
    NEED(info);
    parse_pci(card->pci, id);
    memset(info, 0, sizeof *info);
    snprintf(info->legacy, sizeof info->legacy, "%04X:%02X:%02X.%X", id[0] & 0xffff, id[1] & 0xff, id[2] & 0xff, id[3] & 7);
    snprintf(info->id, sizeof info->id, "%08X:%02X:%02X.%X", id[0], id[1] & 0xff, id[2] & 0xff, id[3] & 7);
    info->domain = id[0], info->bus = id[1], info->device = id[2], info->device_id = 0x10de;
    return SUCCESS;
}

API int nvmlDeviceGetPciInfo(void *device, PciInfo *info) { return nvmlDeviceGetPciInfo_v3(device, info); }

API int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    CARD();
    NEED(major && minor);
    *major = card->major, *minor = card->minor;
    return SUCCESS;
}

API int nvmlDeviceGetArchitecture(void *device, unsigned *architecture) {
    CARD();
    NEED(architecture);
    *architecture = (unsigned)card->architecture;
    return SUCCESS;
}

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;

API int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
    CARD();
    NEED(memory);
    unsigned long long used = state(card)->used;
    *memory = (Memory){card->memory, card->memory - used, used};
    return SUCCESS;
}

API int nvmlDeviceGetMemoryInfo_v2(void *device, MemoryV2 *memory) {
    CARD();
    NEED(memory);
    if (memory->version != (sizeof *memory | 2u << 24)) return VERSION_MISMATCH;
    unsigned long long used = state(card)->used;
    *memory = (MemoryV2){memory->version, card->memory, 0, card->memory - used, used};
    return SUCCESS;
}

/* ---- NVML: state ---- */

API int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius) {
    CARD();
    NEED(celsius && sensor == 0);
    *celsius = state(card)->temperature;
    return SUCCESS;
}

typedef struct { unsigned version, sensor; int celsius; } Temperature;

API int nvmlDeviceGetTemperatureV(void *device, Temperature *temperature) {
    CARD();
    NEED(temperature && temperature->sensor == 0);
    if (temperature->version != (sizeof *temperature | 1u << 24)) return VERSION_MISMATCH;
    temperature->celsius = (int)state(card)->temperature;
    return SUCCESS;
}

/* The clock within the bounds that were set for it. */
static unsigned locked(const Card *c, unsigned mhz) {
    Settings *set = settings_of(c);
    uint64_t bounds = set ? GET(&set->locked_mhz) : 0;
    unsigned low = (unsigned)(bounds >> 32), high = (unsigned)bounds;
    return !bounds ? mhz : mhz < low ? low : mhz > high ? high : mhz;
}

API int nvmlDeviceGetClockInfo(void *device, unsigned type, unsigned *mhz) {
    CARD();
    NEED(mhz && type < 4);
    *mhz = type == 2 ? state(card)->mem_mhz : locked(card, state(card)->sm_mhz);
    return SUCCESS;
}

API int nvmlDeviceGetMaxClockInfo(void *device, unsigned type, unsigned *mhz) {
    CARD();
    NEED(mhz && type < 4);
    *mhz = type == 2 ? card->max_mem_mhz : card->max_sm_mhz;
    return SUCCESS;
}

API int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons) {
    CARD();
    NEED(reasons);
    *reasons = state(card)->reasons;
    return SUCCESS;
}

API int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
    return nvmlDeviceGetCurrentClocksEventReasons(device, reasons);
}

static unsigned limit_mw(const Card *c) {
    Settings *set = settings_of(c);
    unsigned mw = set ? GET(&set->limit_mw) : 0;
    return mw ? mw : state(c)->limit;
}

API int nvmlDeviceGetPowerManagementLimit(void *device, unsigned *mw) {
    CARD();
    NEED(mw);
    *mw = limit_mw(card);
    return SUCCESS;
}

API int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *mw) {
    CARD();
    NEED(mw);
    *mw = limit_mw(card);
    return SUCCESS;
}

API int nvmlDeviceGetPowerManagementDefaultLimit(void *device, unsigned *mw) {
    CARD();
    NEED(mw);
    *mw = card->default_limit;
    return SUCCESS;
}

API int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *min_mw, unsigned *max_mw) {
    CARD();
    NEED(min_mw && max_mw);
    *min_mw = card->min_limit, *max_mw = card->max_limit;
    return SUCCESS;
}

API int nvmlDeviceGetUtilizationRates(void *device, unsigned rates[2]) {
    CARD();
    NEED(rates);
    rates[0] = state(card)->utilization, rates[1] = state(card)->mem_utilization;
    return SUCCESS;
}

typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } ProcessInfo;

/* Without room for all: how many there are. */
static int running(const State *s, int graphics, unsigned *count, ProcessInfo *infos) {
    unsigned room = *count, there = 0;
    for (int i = 0; i < s->processes; i++) {
        if (s->process[i].graphics != graphics) continue;
        if (infos && there < room) infos[there] = (ProcessInfo){s->process[i].pid, s->process[i].bytes, ~0u, ~0u};
        there++;
    }
    *count = there;
    return room < there || (there && !infos) ? INSUFFICIENT_SIZE : SUCCESS;
}

API int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, ProcessInfo *infos) {
    CARD();
    NEED(count);
    return running(state(card), 0, count, infos);
}

API int nvmlDeviceGetComputeRunningProcesses_v2(void *device, unsigned *count, ProcessInfo *infos) {
    return nvmlDeviceGetComputeRunningProcesses_v3(device, count, infos);
}

API int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, ProcessInfo *infos) {
    CARD();
    NEED(count);
    return running(state(card), 1, count, infos);
}

API int nvmlDeviceGetGraphicsRunningProcesses_v2(void *device, unsigned *count, ProcessInfo *infos) {
    return nvmlDeviceGetGraphicsRunningProcesses_v3(device, count, infos);
}

API int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    CARD();
    NEED(current && pending);
    if (card->mig < 0) return NOT_SUPPORTED;
    *current = *pending = (unsigned)card->mig;
    return SUCCESS;
}

API int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) {
    CARD();
    NEED(count);
    *count = card->mig > 0 ? MAX_INSTANCES : 0;
    return SUCCESS;
}

API int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **instance) {
    CARD();
    NEED(instance);
    if (card->mig < 1) return NOT_SUPPORTED;
    if (index >= (unsigned)card->instances) return NOT_FOUND;
    Handle *handle = &instance_handles[card - scenario->card][index];
    handle->index = index;
    *instance = handle;
    return SUCCESS;
}

API int nvmlDeviceGetPersistenceMode(void *device, unsigned *mode) {
    CARD();
    NEED(mode);
    Settings *set = settings_of(card);
    unsigned asked = set ? GET(&set->persistence) : 0;
    *mode = asked ? asked == PERSISTENCE_ON : card->persistence;
    return SUCCESS;
}

API int nvmlDeviceGetPerformanceState(void *device, unsigned *pstate) {
    CARD();
    NEED(pstate);
    *pstate = state(card)->pstate;
    return SUCCESS;
}

API int nvmlDeviceGetPowerState(void *device, unsigned *pstate) { return nvmlDeviceGetPerformanceState(device, pstate); }

/* ---- NVML: setters. They change what the getters say, not the power. ---- */

#define SETTINGS() \
    CARD(); \
    Settings *set = settings_of(card); \
    do { if (!card->may_set) return NO_PERMISSION; if (!set) return UNKNOWN_ERROR; } while (0)

API int nvmlDeviceSetPowerManagementLimit(void *device, unsigned mw) {
    SETTINGS();
    if (mw < card->min_limit || mw > card->max_limit) return INVALID_ARGUMENT;
    SET(&set->limit_mw, mw);
    return SUCCESS;
}

/* From Volta on. */
API int nvmlDeviceSetGpuLockedClocks(void *device, unsigned low, unsigned high) {
    SETTINGS();
    if (card->major < 7) return NOT_SUPPORTED;
    if (!low || low > high || high > card->max_sm_mhz) return INVALID_ARGUMENT;
    SET(&set->locked_mhz, (uint64_t)low << 32 | high);
    return SUCCESS;
}

API int nvmlDeviceResetGpuLockedClocks(void *device) {
    SETTINGS();
    if (card->major < 7) return NOT_SUPPORTED;
    SET(&set->locked_mhz, 0);
    return SUCCESS;
}

API int nvmlDeviceSetPersistenceMode(void *device, unsigned mode) {
    SETTINGS();
    if (mode > 1) return INVALID_ARGUMENT;
    SET(&set->persistence, mode ? PERSISTENCE_ON : PERSISTENCE_OFF);
    return SUCCESS;
}

/* ---- NVML: power ---- */

API int nvmlDeviceGetPowerUsage(void *device, unsigned *mw) {
    CARD();
    NEED(mw);
    if (!card->usage.there) return NOT_SUPPORTED;
    *mw = sensor_mw(card, &card->usage, now_s());
    return SUCCESS;
}

API int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *mj) {
    CARD();
    NEED(mj);
    if (!card->counter.there) return NOT_SUPPORTED;
    *mj = read_counter(card);
    return SUCCESS;
}

typedef union { double d; unsigned u; unsigned long long ull; } Value;
typedef struct { unsigned id, scope; int64_t stamp_us, latency_us; unsigned type; int code; Value value; } Field;

static void read_field(const Card *card, Field *field) {
    const Sensor *sensor = field->id == FIELD_INSTANT ? &card->instant : &card->average;
    int known = field->id == FIELD_INSTANT || field->id == FIELD_AVERAGE;
    field->code = SUCCESS;
    field->stamp_us = (int64_t)wall_us(now_s());
    if (field->id == FIELD_ENERGY && card->counter.there) {
        field->type = TYPE_ULONGLONG;
        field->value.ull = read_counter(card);
    } else if (known && sensor->there && field->scope == 0) {
        field->type = TYPE_UINT;
        field->value.u = sensor_mw(card, sensor, now_s());
    } else {
        field->code = NOT_SUPPORTED;
    }
}

API int nvmlDeviceGetFieldValues(void *device, int count, Field *fields) {
    CARD();
    NEED(fields && count > 0);
    for (int i = 0; i < count; i++) {
        int64_t start = system_ns(CLOCK_MONOTONIC);
        read_field(card, &fields[i]);
        fields[i].latency_us = (system_ns(CLOCK_MONOTONIC) - start) / 1000;
    }
    return SUCCESS;
}

typedef struct { unsigned long long stamp_us; Value value; } Sample;

/* Without room for samples: how many there may be. Else the samples stamped later than last_seen, oldest first. */
API int nvmlDeviceGetSamples(
    void *device, unsigned kind, unsigned long long last_seen, unsigned *type, unsigned *count, Sample *samples
) {
    CARD();
    const Buffer *b = &card->buffer;
    NEED(type && count);
    if (kind != TOTAL_POWER_SAMPLES || !b->there) return NOT_SUPPORTED;
    *type = TYPE_UINT;
    if (!samples) {
        *count = (unsigned)b->count + 1;
        return SUCCESS;
    }
    NEED(*count > 0);
    double newest = last_update(now_s() - b->latency, b->update, b->phase);
    unsigned room = *count, n = 0;
    for (int i = b->count - 1; i >= 0 && n < room; i--) {
        double t = newest - i * b->update;
        Sample sample = {.stamp_us = stamp_us(b, t)};
        if (sample.stamp_us <= last_seen) continue;
        sample.value.u = milliwatts(b->gain * seen(card, t, b->window, 0) + b->offset);
        samples[n++] = sample;
    }
    *count = n;
    return n ? SUCCESS : NOT_FOUND;
}

/* ---- the wall clock, where this library is loaded by LD_PRELOAD ---- */

static Scenario *wall;

__attribute__((constructor)) static void load_wall(void) {
    Scenario *s = load();
    if (s && s->steps) wall = s;
}

API int clock_gettime(clockid_t id, struct timespec *time) {
    int code = (int)syscall(SYS_clock_gettime, id, time);
    if (code || !wall || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE)) return code;
    double step = stepped_s(wall, seconds(wall, system_ns(CLOCK_MONOTONIC)));
    int64_t ns = (int64_t)time->tv_sec * 1000000000 + time->tv_nsec + llround(step * 1e9);
    time->tv_sec = ns / 1000000000, time->tv_nsec = ns % 1000000000;
    return 0;
}
