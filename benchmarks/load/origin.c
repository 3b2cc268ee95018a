/* origin.c: an Ollama that answers at once, so that what a proxy adds is all that shows.
 *
 *     cc -O2 -o origin origin.c && ./origin [--tokens 300] [--gap-us 0]
 *
 * Prints the port the system chose, then serves 127.0.0.1 until a signal ends it. One thread, epoll, keep-alive and
 * pipelining. Every chat or generation gets the same answer of `--tokens` tokens, whole or as a stream with one HTTP
 * chunk a token, rendered once per form. `--gap-us` sends one token each so many microseconds; 0: all in one write.
 * The management routes that a caching proxy reads are there.
 * GET /counts tells how many answers were given: what a cache served never shows up in it.
 * Refuses chunked request bodies (501) and simulates no model (`cacheproxy.demo.ollama` does).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

typedef struct { char *bytes; size_t size, room; } Text;
typedef struct Connection {
    int fd, waits_to_write;
    Text in, out;
    size_t sent;
    int form, next; /* of the stream under way: the token that is sent next; 0: none is */
    struct Connection *before, *after; /* among those with a stream under way */
} Connection;
enum { CHAT, GENERATE, OPENAI, FORMS };

static const char *STAMP = "2026-01-01T00:00:00.000000000Z";
static const char *STATISTICS = "\"done\":true,\"done_reason\":\"stop\",\"total_duration\":4883583458,\"load_duration\":1334875,"
    "\"prompt_eval_count\":26,\"prompt_eval_duration\":342546000,\"eval_count\":%d,\"eval_duration\":4535599000}";
static const char *WORDS[] = {" the", " cache", " answers", " a", " request", " when", " vector", " similar", " is",
    " stored", " model", " replies", " with", " tokens", " and", " then", " it", " returns", " quickly", "."};
static int tokens = 300, poller, clock_fd = -1;
static Connection *streaming;
static unsigned long answers;
static Text whole[FORMS], stream[FORMS], tags;
static size_t *ends[FORMS]; /* where each token's chunk ends in `stream`; the last one takes the end of all with it */

static void add(Text *text, const char *bytes, size_t size) {
    if (text->size + size > text->room) {
        text->room = (text->size + size) * 2 + 1024;
        text->bytes = realloc(text->bytes, text->room);
        if (!text->bytes) abort();
    }
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
}

static void print(Text *text, const char *format, ...) {
    char piece[1024];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(piece, sizeof piece, format, arguments);
    va_end(arguments);
    if (size < 0 || (size_t)size >= sizeof piece) abort();
    add(text, piece, size);
}

static const char *word(int number) { return WORDS[(number * 7 + number / 5) % (sizeof WORDS / sizeof *WORDS)]; }

/* One line of a native stream; the whole answer is a line too, with all text and the statistics. */
static void native(Text *text, int form, const Text *answer, int last) {
    print(text, "{\"model\":\"llama3.2\",\"created_at\":\"%s\",", STAMP);
    print(text, form == CHAT ? "\"message\":{\"role\":\"assistant\",\"content\":\"" : "\"response\":\"");
    add(text, answer->bytes, answer->size);
    print(text, form == CHAT ? "\"}," : "\",");
    if (last) print(text, STATISTICS, tokens);
    else print(text, "\"done\":false}");
}

static void openai(Text *text, const Text *answer, int streamed, int last) {
    print(text, "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion%s\",\"created\":1767225600,\"model\":\"llama3.2\","
        "\"choices\":[{\"index\":0,\"%s\":{\"role\":\"assistant\",\"content\":\"", streamed ? ".chunk" : "",
        streamed ? "delta" : "message");
    add(text, answer->bytes, answer->size);
    print(text, "\"},\"finish_reason\":%s}]", last ? "\"stop\"" : "null");
    if (!streamed) print(text, ",\"usage\":{\"prompt_tokens\":26,\"completion_tokens\":%d,\"total_tokens\":%d}",
        tokens, tokens + 26);
    print(text, "}");
}

static void chunk(Text *text, const Text *piece) {
    print(text, "%zx\r\n", piece->size);
    add(text, piece->bytes, piece->size);
    print(text, "\r\n");
}

static void reply(Text *text, const char *status, const char *type, const Text *body) {
    print(text, "HTTP/1.1 %s\r\nContent-Type: %s\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: %zu\r\n\r\n",
        status, type, body->size);
    add(text, body->bytes, body->size);
}

