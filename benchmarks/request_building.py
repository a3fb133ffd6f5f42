"""Building the requests of one MMLU-sized task: 14,000 docs, 4 choices, 5 examples drawn at random for each doc.

lm-eval's `build_all_requests` against `plan_task`, each in a process of its own; the requests must be the same bytes.
"""

import tempfile
from pathlib import Path

from lib.local_tasks import write_choices
from lib.measure import measure, python, scratch_env, show, title, verdict

N_DOCS = 14_000
PRINT = """
def show(seconds, requests):
    digest, n = hashlib.sha256(), 0
    for request in requests:
        digest.update(json.dumps(request).encode())
        n += 1
    print(seconds, n, digest.hexdigest())
"""
LM_EVAL = f"""
import hashlib, json, logging, sys, time
logging.disable()
from lm_eval.tasks import TaskManager
{PRINT}
task = TaskManager(include_defaults=False, include_path=sys.argv[1]).load(["big"])["tasks"]["big"]
task.set_fewshot_seed(1234)
begin = time.perf_counter()
task.build_all_requests()
show(time.perf_counter() - begin, ([i.doc_id, i.idx, *i.args] for i in task.instances))
"""
OURS = f"""
import hashlib, json, sys, time
from qwen2eval import RunConfig
from qwen2eval.backends import load_spec
from qwen2eval.tasks.lm_eval_internals import compiled_templates
from qwen2eval.planning.plan import plan_task
from qwen2eval.quiet import prepared_libraries
from qwen2eval.tasks.registry import load_tasks
{PRINT}
config = RunConfig(model="dummy", tasks=("big",), include_path=(sys.argv[1],))
with prepared_libraries(offline=config.offline):
    task, spec = load_tasks(config).tasks["big"], load_spec(config)
    begin = time.perf_counter()
    with compiled_templates():
        planned = plan_task("big", task, config=config, spec=spec)
    seconds = time.perf_counter() - begin
show(seconds, ([r.doc_id, r.index, str(r.prompt), r.continuation] for r in planned.requests))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, env = Path(scratch) / "tasks", scratch_env(Path(scratch))
        write_choices(folder, "big", n_docs=N_DOCS)
        ours, n_requests, digest = measure([*python(OURS), str(folder)], env=env).output.splitlines()[-1].split()
        theirs, *of_lm_eval = measure([*python(LM_EVAL), str(folder)], env=env).output.splitlines()[-1].split()
    if [n_requests, digest] != of_lm_eval:
        raise SystemExit(f"The requests differ: {n_requests} {digest} (ours), {' '.join(of_lm_eval)} (lm-eval)")
    title(f"Seconds for the same {int(n_requests):,} requests, byte for byte")
    show("", ["qwen2eval", "lm-eval", "ratio"])
    ratio = float(theirs) / float(ours)
    show(
        f"{N_DOCS:,} docs x 4 choices, 5-shot",
        [f"{float(ours):.2f}", f"{float(theirs):.2f}", f"{ratio:.1f}x"],
        aim=verdict(float(ours), 5.0, "s"),
    )


if __name__ == "__main__":
    main()
