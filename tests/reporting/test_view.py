import pytest

from qwen2eval.redact import hide_secrets
from qwen2eval.reporting.sections.headline import Bar, HeadlineSection
from qwen2eval.reporting.sections.tasks import TasksSection
from qwen2eval.reporting.view import build_view
from tests.reporting.made_up import read, records


def _section(info, scores, kind):
    return next(one for one in build_view(read(info), records(scores)).sections if isinstance(one, kind))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pretrained=m,token=hf_abc", "pretrained=m,token=***"),
        ("api_key: sk-12\nseed: 0", "api_key: ***\nseed: 0"),
        ("--api-key sk-12 --seed 0", "--api-key *** --seed 0"),
        ("{'openai_api_key': 'sk-12', 'a': 1}", "{'openai_api_key': '***', 'a': 1}"),
        ("--model_args 'hf_token=abc'", "--model_args 'hf_token=***'"),
        ("tokenizer=t,max_gen_toks=5,eos_token=x", "tokenizer=t,max_gen_toks=5,eos_token=x"),
    ],
)
def test_secrets_do_not_reach_a_report(text, shown):
    assert hide_secrets(text) == shown


def test_the_bar_lies_within_the_line(info, scores):
    scores.loc[0, ["ci_low", "ci_high"]] = [-0.2, 1.3]
    headline = next(each for each in _section(info, scores, HeadlineSection).headlines if each.row.task == "colours")
    assert headline.bar == Bar(value=27.0, low=0.0, width=100.0, chance=25.0)


def test_only_ratios_have_a_bar(info, scores):
    bars = {each.row.task: each.bar is not None for each in _section(info, scores, HeadlineSection).headlines}
    assert bars == {
        "choices": True, "colours": True, "facts": True, "sums": True, "running_text": False, "letters": False
    }  # fmt: skip


def test_counts_of_health_are_in_the_protocol(info, scores):
    sums = next(task for task in _section(info, scores, TasksSection).tasks if task.name == "sums")
    facts = {fact.label: fact.value for fact in sums.facts}
    assert facts["Truncated prompts"] == "0"
    assert facts["Unfinished answers"] == "9"
    assert facts["Extraction failures"] == "14 (strict-match)"


def test_status_counts_failed_tasks(info, clean_info, scores):
    assert build_view(read(info), records(scores)).status == "finished, 1 of 5 tasks failed"
    assert build_view(read(clean_info), records(scores)).status == "finished"
