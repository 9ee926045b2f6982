/* One client for every server: it spawns one, talks JSON-RPC over its standard input and output, and times it.
 *
 *   client MODE FRAMING MILLIS WARM IN_FLIGHT PAUSE ONE_CORE MIN_LENGTH CHECK INIT REQUESTS -- COMMAND...
 *
 * MODE     cold: to the first answer, then the end    sequential: one request at a time
 *          pipelined: IN_FLIGHT at a time             stream: one request, many notifications, one answer
 * FRAMING  lines | headers         MILLIS, WARM   measure for so long, after so long        PAUSE  us between requests
 * ONE_CORE 1: client and server share one core, 0: wherever the system puts them (Linux)
 * CHECK    1: every answer must be a result, of at least MIN_LENGTH bytes, with the right id (sequential) or, together,
 *          the right sum of ids (pipelined); 0: an echo, only counted
 * INIT, REQUESTS   files of frames: [u32 length][u8 is answered][u32 id][bytes, framing included]; "-": none
 *
 * It prints one line of JSON. Frames are made beforehand, so that nothing but system calls and a scan of the answer lies
 * between two time stamps. POSIX; CPU time and memory of the server are read on Linux only (-1 elsewhere).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { SMALL = 32768, EDGE = 256 };

typedef struct { const char *bytes; uint32_t length, id; int answered; } Frame;
typedef struct { Frame *frames; size_t count; } Frames;

static int headers, check, from_server, to_server;
static size_t min_length;
static pid_t server;
static char *buffer;
static size_t capacity = 1 << 20, begin, end, scanned;
static long answers, items, wrong;
static uint64_t id_sum;
static int64_t last_id;

static void fail(const char *what) {
    fprintf(stderr, "%s: %s (%ld answers, %ld items so far)\n", what, errno ? strerror(errno) : "ended", answers, items);
    if (server > 0) kill(server, SIGKILL);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int64_t cpu_ns(void) {
#ifdef __linux__
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(server, &clock) == 0 && clock_gettime(clock, &t) == 0)
        return t.tv_sec * 1000000000LL + t.tv_nsec;
#endif
    return -1;
}

static void stay_on_one_core(void) {
#ifdef __linux__
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    sched_setaffinity(0, sizeof set, &set);
#endif
}

static long peak_kib(void) {
    char path[64], line[256];
    long value = -1;
    snprintf(path, sizeof path, "/proc/%d/status", server);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %ld", &value) == 1) break;
    if (file) fclose(file);
    return value;
}

static Frames load(const char *path) {
    Frames all = {0};
    if (!strcmp(path, "-")) return all;
    int fd = open(path, O_RDONLY);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    if (size < 0) fail(path);
    char *text = malloc(size + 1);
    for (off_t got = 0; got < size;) {
        ssize_t n = pread(fd, text + got, size - got, got);
        if (n <= 0) fail(path);
        got += n;
    }
    close(fd);
    for (off_t at = 0; at < size;) {
        if (all.count % 1024 == 0) all.frames = realloc(all.frames, (all.count + 1024) * sizeof(Frame));
        Frame *frame = &all.frames[all.count++];
        memcpy(&frame->length, text + at, 4);
        frame->answered = text[at + 4];
        memcpy(&frame->id, text + at + 5, 4);
        frame->bytes = text + at + 9;
        at += 9 + frame->length;
    }
    return all;
}

/* Members of the envelope stand at either end of a message; the middle of a long one is payload. */
static const char *member(const char *text, size_t length, const char *name) {
    size_t n = strlen(name);
    const char *found = memmem(text, length < 2 * EDGE ? length : EDGE, name, n);
    return found || length < 2 * EDGE ? found : memmem(text + length - EDGE, EDGE, name, n);
}

static void take(const char *text, size_t length) {
    if (check && member(text, length, "\"method\"")) {
        items++;
        return;
    }
    answers++;
    if (!check) return;
    const char *id = member(text, length, "\"id\":");
    last_id = id ? strtoll(id + 5, NULL, 10) : -1;
    id_sum += last_id;
    if (!member(text, length, "\"result\"") || member(text, length, "\"error\"") || length < min_length) {
        if (!wrong++) fprintf(stderr, "not the answer asked for: %.*s\n", length < 300 ? (int)length : 300, text);
    }
}

static int take_line(char *text, size_t length) {
    char *newline = memchr(text + scanned, '\n', length - scanned);
    if (!newline) {
        scanned = length;
        return 0;
    }
    scanned = 0;
    take(text, newline - text);
    begin += newline - text + 1;
    return 1;
}

