from qwen2eval.reporting.findings import collect_findings
from tests.reporting.made_up import read


def test_worst_first_then_in_run_order(info):
    assert [(finding.level, finding.task, finding.title) for finding in collect_findings(read(info))] == [
        ("error", "sums", "failed requests"),
        ("error", "letters", "task failed"),
        ("warning", "colours", "chance level"),
        ("warning", "sums", "unfinished answers"),
        ("warning", "sums", "extraction failures"),
        ("warning", "running_text", "sanity check"),
        ("warning", None, "plan"),
        ("note", None, "partial run"),
    ]


def test_a_failed_task_names_its_error_and_what_to_do(info):
    failed = next(finding for finding in collect_findings(read(info)) if finding.task == "letters")
    assert failed.message == info["tasks"]["letters"]["error"]
    assert failed.advice is not None
    assert "same command again" in failed.advice


def test_a_partial_run_is_told_even_where_no_check_did(clean_info):
    clean_info["tasks"]["facts"]["n_docs_total"] = 5000
    (finding,) = collect_findings(read(clean_info))
    assert finding.message == "Only a part of the docs was asked: facts 100 of 5,000."


def test_a_clean_run_has_nothing_to_watch(clean_info):
    assert collect_findings(read(clean_info)) == ()


def test_a_preflight_warning_that_is_a_flag_already_is_told_once(clean_info):
    clean_info["tasks"]["facts"]["preflight"] = "long docs"
    flag = {"check": "preflight", "level": "warning", "message": "long docs"}
    clean_info["health"]["facts"]["flags"] = [flag]
    assert [finding.message for finding in collect_findings(read(clean_info))] == ["long docs"]
