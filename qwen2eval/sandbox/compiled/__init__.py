"""Programs in other languages than Python: compiled and run, each in a separate sandbox.

from qwen2eval.sandbox.compiled import CompiledCheck, CompiledSandbox
CompiledSandbox().check("puts 1", language="rb")
"""

from qwen2eval.sandbox.compiled.check import CompiledCheck
from qwen2eval.sandbox.compiled.compiled_sandbox import CompiledSandbox
from qwen2eval.sandbox.compiled.languages import LANGUAGES, Language

__all__ = ["LANGUAGES", "CompiledCheck", "CompiledSandbox", "Language"]
