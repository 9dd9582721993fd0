/* agent-cni-launcher SCRIPT: what the plugins' executables are interpreted by.
 *
 * It answers VERSION. It hands any other call (environment, stdin, stderr, the pod's namespace) to the node agent, prints the document the agent answers
 * with and exits as it says. Where no agent takes the call in time it becomes the Python interpreter beside it, which runs SCRIPT as if there were no agent.
 *
 * The agent begins only after our GO, and we run the script only if we never sent GO: no call is worked on twice.
 * That interpreter is of one installation, whatever is installed meanwhile: we open its folder, hold it (flock), and name the interpreter by our descriptor,
 * so that what it imports late is of the same release as what it began with. Who installs takes no folder away that somebody holds (cni/installation/tree.py).
 * Our descriptors go with GO, so an agent that hangs holds nobody's pipe open. A document comes whole and with its exit code:
 * once it is printed that is our exit code, whatever becomes of the agent, and without one we print an error ourselves.
 * The other side is cni/agent/caller.py. It needs Linux and nothing else, and allocates no memory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
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
#define PROTOCOL "agent-cni/2"
/* To VERSION, as in cni/protocol/versions.py: a constant, so nobody need be asked. */
#define ANSWER "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":" \
    "[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n"
#define SOCKET "/run/agent-cni/agent.sock"
#define PATIENCE_MS 1000
#define MOST_PATIENCE_MS 30000 /* of an agent that takes calls meanwhile */
#define MOST_BYTES (192 << 10) /* what a socket takes in one packet by default */
#define NAMESPACE_MAGIC 0x6e736673 /* statfs(2), NSFS_MAGIC */
/* Codes of error documents, as in cni/errors.py. */
#define TRY_AGAIN_LATER "11"
#define TOOL_FAILED "106"

enum { TAKEN = 'A', GO = 'G', STOP = 'S', EXIT = 'X', PRINTED = 'P' };

extern char **environ;

struct packet {
    char text[MOST_BYTES];
    size_t length;
};

/* GO, then a letter for each descriptor that comes with it. */
struct go {
    char text[5];
    int fds[4];
    size_t count;
};

/* What came of the call: the exit code with the document that was printed, or -1; whether stdout took no document. */
struct outcome {
    int code;
    int broken;
};

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Append bytes; 0 where they do not fit. */
static int add(struct packet *packet, const char *bytes, size_t length)
{
    if (length > sizeof packet->text - packet->length)
        return 0;
    memcpy(packet->text + packet->length, bytes, length);
    packet->length += length;
    return 1;
}

static int add_with_nul(struct packet *packet, const char *text)
{
    return add(packet, text, strlen(text) + 1);
}

static int add_words(struct packet *packet, const char *text)
{
    return add(packet, text, strlen(text));
}

/* All of a text to a stream. 0, or why it does not take it. */
static int print(int stream, const char *text, size_t length)
{
    while (length) {
        ssize_t done = write(stream, text, length);
        if (done < 0)
            return errno;
        text += done;
        length -= (size_t)done;
    }
    return 0;
}

static void say(const char *text)
{
    print(2, text, strlen(text)); /* there is nobody else to tell where it fails */
}

/* The one document of a call that nobody else answers. A file may have any name: what JSON could not have as it is becomes ?. */
static void answer_error(const char *code, const char *what, const char *why)
{
    static struct packet document;
    document.length = 0;
    add_words(&document, "{\"cniVersion\": \"1.1.0\", \"code\": ");
    add_words(&document, code);
    add_words(&document, ", \"msg\": \"");
    for (; *what; what++)
        add(&document, *what < ' ' || *what > '~' || *what == '"' || *what == '\\' ? "?" : what, 1);
    add_words(&document, why);
    add_words(&document, "\"}\n");
    print(1, document.text, document.length);
}

