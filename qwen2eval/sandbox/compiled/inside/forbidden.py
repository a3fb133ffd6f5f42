"""The system calls that compilers and what they made may not make, as a seccomp filter.

Programs of one process get a list of what they may do (`sandbox/inside/seccomp.py`). Compilers start processes, and a
JVM or Go's runtime asks the kernel for much, so here the list says what they may not: sockets, tracing, mounts,
namespaces, keys, BPF, shared memory that nobody would count, clocks, modules. Calls newer than 2019 are refused unless
they are named.
"""

import struct

from qwen2eval.sandbox.inside.seccomp import ARCHITECTURES

_FORBIDDEN = """
mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, ptrace 101 117, process_vm_readv 310 270,
process_vm_writev 311 271, bpf 321 280, keyctl 250 219, add_key 248 217, request_key 249 218, perf_event_open 298 241,
userfaultfd 323 282, unshare 272 97, setns 308 268, kexec_load 246 104, kexec_file_load 320 294, init_module 175 105,
finit_module 313 273, delete_module 176 106, reboot 169 142, swapon 167 224, swapoff 168 225, quotactl 179 60,
open_by_handle_at 304 265, name_to_handle_at 303 264, memfd_create 319 279, shmget 29 194, shmat 30 196, shmctl 31 195,
msgget 68 186, semget 64 190, mq_open 240 180, socket 41 198, acct 163 89, settimeofday 164 170, adjtimex 159 171,
clock_settime 227 112, clock_adjtime 305 266, sethostname 170 161, setdomainname 171 162, iopl 172 -, ioperm 173 -,
vhangup 153 58, fanotify_init 300 262, lookup_dcookie 212 18, syslog 103 116,
personality 135 92, kcmp 312 272, migrate_pages 256 238, move_pages 279 239, mbind 237 235, set_mempolicy 238 237,
modify_ldt 154 -, vmsplice 278 75
"""
_NEW_BUT_HARMLESS = "close_range 436 436, faccessat2 439 439, epoll_pwait2 441 441, futex_waitv 449 449"
_CLONE, _SOCKETPAIR = (56, 220), (53, 199)
_AF_UNIX = 1
_NEW_NAMESPACES = 0x7E020080
_FIRST_NEW, _X32 = 424, 0x40000000
_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16


def build_filter(*, machine: str) -> bytes:
    """Return the filter for `machine` (as `platform.machine()` says), to make a `seccomp.Filter` of.

    Raises:
        KeyError: an architecture for which there is no table.
    """
    column, audit_arch = ARCHITECTURES[machine]
    allow, refuse, missing = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ENOSYS)
    first_argument = (_LOAD, 0, 0, _ARGUMENTS_AT)
    code = [(_LOAD, 0, 0, _ARCH_AT), (_JEQ, 1, 0, audit_arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER_AT)]
    if machine == "x86_64":
        code += [(_JGE, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    code += [line for number in _numbers(_FORBIDDEN, column) for line in ((_JEQ, 0, 1, number), refuse)]
    code += [(_JEQ, 0, 4, _CLONE[column]), first_argument, (_JSET, 0, 1, _NEW_NAMESPACES), refuse, allow]
    code += [(_JEQ, 0, 4, _SOCKETPAIR[column]), first_argument, (_JEQ, 0, 1, _AF_UNIX), allow, refuse]
    code += [line for number in _numbers(_NEW_BUT_HARMLESS, column) for line in ((_JEQ, 0, 1, number), allow)]
    code += [(_JGE, 0, 1, _FIRST_NEW), missing, allow]
    return b"".join(struct.pack("<HBBI", *line) for line in code)


def _numbers(table: str, column: int) -> list[int]:
    rows = [line.split() for line in table.replace("\n", " ").split(",")]
    return [int(row[1 + column]) for row in rows if row[1 + column] != "-"]
