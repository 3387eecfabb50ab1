"""The difficulty stage: prompts by their pass rate, and the gate before RL. The grader is real, the samples are written
by hand."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.records import Generation, Problem
from stages.difficulty.run import run
from stages.difficulty.settings import DifficultySettings
from stages.harness.context import Result, StageError
from tests.tiny import open_stage, write_jsonl, write_spec


def stage(folder: Path, right: dict[str, dict[str, int]], **settings: Any) -> tuple[Result, Path]:
    """Run on four samples a problem, of which as many are right as `right[set][problem]` says."""
    generations = []
    for name, problems in right.items():
        rows = [dataclasses.asdict(Problem(p, "sums", "maths", "1 + 2?", "3")) for p in problems]
        write_jsonl(folder / "data" / f"{name}.jsonl", rows)
        for p, count in problems.items():
            texts = [f"\\boxed{{{3 if sample < count else 4}}}" for sample in range(4)]
            generations += [Generation(name, p, s, "1 + 2?", text, "stop", 4, 4, s) for s, text in enumerate(texts)]
    write_jsonl(folder / "generations" / "generations.jsonl", [dataclasses.asdict(g) for g in generations])
    inputs = {"data": folder / "data", "generations": folder / "generations"}
    context = open_stage(DifficultySettings, write_spec(folder, "difficulty", {"samples": 4, **settings}, inputs))
    return run(context), context.output


def test_prompts_that_are_solved_sometimes_are_kept(tmp_path: Path) -> None:
    result, output = stage(tmp_path, {"rl": {"never": 0, "once": 1, "often": 3, "always": 4}})
    assert [json.loads(line)["id"] for line in (output / "rl.jsonl").read_text().splitlines()] == ["once", "often"]
    rates = [json.loads(line) for line in (output / "pass_rates.jsonl").read_text().splitlines()]
    assert rates[1] == {"set": "rl", "problem_id": "once", "samples": 4, "right": 1}
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["too_hard"], summary["too_easy"], summary["pass_rate"]) == (1, 1, 0.5)
    assert summary["gate"]["solved"] == 3
    assert result.metrics["headline"] == "2 of 4 prompts kept, 1 too hard, 1 too easy"


PYTHON = "```python\nprint(sum(map(int, input().split())) {})\n```"
CPP = """```cpp
#include <cstdio>
int main() {{ int a, b; scanf("%d %d", &a, &b); printf("%d", a + b {}); }}
```"""


def test_prompts_whose_programs_read_and_print_are_chosen_by_their_cases(tmp_path: Path) -> None:
    """A sample is right where it passes all cases, whatever share of rewards RL gives for some."""
    cases = {"cases": [{"input": "1 2\n", "output": "3\n"}, {"input": "2 2\n", "output": "4\n"}]}
    asked = {
        "python-never": (cases, [PYTHON.format("- 1"), "I cannot say.", PYTHON.format("* 0 + 3")]),
        "python-once": (cases, [PYTHON.format("- 1"), PYTHON.format(""), "```python\nwhile True: pass\n```"]),
        "python-always": (cases, [PYTHON.format("")] * 3),
        "cpp-once": (cases | {"language": "cpp"}, [CPP.format(""), CPP.format("+ 1"), CPP.format("+ x")]),
    }
    problems = [
        Problem(p, "sums", "code", "Add.", "", tests | {"time_limit_s": 1.0}) for p, (tests, _) in asked.items()
    ]
    write_jsonl(tmp_path / "data" / "rl.jsonl", [dataclasses.asdict(problem) for problem in problems])
    generations = [
        Generation("rl", p, number, "Add.", text, "stop", 4, 4, number)
        for p, (_, texts) in asked.items()
        for number, text in enumerate(texts)
    ]
    write_jsonl(tmp_path / "generations" / "generations.jsonl", [dataclasses.asdict(g) for g in generations])
    inputs = {"data": tmp_path / "data", "generations": tmp_path / "generations"}
    context = open_stage(DifficultySettings, write_spec(tmp_path, "difficulty", {"samples": 3}, inputs))
    run(context)
    rates = [json.loads(line) for line in (context.output / "pass_rates.jsonl").read_text().splitlines()]
    assert {rate["problem_id"]: rate["right"] for rate in rates} == {
        "python-never": 0,
        "python-once": 1,
        "python-always": 3,
        "cpp-once": 1,
    }
    kept = [json.loads(line) for line in (context.output / "rl.jsonl").read_text().splitlines()]
    assert [problem["id"] for problem in kept] == ["python-once", "cpp-once"]
    assert kept[0]["tests"] == cases | {"time_limit_s": 1.0}, "RL grades by the same tests"


def test_bounds_are_the_users(tmp_path: Path) -> None:
    _, output = stage(tmp_path, {"rl": {"never": 0, "once": 1, "often": 3, "always": 4}}, above=None, below=0.5)
    assert [json.loads(line)["id"] for line in (output / "rl.jsonl").read_text().splitlines()] == ["never", "once"]


def test_rl_does_not_start_where_it_cannot_learn(tmp_path: Path) -> None:
    sets = {"rl": {"a": 1}, "dev": {"x": 0, "y": 0, "z": 0, "w": 1}}
    assert stage(tmp_path / "0", sets, min_solved=0.25)[0].proof == {"prompts": 1, "kept": 1}
    with pytest.raises(
        StageError,
        match=r"1 of 4 problems of dev are solved in one of 4 samples .* fewer than the 30.0% of difficulty.min_solved",
    ):
        stage(tmp_path / "1", sets, min_solved=0.3)
    with pytest.raises(
        StageError, match=r"1 of 4 problems of dev are solved .* more than the 20.0% of difficulty.max_solved"
    ):
        stage(tmp_path / "2", sets, max_solved=0.2)
    assert stage(tmp_path / "2", sets, min_solved=0.2, max_solved=0.25)[0].proof == {"prompts": 1, "kept": 1}
    with pytest.raises(StageError, match=r"no prompt is left: 1 of 2 are too hard and 1 too easy"):
        stage(tmp_path / "3", {"rl": {"a": 0, "b": 4}})


def test_bounds_that_leave_no_rate_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no pass rate of 2 samples lies above 0.5 and below 1.0"):
        DifficultySettings(samples=2, above=0.5)
    with pytest.raises(ValueError, match=r"max_solved: 0.2 is less than min_solved 0.3"):
        DifficultySettings(min_solved=0.3, max_solved=0.2)
