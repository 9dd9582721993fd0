/* What the launcher needs of libc, and its start, as system calls of x86-64.
 *
 * Before main() glibc asks the processor some eighty times what it can do (CPUID). In a virtual machine each question is
 * the hypervisor's to answer: on the machine this was measured on that took half a millisecond, more than all the
 * launcher does itself. Elsewhere, and for the sanitizers, launcher.c is linked with libc instead. Nobody relocates what is
 * linked with this: no pointer may be initialised before the program runs (a test looks).
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SIGNALS_SIZE 8 /* of a sigset_t, as the kernel knows it */

int main(int argc, char **argv);
_Noreturn void begin(const uintptr_t *stack);
_Noreturn void __stack_chk_fail(void);

char **environ;
uintptr_t __stack_chk_guard;

static int last_error;

int *__errno_location(void)
{
    return &last_error;
}

static long raw(long number, long a, long b, long c, long d, long e)
{
    register long fourth __asm__("r10") = d;
    register long fifth __asm__("r8") = e;
    long answer;
    __asm__ volatile("syscall"
                     : "=a"(answer)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth)
                     : "rcx", "r11", "memory");
    return answer;
}

/* As libc's functions answer: -1, and the reason in errno (syscalls(2)). */
static long asked(long number, long a, long b, long c, long d, long e)
{
    long answer = raw(number, a, b, c, d, e);
    if (answer >= 0 || answer < -4095)
        return answer;
    last_error = (int)-answer;
    return -1;
}

/* The stack of a new process is argc, argv, environ and the auxiliary vector, each but the first ending in 0
 * (getauxval(3)); the canary must be there before any function that is protected by it runs. */
__attribute__((no_stack_protector)) void begin(const uintptr_t *stack)
{
    int argc = (int)stack[0];
    environ = (char **)(stack + 1 + argc + 1);
    const uintptr_t *item = (const uintptr_t *)environ;
    while (*item)
        item++;
    for (item++; item[0] != AT_NULL; item += 2)
        if (item[0] == AT_RANDOM)
            __stack_chk_guard = *(const uintptr_t *)item[1] & ~(uintptr_t)0xff;
    raw(SYS_exit_group, main(argc, (char **)(stack + 1)), 0, 0, 0, 0);
    __builtin_trap();
}

__asm__(".globl _start\n_start:\n endbr64\n xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");

void __stack_chk_fail(void)
{
    __builtin_trap();
}

/* --- files */

int open(const char *path, int flags, ...)
{
    return (int)asked(SYS_openat, AT_FDCWD, (long)path, flags, 0, 0);
}

int close(int fd)
{
    return (int)asked(SYS_close, fd, 0, 0, 0, 0);
}

ssize_t read(int fd, void *data, size_t size)
{
    return asked(SYS_read, fd, (long)data, (long)size, 0, 0);
}

ssize_t write(int fd, const void *data, size_t size)
{
    return asked(SYS_write, fd, (long)data, (long)size, 0, 0);
}

int fcntl(int fd, int command, ...)
{
    return (int)asked(SYS_fcntl, fd, command, 0, 0, 0);
}

int fstatfs(int fd, struct statfs *found)
{
    return (int)asked(SYS_fstatfs, fd, (long)found, 0, 0, 0);
}

ssize_t readlink(const char *path, char *found, size_t size)
{
    return asked(SYS_readlinkat, AT_FDCWD, (long)path, (long)found, (long)size, 0);
}

/* --- sockets and waiting */

int socket(int domain, int type, int protocol)
{
    return (int)asked(SYS_socket, domain, type, protocol, 0, 0);
}

int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    return (int)asked(SYS_connect, fd, (long)address, (long)size, 0, 0);
}

int getsockopt(int fd, int level, int option, void *value, socklen_t *size)
{
    return (int)asked(SYS_getsockopt, fd, level, option, (long)value, (long)size);
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    struct iovec whole = {(void *)(uintptr_t)data, size};
    struct msghdr message = {.msg_iov = &whole, .msg_iovlen = 1};
    return sendmsg(fd, &message, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    return asked(SYS_sendmsg, fd, (long)message, flags, 0, 0);
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
    struct iovec whole = {data, size};
    struct msghdr message = {.msg_iov = &whole, .msg_iovlen = 1};
    return recvmsg(fd, &message, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    return asked(SYS_recvmsg, fd, (long)message, flags, 0, 0);
}

int poll(struct pollfd *fds, nfds_t count, int milliseconds)
{
    return (int)asked(SYS_poll, (long)fds, (long)count, milliseconds, 0, 0);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    return (int)asked(SYS_clock_gettime, clock, (long)now, 0, 0, 0);
}

/* --- signals and processes */

int sigemptyset(sigset_t *set)
{
    memset(set, 0, sizeof *set);
    return 0;
}

int sigaddset(sigset_t *set, int number)
{
    *(uint64_t *)set |= (uint64_t)1 << (number - 1);
    return 0;
}

int sigprocmask(int how, const sigset_t *set, sigset_t *before)
{
    return (int)asked(SYS_rt_sigprocmask, how, (long)set, (long)before, SIGNALS_SIZE, 0);
}

/* To ignore one, which needs no way back from a handler. */
void (*signal(int number, void (*handler)(int)))(int)
{
    const struct {
        void (*handler)(int);
        uint64_t flags, restorer, mask;
    } action = {.handler = handler};
    return asked(SYS_rt_sigaction, number, (long)&action, 0, SIGNALS_SIZE, 0) < 0 ? SIG_ERR : SIG_DFL;
}

int signalfd(int fd, const sigset_t *set, int flags)
{
    return (int)asked(SYS_signalfd4, fd, (long)set, SIGNALS_SIZE, flags, 0);
}

uid_t geteuid(void)
{
    return (uid_t)raw(SYS_geteuid, 0, 0, 0, 0, 0);
}

int execv(const char *path, char *const argv[])
{
    return (int)asked(SYS_execve, (long)path, (long)argv, (long)environ, 0, 0);
}

/* --- texts and memory */

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    void *begun = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    return begun;
}

void *memset(void *to, int byte, size_t size)
{
    void *begun = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(byte) : "memory");
    return begun;
}

size_t strlen(const char *text)
{
    const char *end = text;
    while (*end)
        end++;
    return (size_t)(end - text);
}

int strcmp(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return (unsigned char)*one - (unsigned char)*other;
}

char *strrchr(const char *text, int wanted)
{
    const char *found = NULL;
    do
        if (*text == (char)wanted)
            found = text;
    while (*text++);
    return (char *)(uintptr_t)found;
}

char *getenv(const char *name)
{
    size_t length = strlen(name);
    for (char **item = environ; *item; item++) {
        size_t same = 0;
        while (same < length && (*item)[same] == name[same])
            same++;
        if (same == length && (*item)[same] == '=')
            return *item + length + 1;
    }
    return NULL;
}