static void render(int form) {
    Text answer = {0}, body = {0}, line = {0};
    for (int number = 0; number < tokens; number++) add(&answer, word(number), strlen(word(number)));
    if (form == OPENAI) openai(&body, &answer, 0, 1);
    else native(&body, form, &answer, 1);
    reply(&whole[form], "200 OK", "application/json; charset=utf-8", &body);
    print(&stream[form], "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
        "Transfer-Encoding: chunked\r\n\r\n", form == OPENAI ? "text/event-stream" : "application/x-ndjson");
    ends[form] = calloc(tokens + 1, sizeof *ends[form]);
    if (!ends[form]) abort();
    for (int number = 0; number <= tokens; number++, line.size = 0) {
        answer.size = 0;
        if (number < tokens) add(&answer, word(number), strlen(word(number)));
        if (form == OPENAI) print(&line, "data: ");
        if (form == OPENAI) openai(&line, &answer, 1, number == tokens);
        else native(&line, form, &answer, number == tokens);
        print(&line, form == OPENAI ? "\n\n" : "\n");
        if (form == OPENAI && number == tokens) print(&line, "data: [DONE]\n\n");
        chunk(&stream[form], &line);
        if (number == tokens) print(&stream[form], "0\r\n\r\n");
        ends[form][number] = stream[form].size;
    }
}

static void render_tags(void) {
    Text body = {0};
    print(&body, "{\"models\":[{\"name\":\"llama3.2:latest\",\"model\":\"llama3.2:latest\",\"modified_at\":\"%s\","
        "\"size\":2019393189,\"digest\":\"%064x\",\"details\":{\"parent_model\":\"\",\"format\":\"gguf\",\"family\":\"llama\","
        "\"families\":[\"llama\"],\"parameter_size\":\"3.2B\",\"quantization_level\":\"Q4_K_M\"}}]}", STAMP, 1);
    reply(&tags, "200 OK", "application/json; charset=utf-8", &body);
}

static void answer_json(Connection *connection, const char *status, const char *json) {
    Text body = {(char *)json, strlen(json), 0};
    reply(&connection->out, status, "application/json; charset=utf-8", &body);
}

/* Whether the body asks for a stream: as it says, else as the form has it. */
static int wants_stream(const char *body, size_t size, int form) {
    const char *member = memmem(body, size, "\"stream\"", 8), *end = body + size;
    if (!member) return form != OPENAI;
    for (member += 8; member < end && (*member == ' ' || *member == ':'); member++) {}
    return member < end && *member == 't';
}

/* Send the next token of the stream under way; the last one ends it. */
static void tell(Connection *connection) {
    size_t start = connection->next ? ends[connection->form][connection->next - 1] : 0;
    add(&connection->out, stream[connection->form].bytes + start, ends[connection->form][connection->next] - start);
    if (connection->next++ < tokens) return;
    connection->next = 0;
    if (connection->before) connection->before->after = connection->after;
    else streaming = connection->after;
    if (connection->after) connection->after->before = connection->before;
}

static void begin(Connection *connection, int form) {
    connection->form = form;
    connection->before = 0;
    connection->after = streaming;
    if (streaming) streaming->before = connection;
    streaming = connection;
    tell(connection);
}

static void route(Connection *connection, const char *target, size_t length, const char *body, size_t size) {
    static const char *GENERATING[FORMS] = {"/api/chat", "/api/generate", "/v1/chat/completions"};
    for (int form = 0; form < FORMS; form++)
        if (length == strlen(GENERATING[form]) && !memcmp(target, GENERATING[form], length)) {
            int streamed = wants_stream(body, size, form);
            const Text *text = streamed ? &stream[form] : &whole[form];
            answers++;
            if (streamed && clock_fd >= 0) begin(connection, form);
            else add(&connection->out, text->bytes, text->size);
            return;
        }
#define IS(path) (length == strlen(path) && !memcmp(target, path, length))
    if (IS("/api/tags")) add(&connection->out, tags.bytes, tags.size);
    else if (IS("/api/version")) answer_json(connection, "200 OK", "{\"version\":\"0.33.0\"}");
    else if (IS("/api/ps")) answer_json(connection, "200 OK", "{\"models\":[]}");
    else if (IS("/api/show")) answer_json(connection, "200 OK", "{\"template\":\"{{ .Prompt }}\",\"parameters\":\"\","
        "\"details\":{\"family\":\"llama\"},\"model_info\":{\"general.architecture\":\"llama\","
        "\"llama.context_length\":131072},\"capabilities\":[\"completion\"]}");
    else if (IS("/counts")) {
        char counts[64];
        snprintf(counts, sizeof counts, "{\"answers\":%lu}", answers);
        answer_json(connection, "200 OK", counts);
    } else if (IS("/")) answer_json(connection, "200 OK", "Ollama is running");
    else answer_json(connection, "404 Not Found", "{\"error\":\"not found\"}");
#undef IS
}

