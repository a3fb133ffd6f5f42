"""The system calls that a program may make, as a seccomp filter built here, without libseccomp.

Everything that is not named is refused: fork, exec, sockets, ptrace, mount, namespaces, memfd, io_uring, shared memory,
keys, signals to others. Threads are allowed. A few calls depend on their arguments; modes and times of files are left
alone while the call reports success, since Landlock doesn't cover them and `shutil.copy` asks for it.
"""

import ctypes
import os
import struct

# Column of the tables below, AUDIT_ARCH_*
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_TABLE = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70,
preadv2 327 286, pwritev2 328 287, open 2 -, openat 257 56, creat 85 -, close 3 57, close_range 436 436, stat 4 -,
fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291, statfs 137 43, fstatfs 138 44, access 21 -, faccessat 269 48,
faccessat2 439 439, lseek 8 62, getdents 78 -, getdents64 217 61, readlink 89 -, readlinkat 267 78, getcwd 79 17,
chdir 80 49, fchdir 81 50, rename 82 -, renameat 264 38, renameat2 316 276, mkdir 83 -, mkdirat 258 34, rmdir 84 -,
unlink 87 -, unlinkat 263 35, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, ftruncate 77 46,
fallocate 285 47, fsync 74 82, fdatasync 75 83, fadvise64 221 223, readahead 187 213, flock 73 32, umask 95 166,
dup 32 23, dup2 33 -, dup3 292 24, pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72,
epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441,
eventfd 284 -, eventfd2 290 19, timerfd_create 283 85, timerfd_settime 286 86, timerfd_gettime 287 87, signalfd 282 -,
signalfd4 289 74, sendfile 40 71, copy_file_range 326 285, splice 275 76, tee 276 77, recvfrom 45 207,
getsockopt 55 209, getsockname 51 204, getpeername 52 205, shutdown 48 210, mmap 9 222,
munmap 11 215, mprotect 10 226, mremap 25 216, brk 12 214, madvise 28 233, mincore 27 232, msync 26 227, futex 202 98,
futex_waitv 449 449, set_robust_list 273 99, rseq 334 293, membarrier 324 283, sched_yield 24 124,
sched_getaffinity 204 123, sched_getparam 143 121, sched_getscheduler 145 120, sched_get_priority_max 146 125,
sched_get_priority_min 147 126, getpriority 140 141, getcpu 309 168, rt_sigaction 13 134, rt_sigprocmask 14 135,
rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigsuspend 130 133, rt_sigtimedwait 128 137, sigaltstack 131 132,
pause 34 -, alarm 37 -, setitimer 38 103, getitimer 36 102, nanosleep 35 101, clock_nanosleep 230 115,
clock_gettime 228 113, clock_getres 229 114, gettimeofday 96 169, time 201 -, times 100 153, timer_create 222 107,
timer_settime 223 110, timer_gettime 224 108, timer_delete 226 111, timer_getoverrun 225 109, restart_syscall 219 128,
getpid 39 172, gettid 186 178, getppid 110 173, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177,
getresuid 118 148, getresgid 120 150, getgroups 115 158, getpgrp 111 -, getpgid 121 155, getsid 124 156, capget 125 90,
uname 63 160, sysinfo 99 179, getrusage 98 165, getrlimit 97 163, setrlimit 160 164, getrandom 318 278, wait4 61 260,
waitid 247 95, set_tid_address 218 96, exit 60 93, exit_group 231 94
"""
_DEPENDS = """
kill 62 129, tgkill 234 131, clone 56 220, prctl 157 167, prlimit64 302 261, fcntl 72 25, ioctl 16 29,
socketpair 53 199, sendto 44 206, truncate 76 45
"""
_PRETENDED = "chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, utime 132 -, utimes 235 -, utimensat 280 88"

_UNSUPPORTED = """
setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, getxattr 191 8, lgetxattr 192 9, fgetxattr 193 10, listxattr 194 11,
llistxattr 195 12, flistxattr 196 13, removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16
"""

_LOAD, _JEQ, _JGE, _JGT, _JSET, _AND, _RETURN = 0x20, 0x15, 0x35, 0x25, 0x45, 0x54, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOTTY, _ENOSYS, _ENOTSUP = 1, 25, 38, 95
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x40000000
# Calls since 2019; libc falls back on older ones when these are missing, but not when forbidden
_FIRST_NEW = 424
_NEW_NAMESPACES, _CLONE_THREAD = 0x7E020080, 0x00010000
_PRCTL_SET_NAME, _PRCTL_GET_NAME, _PRCTL_SET_VMA = 15, 16, 0x53564D41
# F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ
_SIGNAL_OWNERS = (8, 10, 15, 1024, 1026, 1031)
# All others could change attributes of files that are only open for reading. TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO,
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # FIONCLEX, FIOCLEX
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
# Replaced by the process's own number
_PID_MARK = 0x7FFFFF17

_libc = ctypes.CDLL(None, use_errno=True)

Code = list[tuple[int, int, int, int]]


def build_filter(*, machine: str, landlock_abi: int) -> bytes:
    """Return the filter for `machine` (as `platform.machine()` says), to make a `Filter` of.

    Raises:
        KeyError: an architecture for which there is no table.
    """
    column, audit_arch = ARCHITECTURES[machine]
    depends = _numbers(_DEPENDS, column)
    code: Code = [(_LOAD, 0, 0, _ARCH_AT), (_JEQ, 1, 0, audit_arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER_AT)]
    if machine == "x86_64":
        code += [(_JGE, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for first, last in _ranges(sorted(_numbers(_TABLE, column).values())):
        if first == last:
            code += [(_JEQ, 0, 1, first), (_RETURN, 0, 0, _ALLOW)]
        else:
            code += [(_JGE, 0, 2, first), (_JGT, 1, 0, last), (_RETURN, 0, 0, _ALLOW)]
    for name, block in _blocks(landlock_abi).items():
        code += [(_JEQ, 0, len(block), depends[name]), *block]
    for table, error in ((_PRETENDED, 0), (_UNSUPPORTED, _ENOTSUP)):
        for number in _numbers(table, column).values():
            code += [(_JEQ, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]
    code += [(_JGE, 0, 1, _FIRST_NEW), (_RETURN, 0, 0, _ERRNO | _ENOSYS), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    return b"".join(struct.pack("<HBBI", *line) for line in code)


class Filter:
    """A filter that is ready to be installed by forks of this process: little is left for them to do.

    Args:
        program: what `build_filter` returned.
    """

    def __init__(self, program: bytes) -> None:
        mark = struct.pack("<I", _PID_MARK)
        self.places = [at for at in range(4, len(program), 8) if program[at : at + 4] == mark]
        self.code = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("@HP", len(program) // 8, ctypes.addressof(self.code))
        # Struct sock_fprog
        self.argument = ctypes.create_string_buffer(head, len(head))

    def install(self) -> None:
        """Put the calling thread, and all that it starts, under the filter. Needs PR_SET_NO_NEW_PRIVS.

        Raises:
            OSError: the kernel refused.
        """
        own = struct.pack("<I", os.getpid())
        for at in self.places:
            ctypes.memmove(ctypes.addressof(self.code) + at, own, len(own))
        if _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, self.argument, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "the kernel refused the seccomp filter")


def _blocks(landlock_abi: int) -> dict[str, Code]:
    """Return, for each call that depends on its arguments, code that decides; a denied call fails with EPERM."""
    allow, deny = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | _EPERM)
    only_self: Code = [_argument(0), (_JEQ, 0, 1, _PID_MARK), allow, deny]
    return {
        "kill": only_self,
        "tgkill": only_self,
        "clone": [_argument(0), (_JSET, 2, 0, _NEW_NAMESPACES), (_JSET, 0, 1, _CLONE_THREAD), allow, deny],
        "prctl": [
            _argument(0),
            (_JEQ, 2, 0, _PRCTL_SET_NAME),
            (_JEQ, 1, 0, _PRCTL_GET_NAME),
            (_JEQ, 0, 1, _PRCTL_SET_VMA),
            allow,
            deny,
        ],
        "prlimit64": [_argument(0), (_JEQ, 0, 1, 0), allow, deny],
        "fcntl": _unless_argument(1, _SIGNAL_OWNERS),
        "ioctl": _only_argument(1, _IOCTLS),
        # a datagram pair could be pointed at a named socket of the host
        "socketpair": [_argument(0), (_JEQ, 0, 4, 1), _argument(1), (_AND, 0, 0, 0xF), (_JEQ, 0, 1, 1), allow, deny],
        "sendto": [_argument(4), (_JEQ, 0, 3, 0), _argument(4, high=True), (_JEQ, 0, 1, 0), allow, deny],
        "truncate": [allow if landlock_abi >= 3 else deny],
    }


def _argument(index: int, *, high: bool = False) -> tuple[int, int, int, int]:
    # Little endian, on both machines
    return (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index + 4 * high)


def _unless_argument(index: int, values: tuple[int, ...]) -> Code:
    tests = [(_JEQ, len(values) - n, 0, value) for n, value in enumerate(values)]
    return [_argument(index), *tests, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | _EPERM)]


def _only_argument(index: int, values: tuple[int, ...]) -> Code:
    tests = [(_JEQ, len(values) - n, 0, value) for n, value in enumerate(values)]
    return [_argument(index), *tests, (_RETURN, 0, 0, _ERRNO | _ENOTTY), (_RETURN, 0, 0, _ALLOW)]


def _numbers(table: str, column: int) -> dict[str, int]:
    rows = [line.split() for line in table.replace("\n", " ").split(",")]
    return {row[0]: int(row[1 + column]) for row in rows if row[1 + column] != "-"}


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges
