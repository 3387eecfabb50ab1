"""The data stage as a program: sources of every kind, and one clear error for each way a source can be wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evaluation.records import Problem, read_records
from stages.data.run import run as run_data
from stages.data.settings import DataSettings, SourceSettings
from stages.harness.context import StageError
from tests.tiny import StageRun, open_stage, run_stage_program, write_spec

ROWS = [
    {"question": f"What is {i} + {i}?", "solution": f"{i}+{i}={2 * i}. \\boxed{{{2 * i}}}", "result": 2 * i}
    for i in range(1, 6)
]
COLUMNS = {"prompt": "question", "completion": "solution", "answer": "result"}


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(folder: Path, **settings: Any) -> StageRun:
    return run_stage_program(folder / "run", "data", settings, {})


def made(folder: Path, data_dir: Path | None = None, **settings: Any) -> Path:
    """What the stage makes, in this process: for the many cases that need no program of their own."""
    spec = write_spec(folder / "made", "data", settings, {})
    if data_dir is not None:
        value = json.loads(spec.read_text())
        value["machine"]["data_dir"] = str(data_dir)
        spec.write_text(json.dumps(value))
    context = open_stage(DataSettings, spec)
    run_data(context)
    return context.output


def refused(folder: Path, data_dir: Path | None = None, **settings: Any) -> StageError:
    with pytest.raises(StageError) as caught:
        made(folder, data_dir, **settings)
    assert caught.value.fix
    return caught.value


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


def test_all_kinds_of_files_give_the_same_rows(tmp_path: Path) -> None:
    import datasets

    jsonl(tmp_path / "mine.jsonl", ROWS)
    with gzip.open(tmp_path / "mine.jsonl.gz", "wt") as file:
        file.write((tmp_path / "mine.jsonl").read_text())
    datasets.Dataset.from_list(ROWS).to_parquet(str(tmp_path / "mine.parquet"))
    prompts = []
    (tmp_path / "mine.json").write_text(json.dumps(ROWS, indent=1))
    for name in ("mine.jsonl", "mine.jsonl.gz", "mine.json", "mine.parquet"):
        output = made(tmp_path / f"from-{name}", sft=[{"file": str(tmp_path / name), "columns": COLUMNS}])
        prompts.append([json.loads(line)["prompt"] for line in (output / "sft.jsonl").read_text().splitlines()])
    assert all(these == prompts[0] for these in prompts)


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("", COLUMNS, "has no rows"),
        ('{"question": "a"}\n', COLUMNS, "row 1 has no column 'solution'; it has question"),
        ('{"question": " ", "solution": "b"}\n', COLUMNS, "row 1: column 'question' is ' ', expected text"),
        ('{"question": null, "solution": "b"}\n', COLUMNS, "row 1: column 'question' is None"),
        (
            '{"question": ["a", "c"], "solution": "b"}\n',
            COLUMNS,
            "row 1: column 'question' is ['a', 'c'], expected",
        ),
        ('{"question": NaN, "solution": "b"}\n', COLUMNS, "row 1: column 'question' is nan, expected text"),
        ('\n{"question": "\\ud83d", "solution": "b"}\n', COLUMNS, "row 2: column 'question' is no valid text"),
        ('{"question": "a", "solution": "b"}\n{broken\n', COLUMNS, "mine.jsonl:2: not a JSON object"),
        ("[1, 2]\n", COLUMNS, "mine.jsonl:1: expected a JSON object, found an array; each line is"),
        ("null\n", COLUMNS, "mine.jsonl:1: expected a JSON object, found null"),
        (
            f'{{"question": {"9" * 5000}}}\n',
            COLUMNS,
            "mine.jsonl:1: not a JSON object: a number of thousands of digits",
        ),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, text: str, columns: dict[str, str], message: str) -> None:
    (tmp_path / "mine.jsonl").write_text(text)
    error = refused(tmp_path, sft=[{"file": str(tmp_path / "mine.jsonl"), "columns": columns}])
    assert message in error.message
    assert error.message.startswith("data.sft.0")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "mine.json",
            b'{"question": "a", "solution": "b"}',
            "expected a JSON array of objects, found dict; one object a line is a .jsonl file",
        ),
        ("mine.json", b'{"question": "a"}\n{"question": "b"}\n', "not a JSON array: Extra data"),
        (
            "mine.json",
            b'[{"question": "a", "solution": "b"}, 3]',
            "mine.json: row 2: expected a JSON object, found int",
        ),
        ("mine.json", b"[]", "has no rows"),
        ("mine.json.gz", b"[]", "damaged: Not a gzipped file"),
        ("mine.parquet", b"no table", "not a Parquet table: Parquet magic bytes not found"),
    ],
)
def test_a_broken_array_or_table_is_one_clear_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    error = refused(tmp_path, sft=[{"file": str(tmp_path / name), "columns": COLUMNS}])
    assert message in error.message
    assert error.message.startswith("data.sft.0")


def test_marks_and_line_ends_of_other_systems_do_not_reach_the_rows(tmp_path: Path) -> None:
    row = {"question": "one\r\ntwo", "solution": "three\r\n\r\nfour"}
    (tmp_path / "mine.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(row).encode() + b"\r\n\r\n")
    (tmp_path / "mine.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([row], indent=1).replace("\n", "\r\n").encode())
    output = made(
        tmp_path, sft=[{"file": str(tmp_path / name), "columns": COLUMNS} for name in ("mine.jsonl", "mine.json")]
    )
    rows = [json.loads(line) for line in (output / "sft.jsonl").read_text().splitlines()]
    assert [(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in rows] == [
        ("one\ntwo", "three\n\nfour")
    ] * 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"file": "mine.tsv"},
            r"file: mine.tsv is none of .jsonl, .jsonl.gz, .json, .json.gz, .csv, .csv.gz, .parq",
        ),
        (
            {"file": "mine.csv", "columns": {"weight": "w"}},
            "columns.weight: weights are numbers",
        ),
        ({"file": "mine.csv.gz", "where": {"level": 1}}, "where.level: a .csv holds text alone, and 1 is none"),
        ({"task": "gsm8k", "columns": {"prompt": "question"}}, "columns: are of a file or a hub dataset"),
        ({"file": "mine.jsonl", "shuffle": True}, r"shuffle: draws `rows` of the source at random; say how many"),
        (
            {"file": "mine.jsonl", "template": "{prompt} {tests}"},
            r"template: shows \{tests\}, and columns.tests names no column",
        ),
        ({"file": "mine.jsonl", "columns": {"setup": "code"}}, r"setup: runs before the asserts of a column of tests"),
    ],
)
def test_what_a_source_cannot_be_is_known_from_its_settings(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SourceSettings.model_validate(source)


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
    allowed = run_stage_program(
        tmp_path / "allowed", "data", {"sft": source, "benchmarks": benchmark, "on_overlap": "note"}, {}
    )
    assert allowed.code == 0
    assert json.loads((allowed.output / "summary.json").read_text())["overlap"] == [
        f"leak.jsonl:1 = word_problems {leaked.id}"
    ]

    settings = {"sft": [*source, {"task": "word_problems", "rows": 3}], "on_overlap": "drop", "benchmarks": benchmark}
    dropped = run_stage_program(tmp_path / "dropped", "data", settings, {})
    assert dropped.code == 0
    assert json.loads((dropped.output / "summary.json").read_text())["sft"]["rows"] == 3


@pytest.mark.slow
def test_a_small_share_of_overlap_may_be_left_out(tmp_path: Path) -> None:
    benchmark = [{"name": "word_problems", "problems": 5}]
    leaked = read_records(run(tmp_path, benchmarks=benchmark).output / "benchmarks" / "word_problems.jsonl", Problem)[2]
    rows = [
        {"prompt": leaked.prompt, "completion": "x"},
        *({"prompt": f"{i} plus 1?", "completion": str(i + 1)} for i in range(9)),
    ]
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
    source = {
        "file": jsonl(tmp_path / "cot.jsonl", rows),
        "columns": columns,
        "where": {"kind": "cot"},
        "verified": True,
        "rows": 2,
    }
    done = run(tmp_path, sft=[{**source, "template": "Solve: {prompt} Box it."}])
    assert done.code == 0, done.error
    kept = [json.loads(line) for line in (done.output / "sft.jsonl").read_text().splitlines()]
    assert [row["prompt"][0]["content"] for row in kept] == ["Solve: 1+1? Box it.", "Solve: 4+4? Box it."]
    assert [row["id"] for row in kept] == ["cot.jsonl:1", "cot.jsonl:4"]
    none = refused(tmp_path / "none", sft=[{**source, "where": {"kind": "proof"}}])
    assert "no rows that are kept: none of 5 passes `where` (the first: kind 'cot')" in none.message
    unequal = refused(tmp_path / "unequal", sft=[{**source, "columns": {**columns, "answer": "kind"}}])
    assert "no rows that are kept: of 5, 4 pass `where`, and none is verified" in unequal.message
    wrong = refused(tmp_path / "wrong", sft=[{**source, "where": {"sort": "cot"}}])
    assert "row 1 has no column 'sort'" in wrong.message
    assert wrong.fix == "Set data.sft.0.where."


@pytest.mark.parametrize("completion", ["<think>abc", "<think>a</think>b <think>\nc \\boxed{5}"])
def test_a_thought_that_never_ends_is_no_demonstration(tmp_path: Path, completion: str) -> None:
    good = {"prompt": "2+3?", "completion": "<think>5</think>\\boxed{5}", "answer": "5"}
    rows = jsonl(tmp_path / "mine.jsonl", [good, {**good, "completion": completion}])
    error = refused(tmp_path / "all", sft=[{"file": rows}])
    assert "data.sft.0: row 2: an answer has a <think> that is never closed" in error.message
    kept = made(tmp_path / "verified", sft=[{"file": rows, "columns": {"answer": "answer"}, "verified": True}])
    [dropped] = map(json.loads, (kept / "dropped.jsonl").read_text().splitlines())
    assert (dropped["row"], dropped["verdict"]) == (2, "no_answer")
