"""`vcore compare`: files, artifacts and runs, paired; what may not be compared is not."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evaluation.comparison import Measured, compare
from evaluation.records import Score, write_jsonl
from pipeline.cli.app import app
from pipeline.core.errors import ConfigError
from tests.pipeline.history.nights import Night, make_nights, right


def scores(right: list[bool], samples: int = 1, benchmark: str = "aime24") -> list[Score]:
    return [
        Score(benchmark, f"p{i // samples}", i % samples, "correct" if value else "wrong", "1", "1")
        for i, value in enumerate(right)
    ]


def artifact(folder: Path, rows: list[Score], **sampling: Any) -> Path:
    folder.mkdir(parents=True)
    write_jsonl(folder / "scores.jsonl", rows)
    entry = {"protocol": str(sorted(sampling.items())), "protocol_details": {"sampling": sampling}}
    (folder / "metrics.json").write_text(json.dumps({row.benchmark: entry for row in rows}))
    return folder


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_a_difference_and_its_absence(tmp_path: Path) -> None:
    worse = artifact(tmp_path / "a", scores([False] * 20 + [True] * 20), temperature=0)
    better = artifact(tmp_path / "b", scores([True] * 15 + [False] * 5 + [True] * 20), temperature=0)
    said = run(worse, better)
    assert "aime24: +37.5 points [" in said
    assert "15 better and 0 worse of 40, p = 6.1e-05 (exact McNemar): higher" in said
    found = json.loads(run(better, worse, "--json"))["comparisons"][0]
    assert (found["verdict"], found["difference"], found["improved"], found["exact"]) == ("lower", -0.375, 0, True)
    assert "not distinguishable" in run(worse, worse)


def test_what_could_have_been_found_stands_beside_what_was_not(tmp_path: Path) -> None:
    a = artifact(tmp_path / "a", scores([True] * 60 + [False] * 40))
    b = artifact(tmp_path / "b", scores([True] * 57 + [False] * 38 + [True] * 5))
    said = run(a, b)
    assert "not distinguishable" in said
    found = json.loads(run(a, b, "--json"))["comparisons"][0]
    effect = found["detectable"]
    assert effect == pytest.approx((1.96 + 0.84) * 0.08**0.5 / 10, rel=0.4), "eight of a hundred problems changed"
    assert f"found 4 times of 5: a difference of {100 * effect:.1f} points; one as seen, from about" in said
    assert found["problems_needed"] == pytest.approx(100 * (effect / 0.02) ** 2, abs=1)


def test_different_protocols_are_named_and_not_compared(tmp_path: Path) -> None:
    a = artifact(tmp_path / "a", scores([True] * 5), temperature=0.0, top_p=1)
    b = artifact(tmp_path / "b", scores([False] * 5), temperature=0.6, top_p=1)
    said = run(a, b)
    assert "aime24: different protocols, not compared" in said
    assert "sampling.temperature: 0.0 / 0.6" in said
    assert "top_p" not in said
    assert "difference" not in json.loads(run(a, b, "--json"))["comparisons"][0]


def test_bare_files_say_that_their_protocol_is_unknown(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write_jsonl(tmp_path / name, scores([True, False] * 4, samples=2))
    said = run(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert "p = 1 (exact sign-flip test): not distinguishable" in said
    assert "not known for aime24" in said


def test_several_samples_that_agree_are_one_answer_and_the_test_is_mcnemars(tmp_path: Path) -> None:
    """Two samples of each problem, always both right or both wrong: shares of 0 and 1."""
    write_jsonl(tmp_path / "a.jsonl", scores([False] * 24, samples=2))
    write_jsonl(tmp_path / "b.jsonl", scores([True] * 16 + [False] * 8, samples=2))
    assert "8 better and 0 worse of 12, p = 0.0078 (exact McNemar): higher" in run(
        tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    )


def test_few_problems_that_all_gain_the_same_prove_nothing(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", scores([False, False] * 3, samples=2))
    write_jsonl(tmp_path / "b.jsonl", scores([True, False] * 3, samples=2))
    assert "3 better and 0 worse of 3, p = 0.25 (exact sign-flip test): not distinguishable" in run(
        tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    )


def test_a_run_names_its_checkpoints_wherever_its_home_has_moved(tmp_path: Path) -> None:
    (name,) = make_nights(tmp_path / "old", [Night({"base": right(2, 40), "sft": right(30, 40)})])
    home = (tmp_path / "old").rename(tmp_path / "new")
    assert "+70.0 points" in run("latest:base", "latest", "--home", home)
    with pytest.raises(ConfigError, match="has no scores of grpo; it has base, sft"):
        run("latest:base", "2026:grpo", "--home", home)
    with pytest.raises(ConfigError, match="nope is no scores file, key or run of"):
        run("latest", "nope", "--home", home)
    file = home / "store" / "score" / _key(home / "runs" / name, "score.sft") / "scores.jsonl"
    file.chmod(0o644)
    file.write_text(file.read_text().replace("wrong", "correct", 1))
    with pytest.raises(ConfigError, match=f"the scores of sft of run {name} cannot be read .*scores.jsonl damaged"):
        run("latest:base", "latest", "--home", home)


def _key(folder: Path, stage: str) -> str:
    stages = json.loads((folder / "run.json").read_text())["stages"]
    return str(next(entry["key"] for entry in stages if entry["name"] == stage))


def test_what_does_not_pair_is_refused(tmp_path: Path) -> None:
    a = artifact(tmp_path / "a", scores([True] * 5))
    with pytest.raises(ConfigError, match=r"not of the same problems: 1 are in one only \(p5\)"):
        run(a, artifact(tmp_path / "b", scores([True] * 6)))
    with pytest.raises(ConfigError, match=r"has 1 samples a problem, .* has 2"):
        run(a, artifact(tmp_path / "c", scores([True] * 10, samples=2)))
    with pytest.raises(ConfigError, match="no benchmark in common"):
        run(a, artifact(tmp_path / "d", scores([True] * 5, benchmark="mbpp")))
    with pytest.raises(ConfigError, match="occurs twice"):
        run(a, artifact(tmp_path / "e", [*scores([True]), *scores([True])]))
    with pytest.raises(ConfigError, match="there is no file or folder"):
        run(a, tmp_path / "nothing.jsonl")


def test_the_same_ids_with_other_gold_answers_are_other_problems(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", scores([True] * 12))
    others = [dataclasses.replace(score, gold="2") for score in scores([True] * 12)]
    write_jsonl(tmp_path / "b.jsonl", others)
    files = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    for command in (["compare", *files], ["gate", *files, "--max-drop", "1"]):
        said = CliRunner().invoke(app, command)
        assert "p0 has the gold answer '1' in one, '2' in the other" in str(said.exception)


def test_problems_with_different_numbers_of_samples_are_no_scores(tmp_path: Path) -> None:
    """As many in all as two of each would be: a count of the whole does not tell."""
    rows = [*scores([True] * 6, samples=3), *(Score("aime24", f"q{i}", 0, "wrong", "1", "1") for i in range(4))]
    write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(ConfigError, match="aime24 p0 has 3 samples, others have 1"):
        run(tmp_path / "a.jsonl", tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    "metrics",
    ["{", "[]", '{"aime24": null}', '{"aime24": {"protocol": 5}}', '{"aime24": {"protocol_details": []}}'],
)
def test_metrics_that_are_none_are_named(tmp_path: Path, metrics: str) -> None:
    folder = artifact(tmp_path / "a", scores([True] * 12))
    (folder / "metrics.json").write_text(metrics)
    for command in (["compare", str(folder), str(folder)], ["gate", str(folder), str(folder), "--max-drop", "1"]):
        said = CliRunner().invoke(app, command)
        assert isinstance(said.exception, ConfigError)
        assert "a/metrics.json: " in said.exception.message


def test_names_of_benchmarks_are_no_markup(tmp_path: Path) -> None:
    for name in "ab":
        write_jsonl(tmp_path / name, [*scores([True], benchmark="[x]y[/z]"), *scores([True], benchmark=f"[/{name}]")])
    assert "not known for [x]y[/z]" in run(tmp_path / "a", tmp_path / "b").replace("\n", " ")


def test_an_unknown_protocol_differs_from_none() -> None:
    known, unknown = Measured(scores([True]), "a"), Measured(scores([True]))
    assert compare("aime24", "x", "y", known, unknown).verdict == "not distinguishable"
