/* agent-cni-launcher SCRIPT: what the plugins' executables are interpreted by.
 *
 * It answers VERSION. It hands any other call (environment, standard streams, namespaces) to the node agent and exits as the agent says. Where no agent
 * takes the call in time it becomes the Python interpreter beside it, which runs SCRIPT as if there were no agent.
 *
 * The agent begins only after our GO, and we run the script only if we never sent GO: no call is worked on twice.
 * Our descriptors go with GO, so an agent that hangs holds nobody's pipe open.
 * The other side is cni/agent/caller.py. It needs Linux and nothing else, and allocates no memory. Of libc it calls what
 * bare.c has too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef VERSION
#error "VERSION is the suite's, as in cni/__init__.py"
#endif
#define PROTOCOL "agent-cni/1"
/* To VERSION, as in cni/protocol/versions.py: a constant, so nobody need be asked. */
#define ANSWER "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":" \
    "[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n"
#define SOCKET "/run/agent-cni/agent.sock"
#define PATIENCE_MS 1000
#define MOST_BYTES (192 << 10) /* of a request: what a socket takes in one packet by default */
#define NAMESPACE_MAGIC 0x6e736673 /* statfs(2), NSFS_MAGIC */
#define TRY_AGAIN_LATER 11

enum { TAKEN = 'A', GO = 'G', STOP = 'S', EXIT = 'X' };

extern char **environ;

struct request {
    char text[MOST_BYTES];
    size_t length;
};

/* GO, then a letter for each descriptor that comes with it. */
struct go {
    char text[7];
    int fds[5];
    size_t count;
};

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Append a text with its NUL; 0 where it does not fit. */
static int add_text(struct request *request, const char *text)
{
    size_t length = strlen(text) + 1;
    if (length > sizeof request->text - request->length)
        return 0;
    memcpy(request->text + request->length, text, length);
    request->length += length;
    return 1;
}

/* Append a number in decimal, without a NUL, and a character after it; 0 where they do not fit. */
static int add_number(struct request *request, uintmax_t number, char after)
{
    char digits[24];
    size_t first = sizeof digits;
    digits[--first] = after;
    do
        digits[--first] = (char)('0' + number % 10);
    while (number /= 10);
    if (sizeof digits - first > sizeof request->text - request->length)
        return 0;
    memcpy(request->text + request->length, digits + first, sizeof digits - first);
    request->length += sizeof digits - first;
    return 1;
}

static void say(const char *text)
{
    if (write(2, text, strlen(text)) < 0)
        return; /* there is nobody else to tell */
}

/* One line: which file cannot be used, and why. */
static void complain(const char *file)
{
    int error = errno;
    say("agent-cni-launcher: ");
    say(file);
    say(error == ENOENT ? ": No such file or directory\n" : error == EACCES ? ": Permission denied\n" : ": cannot be used\n");
}

static void add_fd(struct go *go, char name, int fd)
{
    if (fd < 0)
        return;
    go->fds[go->count++] = fd;
    go->text[go->count] = name;
}

/* The pod's namespace, where this process can open it: the agent may see other mounts. */
static int pod_namespace(void)
{
    const char *path = getenv("CNI_NETNS");
    struct statfs info;
    int fd = path && *path ? open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY) : -1;
    if (fd >= 0 && (fstatfs(fd, &info) || info.f_type != NAMESPACE_MAGIC)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* The folder of the installation: two above this program. */
static int prefix_of(char *path, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", path, size - 1);
    if (length <= 0 || (size_t)length >= size - 1)
        return 0;
    path[length] = 0;
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(path, '/');
        if (!slash)
            return 0;
        *slash = 0;
    }
    return 1;
}

static int fill(struct request *request, const char *prefix, const char *script)
{
    struct stat own;
    if (stat("/proc/self/ns/net", &own))
        return 0;
    request->length = 0;
    int fits = add_text(request, PROTOCOL) && add_text(request, VERSION) && add_text(request, prefix) &&
               add_number(request, own.st_dev, ':') && add_number(request, own.st_ino, 0) && add_text(request, script);
    for (char **item = environ; fits && *item; item++)
        fits = add_text(request, *item);
    return fits;
}

/* `streams` has a bit for each of stdin, stdout and stderr that was open when this program began. */
static int send_go(int agent, int streams)
{
    struct go go = {.text = {GO}};
    add_fd(&go, 'd', open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    add_fd(&go, 'p', pod_namespace());
    for (int fd = 0; fd < 3; fd++)
        add_fd(&go, (char)('0' + fd), streams & 1 << fd ? fd : -1);
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof go.fds)];
    } control = {0};
    struct iovec data = {go.text, 1 + go.count};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (go.count) {
        message.msg_control = control.space;
        message.msg_controllen = CMSG_SPACE(go.count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(go.count * sizeof(int));
        memcpy(CMSG_DATA(header), go.fds, go.count * sizeof(int));
    }
    return sendmsg(agent, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)data.iov_len;
}

static int send_request(int agent, const struct request *request)
{
    return send(agent, request->text, request->length, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)request->length;
}

static int is_trusted(int agent)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    return !getsockopt(agent, SOL_SOCKET, SO_PEERCRED, &peer, &size) && peer.uid == geteuid();
}