static int take_headed(char *text, size_t length) {
    char *blank = memmem(text, length < 512 ? length : 512, "\r\n\r\n", 4);
    if (!blank) return 0;
    char *name = memmem(text, blank - text, "Content-Length: ", 16);
    if (!name) fail("a header without a length");
    size_t body = strtoull(name + 16, NULL, 10), head = blank - text + 4;
    if (length < head + body) return 0;
    take(text + head, body);
    begin += head + body;
    return 1;
}

static void receive(void) {
    if (begin == end) begin = end = 0;
    if (end > capacity / 2 && begin) {
        memmove(buffer, buffer + begin, end - begin);
        end -= begin;
        begin = 0;
    }
    if (end == capacity) buffer = realloc(buffer, capacity *= 2);
    ssize_t n = read(from_server, buffer + end, capacity - end);
    if (n < 0 && errno == EAGAIN) return;
    if (n == 0) errno = 0;
    if (n <= 0) fail("the server's output");
    end += n;
    while (end > begin && (headers ? take_headed : take_line)(buffer + begin, end - begin)) {}
}

static void blocking(int fd, int on) {
    int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, on ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}

/* Small frames fit into the pipe; with a large one both sides could otherwise wait for each other to read. */
static void send_frame(const Frame *frame) {
    const char *at = frame->bytes;
    size_t left = frame->length;
    if (left <= SMALL) {
        if (write(to_server, at, left) != (ssize_t)left) fail("the server's input");
        return;
    }
    blocking(to_server, 0);
    while (left) {
        struct pollfd ready[2] = {{to_server, POLLOUT, 0}, {from_server, POLLIN, 0}};
        poll(ready, 2, -1);
        if (ready[1].revents) receive();
        if (!ready[0].revents) continue;
        ssize_t n = write(to_server, at, left);
        if (n < 0 && errno != EAGAIN) fail("the server's input");
        if (n > 0) at += n, left -= n;
    }
    blocking(to_server, 1);
}

static void ask(const Frame *frame) {
    long wanted = answers + frame->answered;
    send_frame(frame);
    while (answers < wanted) receive();
}

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void sequential(const Frames *requests, int64_t length, int64_t warm, long pause) {
    size_t room = 1 << 16, count = 0, next = 1;
    int64_t *took = malloc(room * sizeof *took), started = now_ns(), measured = 0, cpu = 0, busy = 0, stop = 0;
    for (;;) {
        const Frame *frame = &requests->frames[next++ % requests->count];
        int64_t before = now_ns();
        if (!measured && before - started >= warm) {
            measured = before;
            cpu = cpu_ns();
        }
        ask(frame);
        stop = now_ns();
        if (check && last_id != (int64_t)frame->id) wrong++;
        if (measured) {
            if (count == room) took = realloc(took, (room *= 2) * sizeof *took);
            busy += took[count++] = stop - before;
            if (stop - measured >= length) break;
        }
        if (pause) usleep(pause);
    }
    cpu = cpu < 0 ? -1 : cpu_ns() - cpu;
    qsort(took, count, sizeof *took, ascending);
    printf("{\"count\":%zu,\"median_us\":%.2f,\"p99_us\":%.2f,\"rate\":%.1f,\"cpu_us\":%.3f,", count,
           took[count / 2] / 1e3, took[count * 99 / 100] / 1e3, count / (busy / 1e9), cpu < 0 ? -1 : cpu / 1e3 / count);
}

static void pipelined(const Frames *requests, int64_t length, int64_t warm, long in_flight) {
    size_t room = 1 << 20, queued = 0, written = 0, next = 1;
    char *queue = malloc(room);
    long base = answers, sent = 0, first = 0;
    uint64_t wanted = 0;
    int64_t started = now_ns(), measured = 0, cpu = 0, stop = 0;
    id_sum = 0;
    blocking(to_server, 0);
    blocking(from_server, 0);
    while (!stop || answers - base < sent) {
        int64_t now = now_ns();
        if (!measured && now - started >= warm) {
            measured = now;
            first = answers;
            cpu = cpu_ns();
        }
        if (!stop && measured && now - measured >= length) {
            stop = now;
            cpu = cpu < 0 ? -1 : cpu_ns() - cpu;
            first = answers - first; /* from here on: how many were measured */
            if (answers - base == sent) break;
        }
        while (!stop && sent - (answers - base) < in_flight) {
            const Frame *frame = &requests->frames[next++ % requests->count];
            if (queued + frame->length > room && written) {
                memmove(queue, queue + written, queued -= written);
                written = 0;
            }
            while (queued + frame->length > room) queue = realloc(queue, room *= 2);
            memcpy(queue + queued, frame->bytes, frame->length);
            queued += frame->length;
            wanted += frame->id;
            sent++;
        }
        if (written < queued) {
            ssize_t n = write(to_server, queue + written, queued - written);
            if (n < 0 && errno != EAGAIN) fail("the server's input");
            if (n > 0) written += n;
            if (written == queued) written = queued = 0;
        }
        struct pollfd ready[2] = {{from_server, POLLIN, 0}, {to_server, POLLOUT, 0}};
        poll(ready, queued ? 2 : 1, -1);
        if (ready[0].revents) receive();
    }
    if (check && id_sum != wanted) wrong++;
    printf("{\"count\":%ld,\"rate\":%.1f,\"cpu_us\":%.3f,", first, first / ((stop - measured) / 1e9),
           cpu < 0 ? -1 : cpu / 1e3 / first);
}

