"""Python source that a model wrote, parsed and never run: what it defines, what it needs, which part of it is code.

A repair is made only to what is not Python, and only if Python can read the result.
"""

import ast
import builtins
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

MAX_CHARS = 1 << 18
"""Longer texts are not searched for the parts of them that are Python."""
MAX_PARSED_CHARS = 1 << 22
"""What is read, all tries together, in the search for parts: it takes a second at most."""
_MAX_CUTS = 64
_BUILTINS = frozenset(dir(builtins))
_ODD_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_INVISIBLE = re.compile("[\u200b-\u200d\u2060\ufeff]")
_SIGNS = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    0x201C: '"',
    0x201D: '"',
    0x2018: "'",
    0x2019: "'",
}
_PROMPT = re.compile(r"^[ \t]*(?:>>>|\.\.\.)(?: |$)", re.MULTILINE)
_START = re.compile(
    r"[ \t]*(?:(?:async +)?def +\w+ *[(\[]|class +\w+ *[(:\[]|from +[\w.]+ +import\b|import +\w[\w., ]*$|@\w)"
    r"|[A-Za-z_]\w* *=[^=]"
)
Statement = ast.stmt


@lru_cache(maxsize=512)
def parse(source: str) -> ast.Module | None:
    """Return the tree of a whole program; None: Python can't read it."""
    return None if isinstance(found := _compiled(source), int) else found


def readable(source: str) -> str:
    r"""Return source as it is if Python can read it, else repaired if that helps, else as it is.

    Repairs: spaces and signs that are none to Python, the prompts of an interpreter's session, a common indentation,
    tabs beside spaces.

    >>> readable(">>> def f(x):\n...     return x\n>>> f(1)\n1\n")
    'def f(x):\n    return x\nf(1)'
    """
    tried = [source]
    if parse(source) is not None or len(source) > MAX_CHARS:
        return source
    for repair in _REPAIRS:
        for text in [repair(text) for text in tried]:
            if text not in tried:
                tried.append(text)
                if parse(text) is not None:
                    return text
    return source


def definitions(tree: ast.Module) -> dict[str, bool]:
    r"""Return the names that a program binds at its top, and the methods of its classes as `Class.method`.

    Each with whether it may be a function with more than a docstring, `pass`, `...` or `raise NotImplementedError`.

    >>> definitions(ast.parse("import os\ndef f():\n    pass\nclass A:\n    def g(self):\n        return 1"))
    {'os': True, 'f': False, 'A': True, 'A.g': True}
    """
    found: dict[str, bool] = {}
    for node in _top_statements(tree.body):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found[name] = not _is_stub(node.body)
            case ast.ClassDef(name=name, body=body):
                functions = [one for one in body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
                methods = {f"{name}.{one.name}": not _is_stub(one.body) for one in functions}
                found |= {name: not _is_stub(body) or any(methods.values()), **methods}
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {(one.asname or one.name).split(".")[0]: True for one in names}
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign() | ast.For():
                stored = (one for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store))
                found |= {one.id: _may_be_function(node) for one in stored}
    return found


def does_something(tree: ast.Module) -> bool:
    """Whether a program does more, when it is run, than define, import and name values."""
    return any(not _only_defines(node) and not _is_prose(node) for node in tree.body) or any(
        isinstance(node, ast.Assign | ast.AnnAssign) and _has_call(node) for node in tree.body
    )