/* A connection to the agent, or -1 at once where there is none or it is overrun. */
static int connected(void)
{
    const char *path = getenv("AGENT_CNI_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path)
        path = SOCKET;
    if (!*path || strlen(path) >= sizeof address.sun_path)
        return -1;
    memcpy(address.sun_path, path, strlen(path) + 1);
    int agent = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (agent >= 0 && connect(agent, (struct sockaddr *)&address, sizeof address) == 0 && is_trusted(agent))
        return agent;
    if (agent >= 0)
        close(agent);
    return -1;
}

static int taken_in_time(int agent)
{
    long deadline = now_ms() + PATIENCE_MS, left;
    while ((left = deadline - now_ms()) > 0) {
        struct pollfd ready = {.fd = agent, .events = POLLIN};
        char answer = 0;
        int found = poll(&ready, 1, (int)left);
        if (found < 0 && errno == EINTR)
            continue;
        return found == 1 && recv(agent, &answer, 1, MSG_DONTWAIT) == 1 && answer == TAKEN;
    }
    return 0;
}

/* The agent is gone and its work was begun: say so as a plugin says what failed. */
static int orphaned(void)
{
    static const char text[] =
        "{\"cniVersion\": \"1.1.0\", \"code\": 11, \"msg\": \"the node agent ended while it served this call\", "
        "\"details\": \"what the call made is recorded: DEL takes it away\"}\n";
    return write(1, text, sizeof text - 1) < 0 ? TRY_AGAIN_LATER : 1;
}

/* The exit code the agent says. It may have closed with our STOP unread, which the kernel reports before its last words. */
static int exit_code(int agent)
{
    unsigned char answer[2];
    ssize_t length = recv(agent, answer, sizeof answer, MSG_DONTWAIT);
    if (length < 0 && errno == ECONNRESET)
        length = recv(agent, answer, sizeof answer, MSG_DONTWAIT);
    return length == 2 && answer[0] == EXIT ? answer[1] : orphaned();
}

/* After GO: pass on one wish to stop, and wait for the exit code for as long as it takes. */
static int served(int agent, int signals)
{
    struct pollfd ready[2] = {{.fd = agent, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    char stop = STOP;
    for (;;) {
        if (poll(ready, signals < 0 ? 1 : 2, -1) < 0 && errno != EINTR)
            return orphaned();
        if (ready[0].revents)
            return exit_code(agent);
        if (ready[1].revents && send(agent, &stop, 1, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
            ready[1].fd = -1;
    }
}

/* Hand the call over. The exit code, or -1 where nobody has begun it. */
static int handed_over(int streams, const char *prefix, const char *script)
{
    static struct request request;
    sigset_t ending;
    int code = -1, agent = connected();
    if (agent < 0)
        return -1;
    if (fill(&request, prefix, script) && send_request(agent, &request) && taken_in_time(agent)) {
        sigemptyset(&ending);
        sigaddset(&ending, SIGTERM);
        sigaddset(&ending, SIGINT);
        sigaddset(&ending, SIGHUP);
        sigprocmask(SIG_BLOCK, &ending, NULL);
        int signals = signalfd(-1, &ending, SFD_CLOEXEC);
        if (send_go(agent, streams))
            code = served(agent, signals);
        else
            sigprocmask(SIG_UNBLOCK, &ending, NULL);
    }
    close(agent);
    return code;
}

/* Whether VERSION was asked and is answered. What cannot be printed is for Python to say. */
static int version_said(void)
{
    const char *command = getenv("CNI_COMMAND");
    return command && !strcmp(command, "VERSION") && write(1, ANSWER, sizeof ANSWER - 1) == sizeof ANSWER - 1;
}

/* Where stdin is a folder Python ends without a document; of one that cannot be read it says what is wrong. */
static void put_away_folder(void)
{
    struct stat found;
    if (!stat("/proc/self/fd/0", &found) && S_ISDIR(found.st_mode)) {
        close(0);
        open("/dev/null", O_WRONLY);
    }
}

int main(int argc, char **argv)
{
    static const char interpreter[] = "/bin/python3";
    static char prefix[4096], python[sizeof prefix + sizeof interpreter], isolated[] = "-I";
    char *own[64];
    int streams = 0;
    for (int fd = 0; fd < 3; fd++)
        streams |= fcntl(fd, F_GETFD) < 0 ? 0 : 1 << fd;
    if (argc < 2 || argc > 60) {
        say("agent-cni-launcher: runs the plugins of agent-cni; it is named in their first line\n");
        return 2;
    }
    if (streams & 1 << 1 && version_said())
        return 0;
    if (!prefix_of(prefix, sizeof prefix)) {
        complain("/proc/self/exe");
        return 127;
    }
    int code = handed_over(streams, prefix, argv[1]);
    if (code >= 0)
        return code;
    put_away_folder();
    memcpy(python, prefix, strlen(prefix));
    memcpy(python + strlen(prefix), interpreter, sizeof interpreter);
    own[0] = python;
    own[1] = isolated;
    memcpy(own + 2, argv + 1, (size_t)argc * sizeof *argv);
    execv(python, own);
    complain(python);
    return 127;
}
