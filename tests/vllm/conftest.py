"""A tiny Qwen2 that vLLM's CPU kernels take (heads of 32), and one engine for it that the tests share."""

import os
from importlib.util import find_spec

import pytest

from qwen2eval.backends import load_spec, open_model
from qwen2eval.config import RunConfig
from tests.backends.openai_server import save_tiny_model

CPU_ARGS = {"enforce_eager": True, "gpu_memory_utilization": 0.3}
"""Without compiling, and however little memory the machine has free."""

if find_spec("vllm") is not None:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


@pytest.fixture(scope="session")
def vllm_model(tmp_path_factory):
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    folder = save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    config = Qwen2Config.from_pretrained(folder)
    config.hidden_size, config.intermediate_size, config.initializer_range = 128, 128, 0.15
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    tokens = AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(range(config.vocab_size))
    with torch.no_grad():  # greedy text is of letters, so that it is cut into the same tokens again
        model.lm_head.weight[[len(token) > 1 or not (token.isascii() and token.isalpha()) for token in tokens]] *= 0.2
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def open_vllm():
    """Return a function that opens a backend on a folder; all of them are closed at the end."""
    opened = []

    def open_(folder, **model_args):
        args = {"pretrained": str(folder), "dtype": "float32", "block_size": 32, **CPU_ARGS, **model_args}
        config = RunConfig(model="vllm", model_args=args)
        opened.append(open_model(config, load_spec(config)))
        return opened[-1]

    yield open_
    for backend in opened:
        backend.close()


@pytest.fixture(scope="session")
def vllm_backend(vllm_model, open_vllm):
    return open_vllm(vllm_model)


@pytest.fixture
def outputs(vllm_backend, monkeypatch):
    """Return the list of what the engine finishes from now on, as vLLM's `RequestOutput`s."""
    seen = []
    engine = vllm_backend._lm.model.llm_engine
    step = engine.step

    def recorded():
        finished = step()
        seen.extend(output for output in finished if output.finished)
        return finished

    monkeypatch.setattr(engine, "step", recorded)
    return seen
