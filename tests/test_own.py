"""docs/own.md, done as it says: its files in a folder, a checkpoint beside them, one command."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.custom_problems import read_custom
from evaluation.records import RecordError
from tests.tiny import make_tiny_model

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "own.md"


def write_files(folder: Path) -> list[str]:
    """The page's blocks as files; each names itself in its first line."""
    names = []
    for block in re.findall(r"^```\w+\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        first, _, rest = block.partition("\n")
        names.append(re.sub(r"^(//|#) ", "", first))
        (folder / names[-1]).write_text(rest, encoding="utf-8")
    return names


@pytest.mark.slow
def test_the_pages_pipeline_runs(tmp_path: Path) -> None:
    names = write_files(tmp_path)
    assert set(names) == {
        *(
            "own.yaml",
            "traces.jsonl",
            "prompts.jsonl",
            "tasks.jsonl",
            "exam.jsonl",
            "programs.jsonl",
            "brevity.py",
            "focal.py",
        ),
    }
    make_tiny_model(tmp_path / "my-model", hidden_size=128, positions=512)
    # A model that was never trained does not end its completions.
    command = ["run", "own.yaml", "--json", "--set", "grpo.stop_check_prompts=0"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert {(r["checkpoint"], r["benchmark"], r["n"]) for r in run["results"]} == {
        (checkpoint, benchmark, n)
        for checkpoint in ("base", "sft", "grpo")
        for benchmark, n in (("exam", 2), ("programs", 1))
    }
    stages = {stage["name"]: Path(stage["folder"]) for stage in run["stages"]}
    curve = (stages["grpo"] / "record" / "metrics.jsonl").read_text()
    assert "rewards/brevity/mean" in curve
    kinds = [json.loads(line)["kind"] for line in (stages["data"] / "rl.jsonl").read_text().splitlines()]
    assert kinds == ["maths"] * 4 + ["code"]


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("maths", {"prompt": "1 + 1?"}, "no column 'gold'"),
        ("maths", {"gold": "2"}, "no column 'prompt'"),
        ("code", {"prompt": "f", "gold": "def f(): 1"}, "tests needs to be an object with entry_point"),
        ("code", {"prompt": "f", "gold": "def f(): 1", "tests": {"entry_point": "f"}}, "asserts or inputs"),
        (
            "code",
            {"prompt": "f", "gold": "def f(): 1", "tests": {"entry_point": "f", "inputs": []}},
            "tests: inputs is .*a list of at least one list of arguments",
        ),
        (
            "code",
            {"prompt": "f", "gold": "def g(): 1", "tests": {"entry_point": "f", "inputs": [[]]}},
            "the reference program does not define f",
        ),
        (
            "code",
            {"prompt": "f", "tests": {"cases": [{"input": "1", "output": "x"}], "function": "f"}},
            "output is 'x', and of a function it has to be the value as JSON",
        ),
        ("maths", {"prompt": "a\ud83d 1+1?", "gold": "2"}, "column 'prompt' is no valid text: surrogates"),
        ("maths", {"prompt": "a", "gold": "2\ud83d"}, "column 'gold' is no valid text"),
        ("maths", {"prompt": "a", "gold": "2", "id": "\ud83d"}, "column 'id' is no valid text"),
        (
            "maths",
            {"prompt": {"role": ["system", "user"], "content": ["a"]}, "gold": "2"},
            "prompt holds messages as columns of different lengths: 2 of 'role', 1 of 'content'",
        ),
        ("maths", {"prompt": "a", "gold": float("nan")}, "gold is nan, which no answer equals"),
        ("maths", {"prompt": "a", "gold": float("-inf")}, "gold is -inf, which no answer equals"),
        ("maths", {"prompt": "a", "gold": "..."}, "no answer can equal the gold one, '...': a box"),
        (
            "maths",
            {"prompt": "a", "gold": "?"},
            "no answer can equal the gold one, .*: a box that holds it",
        ),
        ("maths", {"prompt": "a", "gold": "your answer"}, "a box that holds it counts as a placeholder"),
        ("maths", {"prompt": "a", "gold": "\\text{}"}, "nothing is left of it without markup"),
        (
            "maths",
            {"prompt": "a", "gold": "\\frac{"},
            "no answer can equal the gold one, .*: it has a brace",
        ),
        ("maths", {"prompt": "a", "gold": "2+3=5\n#### 5"}, "the answer is what stands behind ####"),
        ("maths", {"prompt": "a", "gold": "The answer is 5."}, "it is a sentence; the answer alone"),
        ("maths", {"prompt": "a", "gold": "So the final answer is $5$"}, "it is a sentence; the answer alone"),
        ("choice", {"prompt": "a", "gold": "b"}, "it has to be the letter of an option"),
        ("choice", {"prompt": "a", "gold": "seven"}, "it has to be the letter of an option"),
    ],
)
def test_a_row_that_is_no_problem_is_named(tmp_path: Path, kind: str, row: dict[str, object], message: str) -> None:
    path = tmp_path / "mine.jsonl"
    first = "def f(x): return x" if kind == "code" else "B"
    path.write_text(
        json.dumps({"prompt": "a", "gold": first, "tests": {"entry_point": "f", "inputs": [[1]]}})
        + f"\n{json.dumps(row)}\n"
    )
    with pytest.raises(RecordError, match=rf"mine.jsonl:2.*{message}"):
        read_custom(path, "mine", kind, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "gold"),
    [("maths", 0.5), ("maths", "nan"), ("maths", "n"), ("maths", "{5"), ("maths", r"\boxed{5}"),
     ("maths", r"$\frac12$"), ("maths", r"1, 2, \ldots, n"), ("maths", "no solution"), ("maths", "no answer is right"),
     ("choice", "B")],
)  # fmt: skip
def test_a_gold_answer_that_an_answer_can_equal_is_taken(tmp_path: Path, kind: str, gold: object) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"prompt": "a", "gold": gold}) + "\n")
    assert read_custom(path, "mine", kind, None)[0].gold == str(gold)  # type: ignore[arg-type]


def test_ids_are_distinct_and_files_are_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": 1, "prompt": "a", "gold": 1}\n' * 2)
    with pytest.raises(RecordError, match="the problem 1 occurs twice"):
        read_custom(path, "mine", "maths", None)
    path.write_text('{"id": null, "prompt": "a", "gold": 1}\n' * 2)  # as a table has it for a row without one
    assert [problem.id for problem in read_custom(path, "mine", "maths", None)] == ["1", "2"]
    path.write_text("")
    with pytest.raises(RecordError, match="no problems"):
        read_custom(path, "mine", "maths", None)
