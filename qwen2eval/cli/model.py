"""The `qwen2eval model` commands: info, convert, upcycle. As in main.py: parse -> one library call -> print."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qwen2eval.cli.parser import Subparsers, add_verb, add_verb_group
from qwen2eval.exit_codes import ExitCode

if TYPE_CHECKING:
    from qwen2eval.model.save import Written

_MODEL = "checkpoint folder with safetensors, or a GGUF file"


def add_model_verbs(verbs: Subparsers) -> None:
    """Add `model` and the commands under it to the top-level commands."""
    commands = add_verb_group(
        verbs,
        "model",
        "Inspect a Qwen2 checkpoint, convert it, or upcycle it into a mixture of experts.",
        "qwen2eval model info Qwen2-7B-Instruct --context 100000",
    )
    _add_info(commands)
    _add_convert(commands)
    _add_upcycle(commands)


def do_info(args: argparse.Namespace) -> int:
    """qwen2eval model info."""
    from qwen2eval.model.config import PRESETS
    from qwen2eval.model.info import ModelInfo, find_config
    from qwen2eval.reporting.model_table import model_as_dict, print_model, print_models

    names = [args.name] if args.name else list(PRESETS)
    lengths = [] if args.context is None else [args.context]
    infos = [ModelInfo(name, find_config(name), args.dtype, args.batch_size) for name in names]
    if args.json:
        shown = [model_as_dict(info, info.memory(lengths)) for info in infos]
        print(json.dumps(shown[0] if args.name else shown, indent=1, ensure_ascii=False))
    elif args.name:
        print_model(infos[0], infos[0].memory(lengths), file=sys.stdout)
    else:
        print_models(infos, file=sys.stdout)
    return ExitCode.OK


def do_convert(args: argparse.Namespace) -> int:
    """qwen2eval model convert."""
    from qwen2eval.model.convert import convert

    return _write(args, lambda options: convert(args.source, args.out, **options), {})


def do_upcycle(args: argparse.Namespace) -> int:
    """qwen2eval model upcycle."""
    from qwen2eval.model.upcycle import Upcycling, upcycle

    plan = Upcycling(
        num_experts=args.experts,
        moe_intermediate_size=args.expert_size,
        num_experts_per_tok=args.experts_per_token,
        shared_expert_intermediate_size=args.shared_size,
        seed=args.seed,
    )
    experts = f"{plan.num_experts} of {plan.moe_intermediate_size:,}, shared {plan.shared_size:,}, seed {plan.seed}"
    return _write(args, lambda options: upcycle(args.source, args.out, plan, **options), {"experts": experts})


def _add_info(commands: Subparsers) -> None:
    info = add_verb(
        commands,
        "info",
        do_info,
        "Show a model's parameters and the memory that it takes at several context lengths. No weights are read. "
        "Without NAME the ten released models are listed.",
        "qwen2eval model info Qwen2-7B-Instruct --context 100000",
    )
    info.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="name of a released model, or path of a checkpoint folder, a config.json or a GGUF file",
    )
    info.add_argument(
        "--context", type=int, metavar="N", help="context length in tokens for which memory is shown, too"
    )
    info.add_argument(
        "--batch_size", type=int, default=1, metavar="N", help="number of sequences in the KV cache [default: 1]"
    )
    _add_dtype(info)


def _add_convert(commands: Subparsers) -> None:
    convert = add_verb(
        commands,
        "convert",
        do_convert,
        "Convert a checkpoint to a Hugging Face folder of safetensors, in a chosen data type. GGUF weights are "
        "dequantised.",
        "qwen2eval model convert model.gguf Qwen2-0.5B --dtype bfloat16",
    )
    _add_source_and_out(convert)


def _add_upcycle(commands: Subparsers) -> None:
    upcycle = add_verb(
        commands,
        "upcycle",
        do_upcycle,
        "Upcycle a dense model into a mixture of experts, as Qwen2-57B-A14B was made from Qwen2-7B. The result "
        "initialises further training; it is not a usable model. Experts are cut from shuffled copies of the MLP; half "
        "of their parameters are initialised randomly.",
        "qwen2eval model upcycle Qwen2-7B Qwen2-57B-A14B-init --experts 64 --expert_size 2560",
    )
    _add_source_and_out(upcycle)
    add = upcycle.add_argument
    add("--experts", type=int, required=True, metavar="N", help="number of routed experts in each layer")
    add("--expert_size", type=int, required=True, metavar="N", help="hidden size of a routed expert")
    add("--experts_per_token", type=int, default=8, metavar="N", help="number of routed experts per token [default: 8]")
    add("--shared_size", type=int, metavar="N", help="hidden size of the shared expert [default: that of 8 experts]")
    add("--seed", type=int, default=0, metavar="N", help="random seed [default: 0]")


def _add_source_and_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", help=_MODEL)
    parser.add_argument("out", metavar="OUT", help="folder to create; it must not exist yet")
    _add_dtype(parser)
    # In units of 1e9 bytes; qwen2eval.model.save has the same default, but brings torch
    parser.add_argument(
        "--max_shard_gb", type=float, default=2.0, metavar="N", help="maximum size of one file, in GB [default: 2]"
    )


def _add_dtype(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtype",
        default="bfloat16",
        metavar="DTYPE",
        help="data type of the weights: float32, bfloat16 or float16 [default: bfloat16]",
    )


def _show_layer(done: int, total: int) -> None:
    """Show the number of finished layers on one line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r{done} of {total} layers", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _write(args: argparse.Namespace, write: Callable[[dict[str, Any]], "Written"], notes: dict[str, str]) -> int:
    """Write a checkpoint folder and print what it holds; a stopped command leaves nothing behind."""
    from dataclasses import asdict

    from qwen2eval.reporting.model_table import print_written

    try:
        written = write({"dtype": args.dtype, "max_shard_gb": args.max_shard_gb, "on_layer": _show_layer})
    except KeyboardInterrupt:
        print(f"\nqwen2eval: stopped. {args.out!r} was not written.", file=sys.stderr)
        return ExitCode.INTERRUPTED
    if args.json:
        print(json.dumps(asdict(written) | {"path": str(written.path)}, indent=1))
    else:
        print_written(written, dtype=args.dtype, notes=notes, file=sys.stdout)
    return ExitCode.OK
