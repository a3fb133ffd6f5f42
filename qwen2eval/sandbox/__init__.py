"""Programs that a model wrote, run where they can do no harm, with verdicts that they can't fake.

from qwen2eval.sandbox import Sandbox
with Sandbox() as sandbox:
    print(sandbox.check("def f(x): return x + 1", entry_point="f", tests="assert f(1) == 2").verdict)
"""

from qwen2eval.sandbox.execution import VERDICTS, Check, Execution, Verdict
from qwen2eval.sandbox.levels import LEVELS, STRONG_LEVELS, SandboxError
from qwen2eval.sandbox.sandbox import Sandbox

__all__ = ["LEVELS", "STRONG_LEVELS", "VERDICTS", "Check", "Execution", "Sandbox", "SandboxError", "Verdict"]
