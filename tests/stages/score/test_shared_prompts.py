"""Generations of one benchmark scored under another that asks the same: by prompts, never by names."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from evaluation.records import Generation, Problem, RecordError, write_jsonl
from stages.score.files import score_file
from stages.score.rows import ReadRows, read_any

FUNCTIONS = ("double", "halve", "square", "double_square")


def benchmark(name: str, prompts: list[str]) -> dict[str, Problem]:
    made = [
        Problem(f"{name}/{i}", name, "code", prompt, "", {}, {"completion": prompt}) for i, prompt in enumerate(prompts)
    ]
    return {problem.id: problem for problem in made}


ONE = benchmark("one", [f"Write {name}." for name in FUNCTIONS])
OTHER = benchmark("other", [f"Write {name}." for name in reversed(FUNCTIONS)])


def read(
    path: Path, problems: dict[str, Problem], template: str = "<user>{}</user>\n", partial: bool = False, **change: Any
) -> ReadRows:
    """`ONE` sampled with a template, read as another benchmark's; `change` is of the second row."""
    rows = [Generation("one", p.id, 0, template.format(p.prompt), p.prompt, "stop", 5, 7, None) for p in ONE.values()]
    rows[1] = dataclasses.replace(rows[1], **change)
    write_jsonl(path, rows)
    return read_any("other", path, problems, partial)


@pytest.mark.parametrize(
    "template",
    [
        "{}",
        "<user>{}</user>\n",
        "<s>System\n\n<user> {} \n<assistant><think>\n",
        "<user>Write double.</user>def double<user>{}</user>",  # an example that is a problem, too
    ],
)
def test_the_problem_is_found_by_its_prompt_whatever_its_id(tmp_path: Path, template: str) -> None:
    found = read(tmp_path / "g.jsonl", OTHER, template)
    assert [(g.benchmark, g.problem_id) for g in found.generations.values()] == [
        ("other", f"other/{i}") for i in (3, 2, 1, 0)
    ]
    assert all(OTHER[g.problem_id].prompt == g.completion for g in found.generations.values())
    assert found.left_out == 0


NO_PROBLEM = "g.jsonl:2: a generation of one, not of other, which has no problem with this prompt; --partial leaves"


@pytest.mark.parametrize(
    "prompt",
    [
        "<user>Write halves.</user>\n",
        "<user>Write halve.\nBe quick.</user>\n",
        "<user>Do not: Write halve.</user>\n",
        "<assistant>Write halve.</assistant>\n",
        "<user></user>\n",
        "",
    ],
)
def test_a_prompt_that_differs_is_refused_or_with_partial_left_out(tmp_path: Path, prompt: str) -> None:
    with pytest.raises(RecordError, match=NO_PROBLEM):
        read(tmp_path / "g.jsonl", OTHER, prompt=prompt)
    found = read(tmp_path / "g.jsonl", OTHER, partial=True, prompt=prompt)
    assert [g.problem_id for g in found.generations.values()] == ["other/3", "other/1", "other/0"]
    assert found.left_out == 1


def test_nothing_in_common_is_refused_with_partial_too(tmp_path: Path) -> None:
    for partial in (True, False):
        with pytest.raises(RecordError, match=r"g.jsonl:1: a generation of one, not of other, .*with this prompt$"):
            read(tmp_path / "g.jsonl", benchmark("other", ["Say hello.", "Say no."]), partial=partial)
    with pytest.raises(RecordError, match=r"g.jsonl:1"):
        read(tmp_path / "g.jsonl", benchmark("other", ["", ""]))


def test_a_file_of_several_benchmarks_is_refused(tmp_path: Path) -> None:
    for name in ("other", "third"):
        with pytest.raises(
            RecordError, match=r"a generation of one, not of other; leave one benchmark's rows in the file"
        ):
            read(tmp_path / "g.jsonl", OTHER, benchmark=name)


def test_rows_without_a_prompt_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    write_jsonl(path, [{"benchmark": "one", "problem_id": "one/0", "completion": ""}])
    with pytest.raises(RecordError, match=r"g.jsonl:1: a generation of one, not of other"):
        read_any("other", path, ONE)


def test_samples_are_numbered_by_the_problem_that_they_are_found_to_answer(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    rows = [
        {"benchmark": "one", "problem_id": f"one/{i}", "completion": "", "prompt": ONE[f"one/{i}"].prompt}
        for i in (0, 1, 0)
    ]
    write_jsonl(path, rows)
    found = read_any("other", path, OTHER).generations.values()
    assert [(g.problem_id, g.sample) for g in found] == [("other/3", 0), ("other/2", 0), ("other/3", 1)]


def test_a_score_says_how_many_rows_were_left_out(tmp_path: Path) -> None:
    tasks = [{"text": f"Return {i}.", "code": f"def f{i}(): return {i}"} for i in range(11, 511)]
    rows = [{"task_id": i, **task, "test_list": [f"assert f{i}() == {i}"]} for i, task in enumerate(tasks, start=11)]
    write_jsonl(tmp_path / "mbpp.jsonl", rows)

    def sampled(number: int, prompt: str) -> Generation:
        return Generation(
            "mine", str(number), 0, f"<user>{prompt}</user>", f"def f{number}(): return 12", "stop", 5, 7, None
        )

    message = "Return {0}.\n\nYour code should pass these tests:\n\nassert f{0}() == {0}\n\n"
    end = "Put the complete program, with every import it needs, into one Python code block at the end."
    asked = [sampled(i, (message + end).format(i)) for i in (11, 12)]
    write_jsonl(tmp_path / "g.jsonl", [*asked, sampled(13, "Return 13.")])
    metrics, scores = score_file("mbpp", tmp_path / "g.jsonl", tmp_path / "mbpp.jsonl", partial=True)
    assert [(score.problem_id, score.verdict) for score in scores] == [("11", "wrong"), ("12", "correct")]
    assert (metrics["n"], metrics["missing"], metrics["left_out"]) == (2, 498, 1)
