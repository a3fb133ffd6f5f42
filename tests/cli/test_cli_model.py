"""The `qwen2eval model` commands: help that runs, the same numbers in tables and JSON, exit codes; nothing heavy."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from qwen2eval.cli.main import build_parser, main
from qwen2eval.model import Qwen2Config, load_model
from qwen2eval.model.config import PRESETS
from qwen2eval.model.save import MAX_SHARD_GB
from tests.model.gguf_files import SIZES, write_gguf
from tests.model.tiny import DENSE, save_tiny

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("info", "convert", "upcycle")
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_tiny(folder, **(DENSE | SIZES | {"num_attention_heads": 4}))
    return folder


def shown_json(capsys, *words):
    assert main(["model", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_that_parses(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main(["model", command, "--help"])
    assert stop.value.code == 0
    example = re.search(r"example:\n  qwen2eval (.*)", capsys.readouterr().out).group(1)
    assert build_parser().parse_args(shlex.split(example)).model_verb == command


def test_every_command_of_the_page_parses():
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\$ qwen2eval (.+)$", page, re.MULTILINE)
    commands = {build_parser().parse_args(shlex.split(line.split("  #")[0])).model_verb for line in lines}
    assert commands == set(COMMANDS)


def test_the_page_shows_what_is_printed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^\$ qwen2eval (model info(?: Qwen2-[^\n]*)?)\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for command, printed in blocks:
        assert main(shlex.split(command)) == 0
        assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == printed.splitlines()


def test_info_of_a_released_model(capsys):
    """The report's figures; the blog's 57,344 bytes a token."""
    shown = shown_json(capsys, "info", "Qwen/Qwen2-7B-Instruct", "--context", "100000", "--batch_size", "2")
    assert shown["n_parameters"] == 7_615_616_512
    assert (shown["kv_bytes_per_token"], shown["dtype"], shown["batch_size"]) == (57_344, "bfloat16", 2)
    assert [row["context_length"] for row in shown["memory"]] == [4096, 8192, 16384, 32768, 100_000]
    assert [row["fits"] for row in shown["memory"]] == [True] * 4 + [False]
    last = shown["memory"][-1]
    assert last["kv_bytes"] == 2 * 100_000 * 57_344
    assert last["total_bytes"] == last["kv_bytes"] + 2 * shown["n_parameters"]


def test_info_shows_the_same_as_a_table(capsys):
    assert main(["model", "info", "Qwen2-57B-A14B", "--context", "200000", "--dtype", "float32"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "57.41 B (57,408,658,944)",
        "14.25 B",
        "64 experts of 2,560, 8 for a token",
        "over the model's length",
    ):
        assert text in shown
    assert "114,688 bytes a token in float32" in shown


def test_info_lists_the_released_models(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["model", "info"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^{re.escape(name)} ", shown, re.MULTILINE) for name in PRESETS)
    assert "…" not in shown, "nothing is cut at 80 columns"
    assert [row["name"] for row in shown_json(capsys, "info")] == list(PRESETS)


def test_info_of_files(capsys, folder, tmp_path):
    """A folder, its config.json and its GGUF file are one model."""
    gguf = write_gguf(tmp_path / "x.gguf", folder)
    first, *others = (shown_json(capsys, "info", path) for path in (folder, folder / "config.json", gguf))
    assert first["n_parameters"] == Qwen2Config.from_hf(folder).n_parameters
    assert [row["context_length"] for row in first["memory"]] == [256]
    for other in others:
        assert {**other, "name": None} == {**first, "name": None}


def test_info_shows_how_the_context_is_stretched(capsys, tmp_path):
    config = DENSE | {"model_type": "qwen2", "max_position_embeddings": 32768, "rope_parameters": YARN}
    dual = {"dual_chunk_attention_config": {"chunk_size": 32768, "local_size": 1024}}
    (tmp_path / "config.json").write_text(json.dumps(config | dual))
    assert main(["model", "info", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "131,072 tokens (YARN x4 from 32,768; dual chunk attention, chunks of 32,768)" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info", "Qwen2-7b"], "Did you mean 'Qwen2-7B'?"),
        (["info", "nowhere/model.gguf"], "neither a file, a folder nor a released model"),
        (["info", "Qwen2-7B", "--dtype", "int3"], "'int3'"),
        (["info", "Qwen2-7B", "--context", "0"], "0 tokens"),
        (["info", "Qwen2-7B", "--batch_size", "0"], "batch_size is 0"),
        (["convert", "nowhere", "out"], "folder 'nowhere' does not exist"),
        (["upcycle", "nowhere", "out", "--experts", "2", "--expert_size", "8"], "8 experts, but there are 2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_line_and_exit_with_64(capsys, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["model", *words]) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "COMMAND"), (["info", "--contxt", "3"], "Did you mean --context"), (["upcycle", "a", "b"], "--experts")],
    ids=["no command", "misspelled", "missing"],
)
def test_usage_errors_exit_with_64(capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        main(["model", *words])
    assert stop.value.code == 64
    assert message in capsys.readouterr().err


def test_convert_prints_what_it_wrote(capsys, folder, tmp_path):
    gguf, out = write_gguf(tmp_path / "x.gguf", folder), tmp_path / "out"
    assert main(["model", "convert", str(gguf), str(out), "--dtype", "float16"]) == 0
    shown, err = capsys.readouterr()
    assert err == ""
    assert str(out) in shown
    assert "39 tensors, 0.2 MB in 1 file, float16" in shown
    assert load_model(out).config == load_model(folder).config
    sizes = shown_json(capsys, "convert", folder, tmp_path / "two", "--max-shard-gb", "1e-4")
    assert sizes["n_files"] == len(list((tmp_path / "two").glob("*.safetensors"))) > 1
    assert sizes["path"] == str(tmp_path / "two")


def test_upcycle_prints_what_it_wrote(capsys, folder, tmp_path):
    words = ["--experts", "4", "--expert_size", "32", "--experts_per_token", "2", "--shared_size", "64", "--seed", "5"]
    assert main(["model", "upcycle", str(folder), str(tmp_path / "out"), *words]) == 0
    assert "4 of 32, shared 64, seed 5" in capsys.readouterr().out
    config = load_model(tmp_path / "out").config
    assert (config.num_experts, config.num_experts_per_tok, config.moe_intermediate_size) == (4, 2, 32)
    assert config.shared_expert_intermediate_size == 64


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(folder, tmp_path):
    """A terminal's Ctrl-C, sent when the first layer is done; the message is not that of a run."""
    code = f"""
import signal
from qwen2eval.cli import model as cli_model
from qwen2eval.cli.main import main
# Python ignores Ctrl-C where its parent does, as in a background job
signal.signal(signal.SIGINT, signal.default_int_handler)
cli_model._show_layer = lambda done, total: signal.raise_signal(signal.SIGINT)
raise SystemExit(main(["model", "convert", {str(folder)!r}, {str(tmp_path / "out")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert "stopped" in done.stderr
    assert "was not written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_default_file_size_is_the_librarys():
    """The command line can't ask the library, which brings torch."""
    assert build_parser().parse_args(["model", "convert", "a", "b"]).max_shard_gb == MAX_SHARD_GB


@pytest.mark.parametrize("name", ["Qwen2-7B", "gguf"])
def test_info_needs_nothing_heavy(folder, tmp_path, name):
    path = write_gguf(tmp_path / "x.gguf", folder) if name == "gguf" else name
    code = f"""
import sys
from qwen2eval.cli.main import main
assert main(["model", "info", {str(path)!r}]) == 0
print([name for name in ("torch", "transformers", "numpy", "gguf", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
