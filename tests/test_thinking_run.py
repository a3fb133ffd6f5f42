"""A run of a model that thinks: its samples hold the thoughts, and scoring them again gives the same."""

import json

from qwen2eval import RunConfig, run
from qwen2eval.rescore import rescore
from tests.backends.chain_model import save_chain_model

CHAINS = {
    "A": ["<think>Is it 9?", "\n\nNo, it is 7.", "</think>\n7", "\n\nNext: 8"],
    "B": ["Eight", "\n\nNine"],
    "C": ["<think>Two?", " Or three?", " Or four?", " Or", " five?"],
}
TASK = """
task: think
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 5}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def test_thoughts_are_in_the_samples_and_not_in_the_score(tmp_path):
    model = save_chain_model(tmp_path / "model", CHAINS)
    rows = [{"q": "A", "a": "7"}, {"q": "B", "a": "Eight"}, {"q": "C", "a": "2"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "think.yaml").write_text(TASK.format(data=tmp_path / "rows.jsonl"))
    config = RunConfig(
        model="qwen2",
        model_args={"pretrained": str(model), "dtype": "float32"},
        device="cpu",
        tasks=("think",),
        include_path=(str(tmp_path),),
        output_path=str(tmp_path / "runs"),
    )
    made = run(config, quiet=True)
    before = made.samples("think")
    assert before["response"].tolist() == ["7", "Eight", ""]
    assert before["exact_match"].tolist() == [1, 1, 0]
    assert before["thought"][0] == "<think>Is it 9?\n\nNo, it is 7.</think>\n"
    assert before["thought"].isna().tolist() == [False, True, False]
    assert before["thought_unfinished"].tolist() == [False, None, True]
    assert before["n_thought_tokens"].notna().tolist() == [True, False, True]
    health = made.info.health["think"]
    assert (health.n_thoughts, health.n_unfinished_thoughts, health.n_unfinished, health.n_empty) == (2, 1, 1, 0)
    assert "1 of them inside a thought" in health.flags[0].message
    again = rescore(made.path, quiet=True)
    assert again.samples("think").to_json() == before.to_json()
    assert again.info.health["think"] == health