static void streamed(const Frames *requests, int64_t length) {
    long asked = 0;
    ask(&requests->frames[1 % requests->count]);
    items = 0;
    int64_t cpu = cpu_ns(), measured = now_ns(), stop;
    do {
        ask(&requests->frames[(2 + asked++) % requests->count]);
        stop = now_ns();
    } while (stop - measured < length);
    cpu = cpu < 0 ? -1 : cpu_ns() - cpu;
    printf("{\"count\":%ld,\"items\":%ld,\"rate\":%.1f,\"cpu_us\":%.3f,", asked, items,
           items / ((stop - measured) / 1e9), cpu < 0 || !items ? -1 : cpu / 1e3 / items);
}

static void spawn(char **command) {
    int in[2], out[2];
    if (pipe(in) || pipe(out)) fail("pipe");
    for (int i = 0; i < 2; i++) {
        fcntl(in[i], F_SETFD, FD_CLOEXEC);
        fcntl(out[i], F_SETFD, FD_CLOEXEC);
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t defaults;
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    errno = posix_spawnp(&server, command[0], &actions, &attributes, command, environ);
    if (errno) fail(command[0]);
    close(in[0]);
    close(out[1]);
    to_server = in[1];
    from_server = out[0];
}

/* Close its input and wait; returns the exit status, minus a signal's number, or -1000 for one that would not end. */
static int ended(void) {
    char rest[65536];
    int status;
    int64_t limit = now_ns() + 5000000000LL;
    close(to_server);
    blocking(from_server, 0);
    while (now_ns() < limit) {
        if (waitpid(server, &status, WNOHANG) == server)
            return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
        while (read(from_server, rest, sizeof rest) > 0) {}
        usleep(200);
    }
    kill(server, SIGKILL);
    waitpid(server, &status, 0);
    return -1000;
}

int main(int count, char **words) {
    if (count < 14) {
        fprintf(stderr, "see the head of client.c\n");
        return 2;
    }
    const char *mode = words[1];
    headers = !strcmp(words[2], "headers");
    int64_t length = atoll(words[3]) * 1000000, warm = atoll(words[4]) * 1000000;
    min_length = atoll(words[8]);
    check = atoi(words[9]);
    Frames hello = load(words[10]), requests = load(words[11]);
    signal(SIGPIPE, SIG_IGN);
    buffer = malloc(capacity);
    if (atoi(words[7])) stay_on_one_core();
    size_t full = min_length;
    min_length = 0; /* the greeting may be short */

    int64_t spawned = now_ns(), first = 0;
    spawn(words + 13);
    for (size_t i = 0; i < hello.count; i++) {
        ask(&hello.frames[i]);
        if (!first && answers) first = now_ns();
    }
    min_length = full;
    ask(&requests.frames[0]);
    int64_t ready = now_ns();
    if (!first) first = ready;

    if (!strcmp(mode, "sequential")) sequential(&requests, length, warm, atol(words[6]));
    else if (!strcmp(mode, "pipelined")) pipelined(&requests, length, warm, atol(words[5]));
    else if (!strcmp(mode, "stream")) streamed(&requests, length);
    else printf("{");
    long peak = peak_kib();
    int64_t closing = now_ns();
    int status = ended();
    printf("\"wrong\":%ld,\"first_ms\":%.3f,\"ready_ms\":%.3f,\"peak_kib\":%ld,\"status\":%d,\"end_ms\":%.3f}\n", wrong,
           (first - spawned) / 1e6, (ready - spawned) / 1e6, peak, status, (now_ns() - closing) / 1e6);
    return 0;
}
