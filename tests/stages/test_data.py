"""The data stage as a program: sources of every kind, and one clear error for each way a source can be wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.records import Problem, read_records
from stages.data.overlap import find_overlap
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
    allowed = run_stage_program(tmp_path / "allowed", "data", {"sft": source, "benchmarks": benchmark, "on_overlap": "note"}, {})
    assert allowed.code == 0
    assert json.loads((allowed.output / "summary.json").read_text())["overlap"] == [f"leak.jsonl:1 = word_problems {leaked.id}"]

    settings = {"sft": [*source, {"task": "word_problems", "rows": 3}], "on_overlap": "drop", "benchmarks": benchmark}
    dropped = run_stage_program(tmp_path / "dropped", "data", settings, {})
    assert dropped.code == 0
    assert json.loads((dropped.output / "summary.json").read_text())["sft"]["rows"] == 3


def test_overlap_finds_long_shared_runs_of_real_benchmarks_but_not_their_instruction() -> None:
    instruction = "You are a helpful and accurate assistant for solving the following math problem please"
    texts = [
        "Every morning Aya goes for a nine kilometre long walk and stops at a coffee shop afterwards",
        "Let ABC be a triangle inscribed in a circle and let the tangents at B and C meet at D now",
        "There exist real numbers x and y both greater than one such that their logarithms agree twice over",
    ]
    problems = [Problem(str(i), "aime24", "maths", f"{instruction} {text}", "1") for i, text in enumerate(texts)]
    prompts = {
        "same": problems[0].prompt.upper(),
        "inside": f"Solve this: {texts[1]}, then explain.",
        "instruction": f"{instruction} What is one plus one?",
        "short": "Let ABC be a triangle inscribed in a circle. Find its area.",
    }
    hits = find_overlap(prompts, {"aime24": problems}, 13)
    assert [(hit.training, hit.problem, bool(hit.shared)) for hit in hits] == [("same", "0", False), ("inside", "1", True)]
    assert [hit.training for hit in find_overlap(prompts, {"aime24": problems}, None)] == ["same"]


def test_a_small_share_of_overlap_may_be_left_out(tmp_path: Path) -> None:
    benchmark = [{"name": "word_problems", "problems": 5}]
    leaked = read_records(run(tmp_path, benchmarks=benchmark).output / "benchmarks" / "word_problems.jsonl", Problem)[2]
    rows = [{"prompt": leaked.prompt, "completion": "x"}, *({"prompt": f"{i} plus 1?", "completion": str(i + 1)} for i in range(9))]
    settings = {"sft": [{"file": jsonl(tmp_path / "rows.jsonl", rows)}], "benchmarks": benchmark}
    few = run_stage_program(tmp_path / "few", "data", {**settings, "max_overlap_share": 0.1}, {})
    assert few.code == 0
    assert json.loads((few.output / "summary.json").read_text())["sft"]["rows"] == 9
    many = run_stage_program(tmp_path / "many", "data", {**settings, "max_overlap_share": 0.05}, {})
    assert many.code == 1


def test_rows_are_chosen_by_column_worded_by_template_and_verified(tmp_path: Path) -> None:
    rows = [
        {"problem": "1+1?", "solution": "so \\boxed{2}", "answer": "2", "kind": "cot"},
        {"problem": "2+2?", "solution": "so \\boxed{5}", "answer": "4", "kind": "cot"},
        {"problem": "3+3?", "solution": "so \\boxed{6}", "answer": "6", "kind": "tool"},
        {"problem": "4+4?", "solution": "so \\boxed{\\frac{16}{2}}", "answer": "8", "kind": "cot"},
        {"problem": "5+5?", "solution": "so \\boxed{10}", "answer": "10", "kind": "cot"},
    ]
    columns = {"prompt": "problem", "completion": "solution", "answer": "answer"}
    source = {"file": jsonl(tmp_path / "cot.jsonl", rows), "columns": columns, "where": {"kind": "cot"}, "verified": True, "rows": 2}
    done = run(tmp_path, sft=[{**source, "template": "Solve: {prompt} Box it."}])
    assert done.code == 0, done.error
    kept = [json.loads(line) for line in (done.output / "sft.jsonl").read_text().splitlines()]
    assert [row["prompt"][0]["content"] for row in kept] == ["Solve: 1+1? Box it.", "Solve: 4+4? Box it."]
    assert [row["id"] for row in kept] == ["cot.jsonl:1", "cot.jsonl:4"]
    none = run(tmp_path / "none", sft=[{**source, "where": {"kind": "proof"}}])
    assert none.error is not None
    assert "has no rows that are kept" in none.error["message"]
    wrong = run(tmp_path / "wrong", sft=[{**source, "where": {"sort": "cot"}}])
    assert wrong.error is not None
    assert "row 1 has no column 'sort'" in wrong.error["message"]
