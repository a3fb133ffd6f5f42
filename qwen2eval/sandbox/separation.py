"""Can these tests run in another process than the program? Decided from the tests alone, which are trusted."""

import ast
import builtins
import functools
import threading
import warnings
from typing import NamedTuple

from qwen2eval.sandbox.execution import Check
from qwen2eval.sandbox.inside.codec import CARRIED_TYPES

_ABOUT_OBJECTS = frozenset(
    {"id", "globals", "locals", "vars", "eval", "exec", "compile", "getattr", "setattr", "hasattr"}
)
_SINGLETONS = (None, True, False, ...)
_BUILTINS = frozenset(dir(builtins))
_PARTS_OF_VALUES = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.UnaryOp, ast.unaryop, ast.expr_context)
_CARRIED_ATTRIBUTES = frozenset(name for kind in CARRIED_TYPES for name in dir(kind))
_TAKE_FUNCTIONS = frozenset({"map", "filter", "reduce", "partial", "callable", "starmap", "takewhile"})
_TAKE_COROUTINES = frozenset(
    {"run", "run_until_complete", "gather", "wait_for", "wait", "create_task", "ensure_future", "anext", "aiter"}
)
_parsing = threading.Lock()


class Separation(NamedTuple):
    """How tests are to be run.

    Attributes:
        why_together: why tests and program must share a process, `None` if they need not.
        defines_check: the tests define `check(candidate)`; else they are asserts that call the function by its name.
    """

    why_together: str | None
    defines_check: bool


def examine_tests(check: Check) -> Separation:
    """Return how the tests of a check are to be run.

    Tests that can't be compiled are separate: the tester reports what is wrong with them.

    >>> examine_tests(Check("", entry_point="f", tests="assert f(1) == 2"))
    Separation(why_together=None, defines_check=False)
    >>> examine_tests(Check("", entry_point="f", tests="assert f(Pair(1, 2)) == 2")).why_together
    "the tests use 'Pair' of the program"
    """
    # What parsers warn of can be kept from the user's screen by one thread at a time
    with _parsing:
        return _examine((check.entry_point or "").rpartition(".")[2], check.setup, check.tests or "")


@functools.lru_cache(maxsize=4_096)  # many samples of one doc have the same tests
def _examine(entry: str, setup_source: str, tests_source: str) -> Separation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            setup, tests = ast.parse(setup_source), ast.parse(tests_source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return Separation(None, False)
    checks = [node for node in tests.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    candidates = {entry} | {node.args.args[0].arg for node in checks if node.args.args}
    # of large tests nearly all nodes are the numbers of long lists
    nodes = [node for tree in (setup, tests) for node in ast.walk(tree) if not isinstance(node, _PARTS_OF_VALUES)]
    known = _BUILTINS | candidates | _bound_names(nodes)
    # By identity: equal nodes occur in many places of a tree
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    objections = [_objection(node, candidates, known, called) for node in nodes]
    why = next(filter(None, objections), None) or _looks_into_results(nodes, candidates)
    return Separation(why, bool(checks))


def _objection(node: ast.AST, candidates: set[str], known: frozenset[str] | set[str], called: set[int]) -> str | None:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        if node.id not in known:
            return f"the tests use {node.id!r} of the program"
        # Only a call is an objection: `id` is also a common name of a variable
        if node.id in _ABOUT_OBJECTS and id(node) in called:
            return f"the tests call {node.id}()"
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in candidates:
        return f"the tests look at {node.value.id}.{node.attr}"
    if isinstance(node, ast.Compare) and _compares_identity(node):
        return "the tests ask whether two values are the same object"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in candidates:
        parts = [*node.args, *(keyword.value for keyword in node.keywords)]
        # A function can't be carried to another process
        if any(isinstance(part, ast.Lambda) for part in parts):
            return "the tests pass functions"
    if isinstance(node, ast.Name | ast.alias) and (node.id if isinstance(node, ast.Name) else node.name) == "inspect":
        return "the tests inspect the program"
    return None


def _looks_into_results(nodes: list[ast.AST], candidates: set[str]) -> str | None:
    """Object to tests that use what the program returns as no carried value can be: call it, await it, look into it."""
    candidates, of_results = set(candidates), set[str]()
    # Names of names
    for _ in range(2):
        for node in nodes:
            targets, value = _binding(node)
            if value is not None and _holds_result(value, candidates, of_results):
                of_results |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
            if isinstance(node, ast.FunctionDef) and _returns_result(node, candidates, of_results):
                candidates.add(node.name)
    for node in nodes:
        if any(_holds_result(one, candidates, of_results) for one in _used_as_function(node)):
            return "the tests call, await or enter what the program returns"
        if isinstance(node, ast.Attribute) and node.attr not in _CARRIED_ATTRIBUTES:
            inner: ast.expr = node.value
            while isinstance(inner, ast.Attribute | ast.Subscript):
                inner = inner.value
            if _holds_result(inner, candidates, of_results):
                return f"the tests look at .{node.attr} of what the program returns"
    return None


def _used_as_function(node: ast.AST) -> list[ast.expr]:
    """Return what a node calls, awaits or enters, by itself or by a function that does it."""
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name) as func, args=args, keywords=keywords):
            given = [one.value for one in keywords if one.arg in ("key", "target", "func")]
            return [func, *given, *(args if name in _TAKE_COROUTINES else args[:1] if name in _TAKE_FUNCTIONS else ())]
        case ast.Call(func=func):
            return [func]
        case ast.Await(value=value) | ast.AsyncFor(iter=value):
            return [value]
        case ast.comprehension(iter=value, is_async=1):
            return [value]
        case ast.With(items=items) | ast.AsyncWith(items=items):
            return [item.context_expr for item in items]
        case ast.FunctionDef(decorator_list=decorators) | ast.ClassDef(decorator_list=decorators):
            return decorators
    return []


def _returns_result(node: ast.FunctionDef, candidates: set[str], of_results: set[str]) -> bool:
    returned = (one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value is not None)
    return any(_holds_result(value, candidates, of_results) for value in returned)


def _binding(node: ast.AST) -> tuple[list[ast.expr], ast.expr | None]:
    """Return the targets that a node binds, and to what."""
    match node:
        case ast.Assign(targets=targets, value=value):
            return targets, value
        case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
            return [target], value
        case ast.NamedExpr(target=target, value=value):
            return [target], value
    return [], None


def _holds_result(node: ast.expr, candidates: set[str], of_results: set[str]) -> bool:
    """Whether an expression is what the program returned, a part of it, or a list with it."""
    match node:
        case ast.Name(id=name):
            return name in of_results
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            return any(_holds_result(part, candidates, of_results) for part in parts)
        case ast.ListComp(elt=inner) | ast.GeneratorExp(elt=inner):
            return _holds_result(inner, candidates, of_results)
        case ast.Subscript(value=inner) | ast.Starred(value=inner):
            return _holds_result(inner, candidates, of_results)
    return _is_call(node, candidates)


def _is_call(node: ast.expr, candidates: set[str]) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in candidates


def _compares_identity(node: ast.Compare) -> bool:
    if not any(isinstance(operator, ast.Is | ast.IsNot) for operator in node.ops):
        return False
    sides = [node.left, *node.comparators]
    return not any(isinstance(side, ast.Constant) and side.value in _SINGLETONS for side in sides)


def _bound_names(nodes: list[ast.AST]) -> set[str]:
    """Return all names that are bound anywhere in a module: enough, since the tests are trusted."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names