/* Answer the first request in `in` if it is whole; bytes it took, 0: more must come, -1: no request of ours. */
static long take(Connection *connection) {
    const Text *in = &connection->in;
    const char *head_end = memmem(in->bytes, in->size, "\r\n\r\n", 4), *line, *target, *target_end;
    if (!head_end) return in->size > 65536 ? -1 : 0;
    size_t length = 0;
    for (line = in->bytes; line < head_end; line += 2) {
        if (!strncasecmp(line, "content-length:", 15)) length = strtoul(line + 15, 0, 10);
        if (!strncasecmp(line, "transfer-encoding:", 18)) {
            answer_json(connection, "501 Not Implemented", "{\"error\":\"chunked request bodies are not taken\"}");
            return -1;
        }
        line = memmem(line, head_end + 2 - line, "\r\n", 2);
    }
    const char *body = head_end + 4;
    if (in->size < (size_t)(body - in->bytes) + length) return 0;
    target = memchr(in->bytes, ' ', head_end - in->bytes);
    if (!target) return -1;
    target++;
    target_end = memchr(target, ' ', head_end - target);
    if (!target_end) return -1;
    route(connection, target, target_end - target, body, length);
    return body - in->bytes + length;
}

static void end(Connection *connection) {
    if (connection->next) {
        connection->next = tokens; /* nobody listens any more: take it out of the streams under way */
        tell(connection);
    }
    close(connection->fd);
    free(connection->in.bytes);
    free(connection->out.bytes);
    free(connection);
}

static void watch(Connection *connection, int writing) {
    struct epoll_event event = {EPOLLIN | (writing ? EPOLLOUT : 0), {.ptr = connection}};
    if (connection->waits_to_write != writing) epoll_ctl(poller, EPOLL_CTL_MOD, connection->fd, &event);
    connection->waits_to_write = writing;
}

/* False: the connection is gone. */
static int flush(Connection *connection) {
    while (connection->sent < connection->out.size) {
        ssize_t size = send(connection->fd, connection->out.bytes + connection->sent,
            connection->out.size - connection->sent, MSG_NOSIGNAL);
        if (size < 0 && errno == EAGAIN) return watch(connection, 1), 1;
        if (size < 0) return end(connection), 0;
        connection->sent += size;
    }
    connection->sent = connection->out.size = 0;
    return watch(connection, 0), 1;
}

static void serve(Connection *connection) {
    char piece[65536];
    ssize_t size = recv(connection->fd, piece, sizeof piece, 0);
    if (size == 0 || (size < 0 && errno != EAGAIN)) { end(connection); return; }
    if (size > 0) add(&connection->in, piece, size);
    long taken = 0;
    while (!connection->next && connection->in.size && (taken = take(connection)) > 0) {
        memmove(connection->in.bytes, connection->in.bytes + taken, connection->in.size - taken);
        connection->in.size -= taken;
    }
    if (flush(connection) && taken < 0) end(connection);
}

/* One token to each stream under way, however many ticks were missed. */
static void tick(void) {
    unsigned long ticks;
    if (read(clock_fd, &ticks, sizeof ticks) != sizeof ticks) return;
    for (Connection *connection = streaming, *after; connection; connection = after) {
        after = connection->after;
        tell(connection);
        flush(connection);
    }
}

static void start_clock(long gap_us) {
    struct timespec gap = {gap_us / 1000000, gap_us % 1000000 * 1000};
    struct itimerspec period = {gap, gap};
    struct epoll_event event = {EPOLLIN, {.ptr = &clock_fd}};
    clock_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    timerfd_settime(clock_fd, 0, &period, 0);
    epoll_ctl(poller, EPOLL_CTL_ADD, clock_fd, &event);
}

static void greet(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        Connection *connection = calloc(1, sizeof *connection);
        if (!connection) abort();
        connection->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {EPOLLIN, {.ptr = connection}};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int count, char **arguments) {
    long gap_us = 0;
    for (int number = 1; number + 1 < count; number += 2) {
        if (!strcmp(arguments[number], "--tokens")) tokens = atoi(arguments[number + 1]);
        else if (!strcmp(arguments[number], "--gap-us")) gap_us = atol(arguments[number + 1]);
        else return fprintf(stderr, "unknown option %s\n", arguments[number]), 2;
    }
    signal(SIGPIPE, SIG_IGN);
    for (int form = 0; form < FORMS; form++) render(form);
    render_tags();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 4096)) return perror("listen"), 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    poller = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {.ptr = 0}}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    if (gap_us) start_clock(gap_us);
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1), ticked = 0;
        for (int number = 0; number < ready; number++) {
            Connection *connection = events[number].data.ptr;
            if (!connection) greet(listener);
            else if (events[number].data.ptr == &clock_fd) ticked = 1;
            else if (!(events[number].events & EPOLLOUT) || flush(connection))
                if (events[number].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) serve(connection);
        }
        if (ticked) tick(); /* last: it may end connections that the loop above still has events for */
    }
}
