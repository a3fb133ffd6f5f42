"""Where no hub can be reached: one clear message, and no half a minute of attempts for each file."""

import socket

import pytest

from qwen2eval import RunConfig
from qwen2eval.backends import load_spec
from qwen2eval.data.hub_files import hub_file, hub_or_cache, why_no_hub
from qwen2eval.errors import MissingDataError, ModelError


@pytest.fixture
def no_hub(monkeypatch):
    """Return the list of hosts that are asked for while the hub has no address."""
    from huggingface_hub import constants

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    asked = []
    lookup = socket.getaddrinfo

    def listed(host, *args, **kwargs):
        asked.append(host)
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(constants, "ENDPOINT", "https://no-hub.invalid")
    monkeypatch.setattr(socket, "getaddrinfo", listed)
    why_no_hub.cache_clear()
    yield asked
    why_no_hub.cache_clear()


def test_a_hub_without_an_address_is_asked_for_once(no_hub):
    for name in ("a.zip", "b.zip"):
        with pytest.raises(MissingDataError, match=r"no-hub.invalid has no address here .*cache does not hold it"):
            hub_file(
                "nobody/nothing", name, offline=False, error=MissingDataError("No data", benchmark="x", files=name)
            )
    assert no_hub == ["no-hub.invalid"]


@pytest.mark.usefixtures("no_hub")
def test_the_error_keeps_what_it_is_about():
    with pytest.raises(MissingDataError) as caught:
        hub_file("nobody/nothing", "a", offline=False, error=MissingDataError("No data", benchmark="x", files="a.zip"))
    assert (caught.value.benchmark, caught.value.files) == ("x", "a.zip")


@pytest.mark.usefixtures("no_hub")
def test_libraries_are_told_only_within_the_block():
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with hub_or_cache(offline=False):
        assert constants.HF_HUB_OFFLINE
    assert before == constants.HF_HUB_OFFLINE


@pytest.mark.usefixtures("no_hub")
def test_behind_a_proxy_the_hub_may_be_there(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:8080")
    assert why_no_hub() is None


@pytest.mark.parametrize("model", ["hf", "qwen2"])
def test_a_model_that_no_hub_has_is_told_at_once(no_hub, model, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="'someone/none' can't be opened"):
        load_spec(RunConfig(model=model, model_args={"pretrained": "someone/none"}))
    assert no_hub == ["no-hub.invalid"]