/* Which file cannot be used, and why: to the runtime and to a person. The exit code. */
static int complain(const char *file)
{
    const char *why = errno == ENOENT    ? ": No such file or directory"
                      : errno == EACCES  ? ": Permission denied"
                      : errno == ENOEXEC ? ": Exec format error"
                                         : ": cannot be used";
    answer_error(TOOL_FAILED, file, why);
    say("agent-cni-launcher: ");
    say(file);
    say(why);
    say("\n");
    return 1;
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

/* The folder that is two above a path; 0 where there is none. */
static int two_above(char *path)
{
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(path, '/');
        if (!slash)
            return 0;
        *slash = 0;
    }
    return 1;
}

/* The folder of the installation: two above this program. */
static int prefix_of(char *path, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", path, size - 1);
    if (length < 0)
        return 0;
    errno = ENAMETOOLONG; /* what is wrong with it from here on */
    if ((size_t)length >= size - 1)
        return 0;
    path[length] = 0;
    return two_above(path);
}

/* A descriptor of a folder that nobody takes away as long as we, or what we become, have it, and none of the three streams; -1 where it is none, is being
 * taken away, or is another one by now. */
static int hold(const char *path)
{
    struct stat there, held;
    int opened = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int folder = opened < 0 ? -1 : fcntl(opened, F_DUPFD, 3);
    if (opened >= 0)
        close(opened);
    if (folder >= 0 && (flock(folder, LOCK_SH | LOCK_NB) || fstat(folder, &held) || stat(path, &there) || held.st_ino != there.st_ino || held.st_dev != there.st_dev)) {
        close(folder);
        return -1;
    }
    return folder;
}

/* Hold the installation, and have its path lead through that. What we were started by may be in another's place by now, or be gone: then we are of the one whose
 * launcher our script names. */
static void hold_installation(char *prefix, size_t size, const char *called)
{
    static const char held[] = "/proc/self/fd/";
    static char named[4096];
    char digits[12], *digit = digits + sizeof digits;
    int folder = hold(prefix);
    if (folder < 0 && *called == '/' && strlen(called) < sizeof named && two_above(memcpy(named, called, strlen(called) + 1)))
        folder = hold(named);
    if (folder < 0 || size < sizeof held + sizeof digits)
        return;
    *--digit = 0;
    do
        *--digit = (char)('0' + folder % 10);
    while (folder /= 10);
    memcpy(prefix, held, sizeof held - 1);
    memcpy(prefix + sizeof held - 1, digit, (size_t)(digits + sizeof digits - digit));
}

static int fill(struct packet *request, const char *prefix, const char *script)
{
    request->length = 0;
    int fits = add_with_nul(request, PROTOCOL) && add_with_nul(request, VERSION) && add_with_nul(request, prefix) && add_with_nul(request, script);
    for (char **item = environ; fits && *item; item++)
        fits = add_with_nul(request, *item);
    return fits;
}

/* `streams` has a bit for each of stdin, stdout and stderr that was open when this program began. */
static int send_go(int agent, int streams)
{
    struct go go = {.text = {GO}};
    add_fd(&go, 'd', open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    add_fd(&go, 'p', pod_namespace());
    add_fd(&go, '0', streams & 1 << 0 ? 0 : -1);
    add_fd(&go, '2', streams & 1 << 2 ? 2 : -1);
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof go.fds)];
    } control = {0};
    struct iovec data = {go.text, 1 + go.count};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (go.count) {
        message.msg_control = control.space;
        message.msg_controllen = (socklen_t)CMSG_SPACE(go.count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = (socklen_t)CMSG_LEN(go.count * sizeof(int));
        memcpy(CMSG_DATA(header), go.fds, go.count * sizeof(int));
    }
    return sendmsg(agent, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)data.iov_len;
}

static int send_request(int agent, const struct packet *request)
{
    return send(agent, request->text, request->length, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)request->length;
}

static int is_trusted(int agent)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    return !getsockopt(agent, SOL_SOCKET, SO_PEERCRED, &peer, &size) && peer.uid == geteuid();
}

static const char *socket_path(void)
{
    const char *path = getenv("AGENT_CNI_SOCKET");
    return path ? path : SOCKET;
}

