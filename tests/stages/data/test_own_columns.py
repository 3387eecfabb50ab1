"""A benchmark of the user's own whose file has other names of columns than the project's."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.loading import digest
from evaluation.records import Problem, read_records
from pipeline.core.errors import ConfigError
from pipeline.plan.decide import Options
from pipeline.run.session import plan_only
from stages.data.own_problems import own_problems
from stages.data.settings import Columns
from stages.harness.context import StageError
from stages.harness.own_files import BenchmarkColumns, CustomProblems
from tests.stages.data.test_data import jsonl, made

ROWS = [{"instruction": "What is 3 + 4?", "output": "7"}, {"instruction": "What is 2 + 2?", "output": "4"}]
MAPPED = {"prompt": "instruction", "answer": "output"}
PROGRAM = "def f(x):\n    return x + 1"
CONFIG = """
name: own
seed: 0
benchmarks: [{name: exam, max_new_tokens: 64, own: {file: FILE, columns: {prompt: instruction, answer: output}}}]
"""


def problems(file: str | Path, columns: dict[str, Any], kind: Any = "maths") -> list[Problem]:
    return own_problems(CustomProblems(file=str(file), kind=kind, columns=BenchmarkColumns(**columns)), "exam")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the form that the file's name says."""
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        form = path.name.removesuffix(".gz").rpartition(".")[2]
        if form == "csv":
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.write(json.dumps(rows) if form == "json" else "".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.csv", "a.csv.gz", "a.parquet"])
def test_a_file_with_other_names_gives_the_problems_of_one_with_ours(tmp_path: Path, name: str) -> None:
    ours = [{"prompt": row["instruction"], "gold": row["output"]} for row in ROWS]
    expected = problems(write(tmp_path / "ours.jsonl", ours), {})
    found = problems(write(tmp_path / name, ROWS), MAPPED)
    assert [problem.gold for problem in found] == ["7", "4"]
    assert digest(found) == digest(expected)


def test_a_config_with_other_names_is_planned_and_its_data_made(tmp_path: Path) -> None:
    rows = [{"instruction": "What is 3 + 4?", "output": 7}, {"instruction": "What is 2 + 2?", "output": ["4"]}]
    file, config = jsonl(tmp_path / "exam.jsonl", rows), tmp_path / "own.yaml"
    config.write_text(CONFIG.replace("FILE", file))

    def planned(*overrides: str) -> dict[str, Any]:
        options = [f"home={tmp_path / 'home'}", "execution.device=cpu", *overrides]
        return {p.stage.name: p for p in plan_only(config, options, Options())[2]}

    data = planned()["data"]
    assert data.stage.settings.identity_settings()["benchmarks"][0]["own"]["columns"]["answer"] == "output"
    other = planned("benchmarks.0.own.columns={prompt: output, answer: instruction}")["data"]
    assert other.key != data.key
    with pytest.raises(ConfigError, match=r"exam.own.columns.answer: no row of .* has a column 'outpt'; did you mean"):
        planned("benchmarks.0.own.columns.answer=outpt")

    benchmark = {"name": "exam", "own": {"file": file, "columns": MAPPED}}
    output = made(tmp_path, benchmarks=[benchmark])
    found = list(read_records(output / "benchmarks" / "exam.jsonl", Problem))
    assert [(problem.id, problem.gold) for problem in found] == [("1", "7"), ("2", "4")]
    assert "What is 3 + 4?" in found[0].prompt


def test_a_benchmark_without_names_has_the_key_it_had() -> None:
    """And so has a source of training rows: the names are in it as they were."""
    plain = {"kind": "maths", "template": None}
    assert CustomProblems(file="a.jsonl").identity_settings() == plain
    assert CustomProblems(file="a.jsonl", columns=BenchmarkColumns()).identity_settings() == plain
    assert Columns().identity_settings() == {
        "prompt": "prompt",
        "completion": "completion",
        **dict.fromkeys(("messages", "system", "reasoning", "answer", "tests", "setup")),
    }


def test_values_inside_objects_ids_and_system_messages_are_found(tmp_path: Path) -> None:
    row = {"q": [{"role": "user", "content": "1 + 1?"}], "extra": {"final": ["2"]}, "no": 17, "sys": "Be brief."}
    columns = {"prompt": "q", "answer": "extra.final.0", "id": "no", "system": "sys"}
    (problem,) = problems(jsonl(tmp_path / "a.jsonl", [row]), columns)
    assert (problem.id, problem.gold) == ("17", "2")
    assert problem.context == [{"role": "system", "content": "Be brief."}]


def test_an_answer_of_a_conversation_is_not_shown(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "B"}]
    (problem,) = problems(jsonl(tmp_path / "a.jsonl", [{"chat": turns, "gold": "B"}]), {"messages": "chat"}, "choice")
    assert (problem.prompt, problem.gold, problem.context) == ("Which?", "B", [])