def reads_input(tree: ast.AST) -> bool:
    """Whether a program, or a part of one, names standard input."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id="input" | "stdin" | "fileinput") | ast.Attribute(attr="stdin"):
                return True
            case ast.Call(func=ast.Name(id="open"), args=[ast.Constant(value=0 | "/dev/stdin"), *_]):
                return True
    return False


def without_session(source: str) -> str:
    """Return source without what reads input or ends the program when it is loaded, and what follows that.

    Functions that are called need nothing of it; `if __name__ == "__main__"` does not run then and stays.
    """
    tree = parse(source)
    if tree is None or not any(_is_session(node) for node in tree.body):
        return source
    first = next(i for i, node in enumerate(tree.body) if _is_session(node))
    return _unparsed([*tree.body[:first], *(node for node in tree.body[first:] if _only_defines(node, calls=False))])


def with_helpers(blocks: list[str], chosen: int) -> str:
    r"""Return a program with those definitions of other blocks before it that it needs.

    >>> with_helpers(["import math\n", "print(3)\n", "def f(x):\n    return math.sqrt(x)\n"], 2)
    'import math\n\ndef f(x):\n    return math.sqrt(x)\n'
    """
    others = {i: _definitions_only(block) for i, block in enumerate(blocks) if i != chosen}
    taken: set[int] = set()
    wanted = _needed(blocks[chosen])
    while wanted:
        # The last that defines it: drafts come first
        new = next((i for i in sorted(others, reverse=True) if i not in taken and wanted & _bound(others[i])), None)
        if new is None:
            break
        taken.add(new)
        wanted = (wanted | _needed(others[new])) - _bound(others[new])
    stars = {i for i, source in others.items() if re.search(r"^from \S+ import \*", source, re.MULTILINE)}
    return "\n".join([*(others[i] for i in sorted(taken | stars)), blocks[chosen]])


def python_parts(text: str) -> list[str]:
    r"""Return the parts of a text that are Python, each as long as can be.

    A part begins with a definition, an import, a decorator or an assignment; where there is none, with a paragraph.

    >>> python_parts("Sure:\n\ndef f(x):\n    return x\n\nIt's done.")
    ['def f(x):\n    return x\n']
    """
    if parse(text) is not None:
        return [text]
    if len(text) > MAX_CHARS:
        return []
    lines = text.split("\n")
    return _parts(lines, lambda at: _START.match(lines[at]) is not None) or _parts(
        lines, lambda at: bool(lines[at].strip()) and (at == 0 or not lines[at - 1].strip())
    )


def longest_beginning(source: str) -> str | None:
    """Return the longest beginning, in whole statements at the margin, that Python can read; None: there is none."""
    lines = source.split("\n")
    for _ in range(_MAX_CUTS):
        found = _compiled("\n".join(lines))
        if not isinstance(found, int):
            return "\n".join(lines) if any(map(str.strip, lines)) else None
        end = min(max(found - 1, 0), len(lines) - 1)
        # A statement with a fault in it is none: half a function would hide the fault
        while end > 0 and (not lines[end].strip() or lines[end][0].isspace()):
            end -= 1
        del lines[end:]
    return None


def _compiled(source: str) -> ast.Module | int:
    """Return the tree, or the line where Python stops reading."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(source)
            compile(tree, "<answer>", "exec", dont_inherit=True)
        except SyntaxError as err:
            return err.lineno or 1
        # Null bytes; hostile depth
        except (ValueError, RecursionError, MemoryError, OverflowError):
            return 1
    return tree


def _parts(lines: list[str], begins: Callable[[int], bool]) -> list[str]:
    parts, at, n_chars = list[str](), 0, 0
    n_behind = sum(map(len, lines))
    while at < len(lines) and n_chars <= MAX_PARSED_CHARS:
        part = None
        if begins(at):
            part = _part_from(lines, at)
            n_chars += n_behind
        if part is not None:
            parts.append(part)
        begin, at = at, at + (1 if part is None else max(part.count("\n"), 1))
        n_behind -= sum(map(len, lines[begin:at]))
    return parts


def _part_from(lines: list[str], at: int) -> str | None:
    """Return the longest part that begins with a line, without that line's indentation, and without prose behind it."""
    margin = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    inside = []
    for line in lines[at:]:
        if line.strip() and not line.startswith(margin):
            break
        inside.append(line[len(margin) :])
    part = longest_beginning("\n".join(inside))
    tree = None if part is None else parse(part)
    if part is None or tree is None:
        return None
    kept = list(tree.body)
    while kept and _is_prose(kept[-1]):
        kept.pop()
    return "".join(f"{line}\n" for line in part.split("\n")[: kept[-1].end_lineno]) if kept else None


def _is_prose(node: Statement) -> bool:
    """Whether a statement does nothing: words that happen to be Python, such as `Done` or `Complexity: O(n)`."""
    match node:
        case ast.Expr(value=value):
            return not isinstance(value, ast.Call | ast.Await | ast.Yield | ast.ListComp)
        case ast.AnnAssign(value=None):
            return True
    return False


