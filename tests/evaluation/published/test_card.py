"""What model cards say, and which of it can be checked here."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from evaluation.benchmarks import get, names
from evaluation.published.card import CardError, Claim, find_benchmark, per_cent, read_card
from tests.hub_cache import cached


def entry(dataset: str, value: Any, metric: str = "accuracy", **more: Any) -> dict[str, Any]:
    """One result of a `model-index`. `more`: fields of the data set, and the metric's `metric_name`."""
    named = {"name": more.pop("metric_name")} if "metric_name" in more else {}
    return {
        "task": {"type": "text-generation"},
        "dataset": {"type": dataset, "name": dataset, **more},
        "metrics": [{"type": metric, "value": value, **named}],
    }


def card(folder: Path, *results: dict[str, Any]) -> Path:
    """A folder with a README.md that has these results."""
    folder.mkdir(exist_ok=True)
    metadata = yaml.safe_dump({"license": "mit", "model-index": [{"name": "m", "results": list(results)}]})
    (folder / "README.md").write_text(f"---\n{metadata}---\n# A model\n")
    return folder


@pytest.mark.parametrize(
    ("dataset", "benchmark"),
    [
        ("openai/gsm8k", "gsm8k"),
        ("gsm8k", "gsm8k"),
        ("GSM8K (5-shot)", "gsm8k"),
        ("GSM8K 8-shot", "gsm8k"),
        ("HumanEval (pass@1, greedy)", "humaneval"),
        ("openai_humaneval", "humaneval"),
        ("HumanEval", "humaneval"),
        ("HumanEval+", "humaneval_plus"),
        ("HuggingFaceH4/MATH-500", "math500"),
        ("MATH500", "math500"),
        ("HuggingFaceH4/aime_2024", "aime24"),
        ("AIME 2025", "aime25"),
        ("AMC 2023", "amc23"),
        ("MBPP+", "mbpp_plus"),
        ("mbpp", "mbpp"),
        ("R-Bench/R-Bench", "rbench_t"),
        ("word_problems", "word_problems"),
    ],
)
def test_a_data_set_is_known_by_its_names(dataset: str, benchmark: str) -> None:
    assert find_benchmark([dataset]) == benchmark


def test_every_benchmark_is_found_by_its_own_name_and_by_that_on_the_hub() -> None:
    sources = {name: get(name).sources.get("test") for name in names()}
    for name, source in sources.items():
        assert find_benchmark([name]) == name
        if source is None:
            continue
        same = [one for one, of in sources.items() if of and (of.hub, of.hub_config) == (source.hub, source.hub_config)]
        if len(same) == 1:
            assert find_benchmark([source.hub], source.hub_config) == name
        else:  # releases of one data set, which only their own names tell apart
            with pytest.raises(ValueError, match=f"this may be {' or '.join(same)}"):
                find_benchmark([source.hub], source.hub_config)


def test_the_configuration_tells_benchmarks_of_one_data_set_apart() -> None:
    hub = "google-research-datasets/mbpp"
    assert find_benchmark([hub, "MBPP"], "sanitized") == "mbpp_sanitized"
    with pytest.raises(ValueError, match="may be mbpp or mbpp_sanitized"):
        find_benchmark([hub])


@pytest.mark.parametrize(
    "dataset", ["cais/mmlu", "MATH", "someone/gsm8k", "gsm8k_platinum", "HumanEval (Java)", "", "(5-shot)"]
)
def test_another_data_set_is_none_of_ours(dataset: str) -> None:
    with pytest.raises(ValueError, match="is no benchmark here"):
        find_benchmark([dataset])


@pytest.mark.parametrize(
    ("text", "share"), [("61.6", 0.616), ("61.6%", 0.616), (" 0.5 %", 0.005), ("0", 0), ("100", 1), ("1.4", 0.014)]
)
def test_a_number_is_in_per_cent(text: str, share: float) -> None:
    assert per_cent(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.616", "write 61.6 or 0.616%"),
        ("1", "write 100 or 1%"),
        ("-3", "not between"),
        ("100.1", "not between"),
        ("nan", "not between"),
        ("inf%", "not between"),
        ("six", "no number"),
        ("", "no number"),
        ("61,6", "no number"),
    ],
)
def test_a_number_that_is_none_or_may_be_two_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        per_cent(text)


