"""What one program may use."""

import resource
from collections.abc import Mapping

MAX_DESCRIPTORS = 64
MAX_THREADS = 512  # of one program: the host counts them now and then
MAX_TASKS = 8_192  # of all programs together, where the kernel counts them: one must not use up what others need
MAX_SIGNALS = 1_024  # waiting signals and timers, which the kernel counts a user
MAX_FILES = 5_000
# Of one file
MAX_FILE_BYTES = 16 << 20
MAX_TOTAL_BYTES = 64 << 20


def set_limits(*, address_space_bytes: int, cpu_seconds: int, limit_threads: bool) -> None:
    """Limit the calling process for good.

    Args:
        address_space_bytes: with what the interpreter has.
        cpu_seconds: of all its threads.
        limit_threads: count processes and threads of this user.
    """
    limits = {
        resource.RLIMIT_AS: address_space_bytes,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: MAX_FILE_BYTES,
        resource.RLIMIT_NOFILE: MAX_DESCRIPTORS,
    }
    if limit_threads:
        limits[resource.RLIMIT_NPROC] = MAX_TASKS
    apply_limits(limits)


def apply_limits(limits: Mapping[int, int]) -> None:
    """Set limits for good, those that are as low already left as they are; no core files, no locked memory.

    Args:
        limits: by the number of the resource.
    """
    always = {resource.RLIMIT_CORE: 0, resource.RLIMIT_MEMLOCK: 0, resource.RLIMIT_SIGPENDING: MAX_SIGNALS}
    for which, limit in {**always, **limits}.items():
        hard = resource.getrlimit(which)[1]
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (allowed, allowed))
