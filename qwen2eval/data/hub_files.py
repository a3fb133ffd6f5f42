"""Single files of data sets on the Hugging Face hub, for sets that `datasets` can't load as they are."""

from pathlib import Path

from qwen2eval.errors import MissingDataError


def hub_file(repository: str, name: str, *, offline: bool, error: MissingDataError) -> Path:
    """Return a file of a data set's repository, from the hub's cache or downloaded into it.

    Raises:
        MissingDataError: `error`, when the hub can't be reached and its cache does not hold the file.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, name, repo_type="dataset", local_files_only=offline))
    # a dead network, an unknown repository or file and an empty cache are half a dozen unrelated types
    except Exception as err:
        why = (
            "--offline forbids the network and the cache does not hold it"
            if offline
            else f"{type(err).__name__}: {err}"
        )
        raise MissingDataError(f"{error}\nThe hub said: {why}") from err