/* A connection to the agent, or -1 at once where there is none or it is overrun. */
static int connected(void)
{
    const char *path = socket_path();
    struct sockaddr_un address = {.sun_family = AF_UNIX};
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

/* Whether the agent took a call a moment ago: that is what its socket's file has for a time. */
static int is_taking(void)
{
    struct stat file;
    struct timespec now;
    if (stat(socket_path(), &file) || clock_gettime(CLOCK_REALTIME, &now))
        return 0;
    long ago = (now.tv_sec - file.st_mtim.tv_sec) * 1000 + (now.tv_nsec - file.st_mtim.tv_nsec) / 1000000;
    return -PATIENCE_MS < ago && ago < PATIENCE_MS;
}

/* Callers are taken in turn. Who runs cold takes the time of several of them, so nobody does while the agent gets on. */
static int taken_in_time(int agent)
{
    long most = now_ms() + MOST_PATIENCE_MS, deadline = now_ms() + PATIENCE_MS, left;
    while ((left = deadline - now_ms()) > 0 || (now_ms() < most && is_taking())) {
        struct pollfd ready = {.fd = agent, .events = POLLIN};
        char answer = 0;
        int found = poll(&ready, 1, left > 0 ? (int)left : PATIENCE_MS);
        if (found == 0 || (found < 0 && errno == EINTR))
            continue;
        return found == 1 && recv(agent, &answer, 1, MSG_DONTWAIT) == 1 && answer == TAKEN;
    }
    return 0;
}

/* The next packet of the agent's, and the file that comes with it or -1. 0 where there is none or not all of it. */
static int heard(int agent, struct packet *said, int *file)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec data = {said->text, sizeof said->text};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
    ssize_t length = recvmsg(agent, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length < 0 && errno == ECONNRESET) /* it closed with our STOP unread: that is told before its last words */
        length = recvmsg(agent, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length < 0 || message.msg_flags & MSG_TRUNC)
        return 0;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *file = -1;
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(file, CMSG_DATA(header), sizeof *file);
    said->length = (size_t)length;
    return !(message.msg_flags & MSG_CTRUNC);
}

/* A document: what is in the packet after EXIT and the exit code, or, where that is nothing, in the file. 0, or why it cannot be printed. */
static int print_document(struct packet *said, int file)
{
    int error = print(1, said->text + 2, said->length - 2);
    ssize_t length;
    while (!error && file >= 0 && (length = read(file, said->text, sizeof said->text)) != 0)
        error = length < 0 ? errno : print(1, said->text, (size_t)length);
    return error;
}