def test_a_card_says_what_was_measured_and_how(tmp_path: Path) -> None:
    folder = card(
        tmp_path,
        entry("openai/gsm8k", 41.5, "exact_match,flexible-extract", args={"num_few_shot": 5}),
        entry("HumanEval (0-shot)", "61.6 ± 2.1", "pass@1"),
        entry("math500", 30.1, split="validation"),
    )
    claims, refused = read_card(str(folder))
    last_number = "its answer is the last number of a text (flexible-extract), here the one in the box"
    assert claims == [
        Claim("gsm8k", 0.415, "openai/gsm8k: exact_match,flexible-extract 41.5", None, 5, (last_number,)),
        Claim("humaneval", 0.616, "HumanEval (0-shot): pass@1 61.6 ± 2.1", None, 0),
        Claim("math500", 0.301, "math500: accuracy 30.1", differences=("it is of the split validation, here of test",)),
    ]
    assert refused == []


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (entry("cais/mmlu", 25.0), "no benchmark here"),
        (entry("gsm8k", 1.4, "exact_match,strict-match"), "strict matching"),
        (entry("gsm8k", 1.4, "acc_norm"), "normalised"),
        (entry("gsm8k", 1.4, "acc", metric_name="normalized accuracy"), "normalised"),
        (entry("gsm8k", 40.0, "maj@8"), "metric is not measured"),
        (entry("humaneval", 70.0, "pass@10"), "metric is not measured"),
        (entry("gsm8k", 12.0, "perplexity"), "metric is not measured"),
        (entry("gsm8k", "about 40"), "no number"),
        (entry("gsm8k", True), "no number"),
        (entry("gsm8k", {"mean": 40}), "no number"),
        (entry("gsm8k", 140.0), "not between 0 and 100"),
        (entry("gsm8k", -2), "not between 0 and 100"),
        (entry("gsm8k", 0.9), "may be a share or per cent"),
    ],
)
def test_what_cannot_be_checked_says_why(tmp_path: Path, result: dict[str, Any], why: str) -> None:
    claims, refused = read_card(str(card(tmp_path, entry("math500", 50.0), result)))
    assert [claim.benchmark for claim in claims] == ["math500"]
    assert len(refused) == 1
    assert why in refused[0]


def test_a_card_without_a_number_above_one_has_shares(tmp_path: Path) -> None:
    results = entry("gsm8k", 0.415), entry("math500", 1.0), entry("wikitext", 12.3, "perplexity")
    claims, _ = read_card(str(card(tmp_path, *results)))
    assert [claim.value for claim in claims] == pytest.approx([0.415, 1.0])
    marked, _ = read_card(str(card(tmp_path, entry("gsm8k", "0.9 %"))))
    assert marked[0].value == pytest.approx(0.009)


def test_the_hubs_newer_form_is_read_too(tmp_path: Path) -> None:
    (tmp_path / ".eval_results").mkdir()
    results = [
        {"dataset": {"id": "HuggingFaceH4/MATH-500", "task_id": "default"}, "value": 20.9, "notes": "4-shot, greedy"},
        {"dataset": {"id": "cais/hle", "task_id": "hle"}, "value": 20.9},
    ]
    (tmp_path / ".eval_results" / "all.yaml").write_text(yaml.safe_dump(results))
    claims, refused = read_card(str(tmp_path))
    assert claims == [Claim("math500", 0.209, "HuggingFaceH4/MATH-500: score 20.9", few_shot=4)]
    assert refused == ["cais/hle: score 20.9: this data set is no benchmark here"]


def test_the_card_of_a_gguf_file_lies_beside_it_and_that_of_a_hub_model_in_its_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = card(tmp_path / "model", entry("gsm8k", 41.5))
    (folder / "m.gguf").touch()
    assert read_card(str(folder / "m.gguf"))[0][0].benchmark == "gsm8k"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    cached(tmp_path / "cache", "models", "someone/model", folder)
    assert read_card("someone/model")[0][0].benchmark == "gsm8k"
    with pytest.raises(CardError, match="someone/other cannot be had from the hub"):
        read_card("someone/other")
    with pytest.raises(CardError, match="no file, folder or hub id"):
        read_card("../not/there")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# A model\n| GSM8K | 41.5 |\n", "has no results"),
        ("---\nlicense: mit\n---\n# A model\n", "has no results"),
        ("---\nmodel-index: []\n---\n", "has no results"),
        ("---\nmodel-index: [}\n---\n", "metadata cannot be read"),
        ("---\n- a\n- b\n---\n", "metadata cannot be read"),
        ("---\nmodel-index:\n- name: m\n---\n", "not of the hub's form: KeyError: 'results'"),
        ("---\nmodel-index: {name: m}\n---\n", "not of the hub's form"),
        ("---\nmodel-index: [{name: m, results: [{task: {type: t}, metrics: []}]}]\n---\n", "KeyError: 'dataset'"),
    ],
)
def test_a_card_that_cannot_be_read_or_has_no_results(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(CardError, match=message):
        read_card(str(tmp_path))


def test_a_folder_without_a_card(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="has no model card"):
        read_card(str(tmp_path))
