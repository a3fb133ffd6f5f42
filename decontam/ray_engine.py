"""A scan's parts as tasks on a Ray cluster: another way to call the same function, and the same results.

    scan(["corpus/"], index, output="leaks", runner=ray_runner(address="head:6379"))

Only the driver knows what is done and what is left, so a scan that was stopped resumes under any engine. Files are
read where the tasks run: they must have the same path on every node, and so must this package be installed there.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import islice
from typing import Any

from decontam.errors import DecontamError
from decontam.part_result import PartResult
from decontam.records import Part
from decontam.scan import Runner

RETRIES = 3
"""Of a part whose worker died."""
CONNECT_SECONDS = 30
_STORE_BYTES = 512 << 20
"""Of a cluster that is started here, for the index and results on their way; Ray's own choice is 0.3 of the memory."""
_INSTALL = "install the same version of qwen2eval on every node of the cluster"
_CONNECT = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"

Work = Callable[[Part], PartResult]


def ray_runner(*, address: str | None = None, workers: int | None = None) -> Runner:
    """Return what `scan(..., runner=)` calls to have its parts scanned by Ray.

    Args:
        address: HOST:PORT of a running cluster, or "auto"; None: `RAY_ADDRESS`, else one that is started on this
            machine and stopped when the parts are done. A connection that the process has is used, and left.
        workers: parts at a time, at most; None: as many as keep all CPUs of the cluster busy.

    Raises:
        DecontamError: Ray is not installed.
    """
    _import_ray()
    return partial(run_on_ray, address=address, workers=workers)


def run_on_ray(
    work: Work, parts: Sequence[Part], *, address: str | None = None, workers: int | None = None
) -> Iterator[PartResult]:
    """Call a function for each part in Ray tasks of one CPU each; arguments are those of `ray_runner`.

    Raises:
        DecontamError: of the function; no such cluster; a part whose workers die again and again.
    """
    if not parts:
        return
    with _cluster(address or os.environ.get("RAY_ADDRESS"), workers) as ray:
        shared = ray.put(ray.cloudpickle.dumps(work))
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(_scan_one)
        waiting, running = iter(parts), dict[Any, Part]()
        try:
            while True:
                # asked again each time, since a cluster may grow
                limit = workers or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
                for part in islice(waiting, max(0, limit - len(running))):
                    # in a list Ray hands the reference on as it is, for the worker to load once
                    running[task.remote([shared], part)] = part
                if not running:
                    return
                finished, _ = ray.wait(list(running), num_returns=1)
                for ref in finished:
                    yield _result(ray, ref, running.pop(ref))
        finally:
            for ref in running:
                ray.cancel(ref, force=True)


def _scan_one(shared: list[Any], part: Part) -> PartResult | DecontamError:
    """Do one part, in a worker; our own errors are a value, which Ray neither wraps nor tries again."""
    try:
        return _load(shared[0])(part)
    except DecontamError as err:
        return err


@lru_cache(maxsize=1)
def _load(shared: Any) -> Work:
    """Return the function, made once in each process: an index of 60 MB takes longer to make than some parts to scan.

    It is pickled whole, since arrays that stay in Ray's memory can't be written to, and so would be another type for
    numba, for which every kernel is compiled again.
    """
    ray = _import_ray()
    packed = ray.get(shared)
    try:
        work: Work = pickle.loads(packed)  # noqa: S301 - what the driver packed
    except (AttributeError, ImportError, TypeError) as err:
        host = os.uname().nodename
        raise DecontamError(f"a Ray worker on {host} can't read the index ({err}): {_INSTALL}") from err
    return work


def _result(ray: Any, ref: Any, part: Part) -> PartResult:
    try:
        result = ray.get(ref)
    except ray.exceptions.RayTaskError as err:
        if "No module named 'decontam" in str(err):
            raise DecontamError(f"Ray's workers can't import decontam: {_INSTALL}") from err
        raise
    except ray.exceptions.RayError as err:
        message = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise DecontamError(
            f"{part.path}: Ray gave up on a part: {message}: what was finished is kept; scan again"
        ) from err
    if isinstance(result, DecontamError):
        raise result
    found: PartResult = result
    return found


@contextmanager
def _cluster(address: str | None, workers: int | None) -> Iterator[Any]:
    """Connect to a cluster, or start one; leave alone what was there before."""
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    options = {"log_to_driver": False, "logging_level": "ERROR"}
    if address and address != "local":
        _check_address(address)
        ray.init(address=address, **options)
    else:
        n_cpus = max(workers or 0, len(os.sched_getaffinity(0)))
        ray.init(address="local", num_cpus=n_cpus, object_store_memory=_STORE_BYTES, include_dashboard=False, **options)
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Connect in another process: where nothing answers, Ray tries for minutes and then ends the process."""
    wrong = f"can't connect to a Ray cluster at {address!r}"
    advice = "give HOST:PORT as `ray start --head` prints it, or leave out --address to start one on this machine"
    try:
        command = [sys.executable, "-c", _CONNECT, address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=CONNECT_SECONDS, check=False)
    except subprocess.TimeoutExpired as err:
        raise DecontamError(f"{wrong} within {CONNECT_SECONDS} seconds: {advice}") from err
    if "InvalidAuthToken" in done.stderr:
        raise DecontamError(f"{wrong}: it asks for a token: set RAY_AUTH_MODE=token; see `ray get-auth-token`")
    if done.returncode:
        message = (done.stderr.strip() or "no reason given").splitlines()[-1][:400]
        raise DecontamError(f"{wrong}: {advice} ({message})")


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.cloudpickle
        import ray.exceptions
    except ImportError as err:
        raise DecontamError(f"the ray engine needs Ray ({err}): pip install 'qwen2eval[ray]'") from err
    return ray
