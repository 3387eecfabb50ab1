"""The data stage as a program: sources of every kind, and one clear error for each way a source can be wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.records import Problem, read_records
from tests.tiny import StageRun, run_stage_program

ROWS = [{"question": f"What is {i} + {i}?", "solution": f"{i}+{i}={2 * i}. \\boxed{{{2 * i}}}", "result": 2 * i} for i in range(1, 6)]
COLUMNS = {"prompt": "question", "completion": "solution", "answer": "result"}


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(folder: Path, **settings: Any) -> StageRun:
    return run_stage_program(folder / "run", "data", settings, {})


def test_own_rows_and_generated_tasks(tmp_path: Path) -> None:
    source = {"file": jsonl(tmp_path / "mine.jsonl", ROWS), "columns": COLUMNS}
    done = run(
        tmp_path,
        sft=[{**source, "rows": 3}, {"task": "word_problems", "rows": 4}],
        rl=[source],
        benchmarks=[{"name": "word_problems", "problems": 6}],
    )
    assert done.code == 0, done.log
    rows = [json.loads(line) for line in (done.output / "sft.jsonl").read_text().splitlines()]
    assert len(rows) == 7
    assert rows[0]["prompt"] == [{"role": "user", "content": "What is 1 + 1?"}]
    assert rows[0]["completion"] == [{"role": "assistant", "content": "1+1=2. \\boxed{2}"}]
    problems = read_records(done.output / "rl.jsonl", Problem)
    assert [p.gold for p in problems] == ["2", "4", "6", "8", "10"]
    assert len(read_records(done.output / "benchmarks" / "word_problems.jsonl", Problem)) == 6
    summary = json.loads((done.output / "summary.json").read_text())
    assert summary["sft"]["by_source"] == {"mine.jsonl": 3, "word_problems": 4}


def test_compressed_and_parquet_files_give_the_same_rows(tmp_path: Path) -> None:
    import datasets

    jsonl(tmp_path / "mine.jsonl", ROWS)
    with gzip.open(tmp_path / "mine.jsonl.gz", "wt") as file:
        file.write((tmp_path / "mine.jsonl").read_text())
    datasets.Dataset.from_list(ROWS).to_parquet(str(tmp_path / "mine.parquet"))
    prompts = []
    for name in ("mine.jsonl", "mine.jsonl.gz", "mine.parquet"):
        done = run_stage_program(tmp_path / f"run-{name}", "data", {"sft": [{"file": str(tmp_path / name), "columns": COLUMNS}]}, {})
        assert done.code == 0, done.log
        prompts.append([json.loads(line)["prompt"] for line in (done.output / "sft.jsonl").read_text().splitlines()])
    assert prompts[0] == prompts[1] == prompts[2]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("", COLUMNS, "has no rows"),
        ('{"question": "a"}\n', COLUMNS, "row 1 has no column 'solution'; it has question"),
        ('{"question": " ", "solution": "b"}\n', COLUMNS, "row 1: column 'question' is ' ', expected text"),
        ('{"question": null, "solution": "b"}\n', COLUMNS, "row 1: column 'question' is None"),
        ('{"question": "a", "solution": "b"}\n{broken\n', COLUMNS, "mine.jsonl:2: not a JSON object"),
        ("[1, 2]\n", COLUMNS, "mine.jsonl:1: expected a JSON object, found list"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, text: str, columns: dict[str, str], message: str) -> None:
    (tmp_path / "mine.jsonl").write_text(text)
    done = run(tmp_path, sft=[{"file": str(tmp_path / "mine.jsonl"), "columns": columns}])
    assert done.code == 1
    assert done.error is not None
    assert message in done.error["message"]
    assert done.error["message"].startswith("data.sft.0")
    assert done.error["fix"]


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("a,b\n")
    done = run(tmp_path, sft=[{"file": str(tmp_path / "mine.csv")}])
    assert done.error is not None
    assert "Use a .jsonl, .jsonl.gz or .parquet file" in done.error["fix"]


def test_training_on_a_benchmark_problem_is_refused_unless_said(tmp_path: Path) -> None:
    benchmark = [{"name": "word_problems", "problems": 5}]
    done = run(tmp_path, benchmarks=benchmark)
    leaked = read_records(done.output / "benchmarks" / "word_problems.jsonl", Problem)[2]
    row = {"prompt": leaked.prompt.upper().replace(",", " ;"), "completion": "x"}
    source = [{"file": jsonl(tmp_path / "leak.jsonl", [row])}]
    refused = run_stage_program(tmp_path / "refused", "data", {"sft": source, "benchmarks": benchmark}, {})
    assert refused.code == 1
    assert refused.error is not None
    assert f"leak.jsonl:1 = word_problems {leaked.id}" in refused.error["message"]
    allowed = run_stage_program(tmp_path / "allowed", "data", {"sft": source, "benchmarks": benchmark, "refuse_overlap": False}, {})
    assert allowed.code == 0
    assert json.loads((allowed.output / "summary.json").read_text())["overlap"] == [f"leak.jsonl:1 = word_problems {leaked.id}"]