def _plain_spaces(source: str) -> str:
    return _INVISIBLE.sub("", _ODD_SPACES.sub(" ", source)).replace("\u2028", "\n")


def _plain_signs(source: str) -> str:
    """Return source with the signs of ASCII for those of Chinese typing and for printers' quotes."""
    return source.translate(_SIGNS)


def _without_prompts(source: str) -> str:
    """Return what was typed in an interpreter's session, without what it printed."""
    if ">>>" not in source:
        return source
    lines = textwrap.dedent(source).split("\n")
    return "\n".join(_PROMPT.sub("", line) for line in lines if _PROMPT.match(line))


def _without_margin(source: str) -> str:
    return textwrap.dedent(source).lstrip("\n")


def _narrow_tabs(source: str) -> str:
    return source.expandtabs(4)


def _wide_tabs(source: str) -> str:
    return source.expandtabs(8)


def _first_line_indented(source: str) -> str:
    """Return source whose first line has lost an indentation that the others have, in common."""
    first, _, rest = source.lstrip().partition("\n")
    return f"{first}\n{textwrap.dedent(rest)}"


_REPAIRS = (
    *(_plain_spaces, _without_prompts, _without_margin, _narrow_tabs, _wide_tabs, _first_line_indented),
    _plain_signs,
)


def _top_statements(body: Iterable[Statement]) -> Iterator[Statement]:
    """Yield the statements of a module, and those within its conditions."""
    for node in body:
        yield node
        for field in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
                yield from _top_statements(getattr(node, field, ()))
        for handler in getattr(node, "handlers", ()):
            yield from _top_statements(handler.body)


def _may_be_function(node: Statement) -> bool:
    kinds = ast.Lambda | ast.Name | ast.Attribute | ast.Call
    return isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, kinds)


def _is_stub(body: list[Statement]) -> bool:
    def is_empty(node: Statement) -> bool:
        match node:
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                return True
            case ast.Raise(exc=ast.Name(id="NotImplementedError")):
                return True
            case ast.Raise(exc=ast.Call(func=ast.Name(id="NotImplementedError"))):
                return True
            # By itself it does nothing
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                return True
        return False

    return all(map(is_empty, body))


def _only_defines(node: Statement, *, calls: bool = True) -> bool:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
    return isinstance(node, kinds) or (
        isinstance(node, ast.Assign | ast.AnnAssign) and (calls or not _has_call(node)) and not reads_input(node)
    )


def _is_session(node: Statement) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or _is_main(node):
        return False
    calls = [one.func for one in ast.walk(node) if isinstance(one, ast.Call)]
    names = {one.id for one in calls if isinstance(one, ast.Name)}
    ends = any(isinstance(one, ast.Attribute) and ast.unparse(one) in ("sys.exit", "os._exit") for one in calls)
    return bool(names & {"input", "exit", "quit"}) or ends or (bool(calls) and reads_input(node))


def _is_main(node: Statement) -> bool:
    return isinstance(node, ast.If) and any(
        isinstance(one, ast.Name) and one.id == "__name__" for one in ast.walk(node.test)
    )


def _has_call(node: ast.AST) -> bool:
    return any(isinstance(one, ast.Call) for one in ast.walk(node))


def _definitions_only(source: str) -> str:
    """Return a block without what it does besides defining; nothing of what is not Python."""
    tree = parse(source)
    if tree is None:
        return ""
    kept = [node for node in tree.body if _only_defines(node)]
    return source if len(kept) == len(tree.body) else _unparsed(kept)


def _unparsed(nodes: list[Statement]) -> str:
    return "".join(f"{ast.unparse(node)}\n" for node in nodes)


def _bound(source: str) -> set[str]:
    tree = parse(source)
    return set() if tree is None else {name for name in definitions(tree) if "." not in name}


def _needed(source: str) -> set[str]:
    """Return the names that a program reads and does not bind at its top."""
    tree = parse(source)
    if tree is None:
        return set()
    read = {one.id for one in ast.walk(tree) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}
    return read - _bound(source) - _BUILTINS
