"""The Hugging Face hub: whether it can be reached, and single files of data sets that `datasets` can't load."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from qwen2eval.errors import MissingDataError
from qwen2eval.offline import hub_libraries_offline


def hub_file(repository: str, name: str, *, offline: bool, error: MissingDataError) -> Path:
    """Return a file of a data set's repository, from the hub's cache or downloaded into it.

    Raises:
        MissingDataError: `error`, when the hub can't be reached and its cache does not hold the file.
    """
    from huggingface_hub import hf_hub_download

    try:
        with hub_or_cache(offline=offline):
            return Path(hf_hub_download(repository, name, repo_type="dataset", local_files_only=offline))
    # a dead network, an unknown repository or file and an empty cache are half a dozen unrelated types
    except Exception as err:
        raise not_at_hub(error, err, offline=offline) from err


@contextmanager
def hub_or_cache(*, offline: bool) -> Iterator[None]:
    """Run the block with the hub's libraries limited to their cache, where no hub can be reached.

    They would try for half a minute a file. Where they are limited already (`--offline`, HF_HUB_OFFLINE) the
    hub is not tried.
    """
    from huggingface_hub import constants

    if offline or constants.HF_HUB_OFFLINE or why_no_hub() is None:
        yield
        return
    with hub_libraries_offline():
        yield


@cache
def why_no_hub() -> str | None:
    """Return why the hub can't be reached from here, which is asked once a process; None: it may be reached."""
    from huggingface_hub.constants import ENDPOINT

    # A proxy asks for the address
    if getproxies():
        return None
    host = urlsplit(ENDPOINT).hostname
    try:
        socket.getaddrinfo(host, None)
    except OSError as err:
        return f"{host} has no address here ({err.strerror or err})"
    return None


def not_at_hub(error: MissingDataError, cause: Exception, *, offline: bool) -> MissingDataError:
    """Return `error` with what the hub, or its library, said to it."""
    if offline:
        why = "--offline forbids the network and the cache does not hold it"
    elif no_hub := why_no_hub():
        why = f"{no_hub}, and the cache does not hold it"
    else:
        why = f"{type(cause).__name__}: {cause}"
    return MissingDataError(f"{error}\nThe hub said: {why}", benchmark=error.benchmark, files=error.files)