/* What the agent says next; whether there may be more. One document is printed, and told to be or why not. */
static int listen_to(int agent, struct packet *said, struct outcome *outcome)
{
    int file;
    if (!heard(agent, said, &file) || said->length < 2 || said->text[0] != EXIT)
        return 0;
    int code = (unsigned char)said->text[1];
    if (said->length == 2 && file < 0) {
        outcome->code = outcome->code < 0 ? code : outcome->code;
        return 0;
    }
    if (outcome->code >= 0 || outcome->broken)
        return 0;
    int error = print_document(said, file);
    char answer[2] = {PRINTED, (char)error};
    outcome->broken = error != 0;
    outcome->code = error ? -1 : code;
    return send(agent, answer, sizeof answer, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof answer;
}

/* After GO: print the document, pass on one wish to stop, and wait for the end for as long as it takes. The exit code. */
static int served(int agent, int signals, struct packet *said)
{
    struct pollfd ready[2] = {{.fd = agent, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    struct outcome outcome = {.code = -1};
    char stop = STOP;
    int found;
    while ((found = poll(ready, signals < 0 ? 1 : 2, -1)) >= 0 || errno == EINTR) {
        if (found < 0)
            continue;
        if (ready[0].revents && !listen_to(agent, said, &outcome))
            break;
        if (ready[1].revents && send(agent, &stop, 1, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
            ready[1].fd = -1;
    }
    if (outcome.code >= 0)
        return outcome.code;
    if (!outcome.broken)
        answer_error(TRY_AGAIN_LATER, "the node agent's worker ended while it served this call", "; what it made is recorded, and DEL takes it away");
    return 1;
}

/* Hand the call over. The exit code, or -1 where nobody has begun it. */
static int handed_over(int streams, const char *prefix, const char *script)
{
    static struct packet packet;
    sigset_t ending;
    int code = -1, agent = connected();
    if (agent < 0)
        return -1;
    if (fill(&packet, prefix, script) && send_request(agent, &packet) && taken_in_time(agent)) {
        sigemptyset(&ending);
        sigaddset(&ending, SIGTERM);
        sigaddset(&ending, SIGINT);
        sigaddset(&ending, SIGHUP);
        sigprocmask(SIG_BLOCK, &ending, NULL);
        int signals = signalfd(-1, &ending, SFD_CLOEXEC);
        if (send_go(agent, streams))
            code = served(agent, signals, &packet);
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
    char nothing;
    if (read(0, &nothing, 0) < 0 && errno == EISDIR) {
        close(0);
        open("/dev/null", O_WRONLY);
    }
}

/* What Python and libnftables need. Without it they end, or hang, without a document, and without taking back what was made: so nothing is begun. */
static int has_room(void)
{
    static const struct {
        int resource;
        rlim_t least;
        const char *what;
    } needed[] = {
        {RLIMIT_NOFILE, 64, "files: 64"},
        {RLIMIT_AS, 128 << 20, "address space: 128 MiB"},
        {RLIMIT_DATA, 64 << 20, "data: 64 MiB"},
        {RLIMIT_STACK, 1 << 20, "stack: 1 MiB"},
    };
    for (size_t at = 0; at < sizeof needed / sizeof *needed; at++) {
        struct rlimit limit;
        rlim_t least = needed[at].least;
        if (getrlimit(needed[at].resource, &limit) || limit.rlim_cur >= least)
            continue;
        limit.rlim_cur = least;
        if (limit.rlim_max < least || setrlimit(needed[at].resource, &limit)) {
            answer_error(TRY_AGAIN_LATER, needed[at].what, " is the least a call needs, and this process may have less (setrlimit(2)); nothing was begun");
            return 0;
        }
    }
    return 1;
}

/* So that no file and no socket is given the number of a closed stream: what is said on stderr would go there. A closed stdout is for Python to say. */
static void fill_streams(int streams)
{
    for (int fd = 0; fd < 3 && streams & 1 << 1; fd += 2)
        if (!(streams & 1 << fd))
            open("/dev/null", O_WRONLY); /* the lowest number is given; of a stdin like that nobody can read */
}

static char *interpreter_in(const char *prefix)
{
    static const char interpreter[] = "/bin/python3";
    static char python[4096 + sizeof interpreter];
    memcpy(python, prefix, strlen(prefix));
    memcpy(python + strlen(prefix), interpreter, sizeof interpreter);
    return python;
}

int main(int argc, char **argv)
{
    static char prefix[4096], place[sizeof prefix], isolated[] = "-I";
    char *own[64];
    int streams = 0;
    for (int fd = 0; fd < 3; fd++)
        streams |= fcntl(fd, F_GETFD) < 0 ? 0 : 1 << fd;
    if (argc < 2 || argc > 60) {
        say("agent-cni-launcher: runs the plugins of agent-cni; it is named in their first line\n");
        return 2;
    }
    fill_streams(streams);
    signal(SIGPIPE, SIG_IGN); /* a document nobody reads is an error and not our end, for Python too */
    if (streams & 1 << 1 && version_said())
        return 0;
    if (!prefix_of(prefix, sizeof prefix))
        return complain("/proc/self/exe");
    int code = streams & 1 << 1 ? handed_over(streams, prefix, argv[1]) : -1; /* to a closed stdout nothing can be answered */
    if (code >= 0)
        return code;
    if (!has_room())
        return 1;
    put_away_folder();
    memcpy(place, prefix, sizeof place);
    hold_installation(place, sizeof place, argv[0]);
    own[0] = interpreter_in(place);
    own[1] = isolated;
    memcpy(own + 2, argv + 1, (size_t)argc * sizeof *argv);
    execv(own[0], own);
    return complain(interpreter_in(prefix));
}