@pytest.mark.parametrize(
    ("row", "columns", "form"),
    [
        ({"text": "f", "code": PROGRAM, "list": ["assert f(1) == 2"]}, {"answer": "code", "tests": "list"}, "asserts"),
        (
            {"text": "f", "code": PROGRAM, "tests": {"entry_point": "f", "inputs": [[1]]}},
            {"answer": "code"},
            "inputs",
        ),
        ({"text": "f", "io": '{"inputs": ["1"], "outputs": ["2"]}'}, {"tests": "io"}, "cases"),
        (
            {"text": "f", "io": {"input": ["1"], "output": ["2"]}, "more": {"input": ["2"], "output": ["3"]}},
            {"tests": ["io", "more"]},
            "cases",
        ),
    ],
)
def test_programs_take_the_forms_of_tests_that_training_takes(
    tmp_path: Path, row: dict[str, Any], columns: dict[str, Any], form: str
) -> None:
    (problem,) = problems(jsonl(tmp_path / "a.jsonl", [row]), {"prompt": "text", **columns}, "code")
    assert problem.gold == row.get("code", "")
    assert form in problem.tests


def test_a_beginning_may_be_named_and_may_be_missing_in_a_row(tmp_path: Path) -> None:
    tests = {"cases": [{"input": "1", "output": "2"}]}
    rows = [{"prompt": "f", "tests": tests, "stub": "def f():"}, {"prompt": "g", "tests": tests}]
    first, second = problems(jsonl(tmp_path / "a.jsonl", rows), {"beginning": "stub"}, "code")
    assert (first.meta, second.meta) == ({"completion": "def f():"}, {})


@pytest.mark.parametrize(
    ("kind", "rows", "columns", "message"),
    [
        ("maths", ROWS, {**MAPPED, "id": "nr"}, r"exam.own.columns.id: no row of .* has a column 'nr'; known: instruc"),
        ("maths", ROWS, {"answer": "output"}, r"exam.own: row 1 has no column 'prompt'; it has instruction, output"),
        ("maths", [*ROWS, {"instruction": "a"}], MAPPED, r"exam.own: row 3 has no column 'output'; it has instruction"),
        ("maths", [*ROWS, {"instruction": "a", "output": ""}], MAPPED, r"row 3: column 'output' is '', expected text"),
        ("maths", [*ROWS, {"instruction": "a", "output": "..."}], MAPPED, r"a.jsonl:3: no answer can equal the gold"),
        ("choice", ROWS, MAPPED, r"a.jsonl:1: no answer can equal the gold one, '7': it has to be the letter"),
        ("code", ROWS, MAPPED, r"exam.own: row 1 has no column 'tests'"),
        ("code", [{"p": "f", "t": ["assert f(1)"]}], {"prompt": "p", "tests": "t"}, r"need the reference program"),
        ("maths", [], MAPPED, r"a.jsonl: no problems"),
    ],
)
def test_what_is_not_there_is_named(
    tmp_path: Path, kind: str, rows: list[dict[str, Any]], columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(StageError, match=message) as caught:
        problems(jsonl(tmp_path / "a.jsonl", rows), columns, kind)
    assert caught.value.fix


def test_an_unmapped_file_with_other_names_is_told_of_the_setting(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no column 'prompt'") as caught:
        problems(jsonl(tmp_path / "a.jsonl", ROWS), {})
    assert "set own.columns" in caught.value.fix


def test_a_table_of_text_holds_tests_as_json_where_they_are_named(tmp_path: Path) -> None:
    row = {"prompt": "f", "gold": PROGRAM, "tests": json.dumps({"entry_point": "f", "inputs": [[1]]})}
    file = write(tmp_path / "a.csv", [row])
    assert problems(file, {"tests": "tests"}, "code")[0].tests == {"entry_point": "f", "inputs": [[1]]}
    with pytest.raises(StageError, match="tests needs to be an object"):
        problems(file, {}, "code")


def test_an_empty_cell_of_a_table_is_a_value_that_is_not_there(tmp_path: Path) -> None:
    rows = [{**row, "id": "", "beginning": ""} for row in ROWS]
    mapped = problems(write(tmp_path / "a.csv", rows), MAPPED)
    assert [problem.id for problem in mapped] == [
        problem.id for problem in problems(write(tmp_path / "b.csv", ROWS), MAPPED)
    ]
