"""Samples of sources, drawn by a seed; and programming tasks out of files as others write them."""

from __future__ import annotations

import csv
import gzip
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks import Benchmark, Source, get
from evaluation.benchmarks.maths import svamp
from evaluation.loading import load
from evaluation.records import Problem, read_records
from pipeline.plan.code import code_of
from stages.data.reading import load_task
from stages.data.rows import demonstrations
from stages.data.run import run as run_data
from stages.data.settings import Columns, DataSettings, SourceSettings
from stages.data.stage import STAGE
from stages.harness.context import StageError
from tests.stages.data.test_data import jsonl, made, refused
from tests.tiny import open_stage, write_spec

COLUMNS = {"prompt": "question", "answer": "result"}


def numbers(folder: Path, **source: Any) -> list[int]:
    """The golds of the rows that are taken."""
    output = made(folder, rl=[{"columns": COLUMNS, **source}])
    return [int(problem.gold) for problem in read_records(output / "rl.jsonl", Problem)]


@pytest.fixture
def hundred(tmp_path: Path) -> str:
    return jsonl(
        tmp_path / "hundred.jsonl",
        [{"question": f"What is {i} + 0?", "result": i, "kind": "even" if i % 2 == 0 else "odd"} for i in range(100)],
    )


def test_rows_of_a_file_are_drawn_among_those_that_are_kept(tmp_path: Path, hundred: str) -> None:
    source = {"file": hundred, "shuffle": True, "where": {"kind": "even"}}
    ten = numbers(tmp_path / "ten", **source, rows=10)
    assert len(set(ten)) == 10
    assert all(number % 2 == 0 for number in ten)
    assert ten != sorted(ten)
    assert max(ten) >= 50, "the later half is drawn from too"
    assert numbers(tmp_path / "again", **source, rows=10) == ten
    assert numbers(tmp_path / "other", **source, rows=10, seed=1) != ten
    assert numbers(tmp_path / "more", **source, rows=20)[:10] == ten, "a larger sample holds the smaller one"
    assert sorted(numbers(tmp_path / "all", **source, rows=90)) == list(range(0, 100, 2))
    assert numbers(tmp_path / "first", file=hundred, rows=10) == list(range(10))


@pytest.mark.parametrize("name", ["mine.csv", "mine.csv.gz"])
def test_the_cells_of_a_table_are_text_as_they_are_written(tmp_path: Path, name: str) -> None:
    tests = json.dumps({"entry_point": "f", "inputs": [[1]]}).replace('"', '""')
    table = (
        "\ufeffquestion,result,level,tests,messages\r\n"
        f'"Which, if any?",007,1,"{tests}",\r\n'
        f'"Two\r\nlines?",1.50,2,"{tests}",\r\n'
    )
    with gzip.open(tmp_path / name, "wb") if name.endswith(".gz") else (tmp_path / name).open("wb") as file:
        file.write(table.encode())
    source = {"file": str(tmp_path / name), "columns": COLUMNS}
    demonstrated = {**source, "columns": {"prompt": "question", "completion": "result"}, "where": {"level": "2"}}
    output = made(tmp_path, rl=[source], sft=[demonstrated])
    found = [(p.id, p.prompt, p.gold) for p in read_records(output / "rl.jsonl", Problem)]
    assert found == [(f"{name}:1", "Which, if any?", "007"), (f"{name}:2", "Two\nlines?", "1.50")]
    (row,) = [json.loads(line) for line in (output / "sft.jsonl").read_text().splitlines()]
    assert (row["prompt"][0]["content"], row["completion"][0]["content"]) == ("Two\nlines?", "1.50")


def test_tests_and_messages_in_a_table_are_json(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "f"}]
    row = [json.dumps(turns), "def f(x): return x", json.dumps({"entry_point": "f", "inputs": [[1]]})]
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["chat", "code", "tests"], row])
    columns = {"messages": "chat", "answer": "code", "tests": "tests"}
    output = made(tmp_path, rl=[{"file": str(tmp_path / "mine.csv"), "columns": columns}])
    (problem,) = read_records(output / "rl.jsonl", Problem)
    assert (problem.kind, problem.prompt, problem.tests["inputs"]) == ("code", "f", [[1]])


def test_a_drawn_row_keeps_its_number(tmp_path: Path, hundred: str) -> None:
    output = made(tmp_path, rl=[{"file": hundred, "columns": COLUMNS, "shuffle": True, "rows": 5}])
    assert all(p.id == f"hundred.jsonl:{int(p.gold) + 1}" for p in read_records(output / "rl.jsonl", Problem))


@pytest.mark.parametrize("kind", ["parquet", pytest.param("hub", marks=pytest.mark.slow)])
def test_tables_and_streams_are_drawn_from_by_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The hub's dataset is the real `datasets.load_dataset`, streamed from a folder laid out like a repository of the
    hub."""
    import datasets

    rows = [{"question": f"What is {i} + 0?", "result": i} for i in range(100)]
    (tmp_path / "repository" / "data").mkdir(parents=True)
    path = tmp_path / "repository" / "data" / "train-00000-of-00001.parquet"
    datasets.Dataset.from_list(rows).to_parquet(str(path))
    source = {"file": str(path)} if kind == "parquet" else {"hub": str(tmp_path / "repository")}
    ten = numbers(tmp_path / "ten", **source, shuffle=True, rows=10)
    assert len(set(ten)) == 10
    assert max(ten) >= 50
    assert numbers(tmp_path / "again", **source, shuffle=True, rows=10) == ten
    assert numbers(tmp_path / "other", **source, shuffle=True, rows=10, seed=1) != ten
    assert numbers(tmp_path / "first", **source, rows=3) == [0, 1, 2]


@pytest.mark.parametrize("ending", [".parquet", ".json", ".jsonl"])
def test_a_file_replaced_by_one_of_the_same_time_and_size_is_read_anew(tmp_path: Path, ending: str) -> None:
    """Archives and `cp -p` keep times; a cache that goes by them gives the rows of the file that is gone."""
    import datasets

    path = tmp_path / f"mine{ending}"

    def replace_by(number: int) -> tuple[int, list[int]]:
        rows = datasets.Dataset.from_list([{"question": f"What is {number} + 0?", "result": number}])
        if ending == ".parquet":
            rows.to_parquet(str(path))
        else:
            rows.to_json(str(path), lines=ending == ".jsonl")
        os.utime(path, (1_700_000_000, 1_700_000_000))
        return path.stat().st_size, numbers(tmp_path / str(number), file=str(path))

    size, first = replace_by(3)
    assert (first, replace_by(4)) == ([3], (size, [4]))


def test_a_task_that_cannot_be_demonstrated_with_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svamp, "SPLITS", {"train": range(1, 2)})
    (tmp_path / "svamp").mkdir()
    jsonl(tmp_path / "svamp" / "svamp.jsonl", [{"ID": "chal-1", "Body": "Ann has 3.", "Question": "?", "Answer": 3}])
    context = open_stage(DataSettings, write_spec(tmp_path, "data", {}, {}))
    context.machine = context.machine.model_copy(update={"data_dir": str(tmp_path)})
    with pytest.raises(StageError, match=r"^data\.sft\.0: svamp, chal-0001: there is no Equation"):
        demonstrations(SourceSettings(task="svamp"), "svamp", "data.sft.0", context, [])


def test_problems_of_a_task_are_drawn(tmp_path: Path) -> None:
    jsonl(tmp_path / "exam.jsonl", [{"id": str(number)} for number in range(100)])
    source = Source(local="exam.jsonl", hub="", hub_split="train")
    task = Benchmark(
        "exam", "maths", 100, sources={"train": source}, parse=lambda split, rows: [exam(row["id"]) for row in rows]
    )
    spec = write_spec(tmp_path, "data", {}, {})
    context = open_stage(DataSettings, spec)
    context.machine = context.machine.model_copy(update={"data_dir": str(tmp_path)})
    drawn = load_task(task, "train", 10, 0, "data.rl.0", context, shuffle=True)
    assert len({int(problem.id) for problem in drawn}) == 10
    assert max(int(problem.id) for problem in drawn) >= 50
    assert [problem.id for problem in load_task(task, "train", 2, 0, "data.rl.0", context)] == ["0", "1"]


def exam(id: str) -> Problem:
    return Problem(id, "exam", "maths", "?", "1")


# Programming tasks.

MBPP = {"prompt": "text", "answer": "code", "tests": "test_list", "setup": "test_setup_code"}
TASK = {
    "text": "Write a function that doubles.",
    "code": "def half(x):\r\n    return x / 2\r\ndef double(x):\r\n    return 2 * x",
    "test_setup_code": "from math import pi",
    "test_list": ["assert double(3) == 6", "assert double(pi) == 2 * pi\r\n"],
}


def test_a_list_of_asserts_becomes_tests(tmp_path: Path) -> None:
    template = "{prompt}\nIt has to pass:\n{tests}"
    tests = {"entry_point": "double", "asserts": ["assert double(0) == 0"]}
    objects = {
        "file": jsonl(tmp_path / "objects.jsonl", [{**TASK, "test_list": tests}]),
        "columns": {**MBPP, "setup": None},
    }
    output = made(
        tmp_path, rl=[{"file": jsonl(tmp_path / "tasks.jsonl", [TASK]), "columns": MBPP, "template": template}, objects]
    )
    listed, given = read_records(output / "rl.jsonl", Problem)
    assert listed.kind == "code"
    asserts = ["assert double(3) == 6", "assert double(pi) == 2 * pi"]
    assert listed.tests == {"entry_point": "double", "setup": "from math import pi", "asserts": asserts}
    assert listed.prompt == "Write a function that doubles.\nIt has to pass:\n" + "\n".join(asserts)
    assert "\r" not in listed.gold
    assert given.tests == tests


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_list": []}, "row 1: the list of asserts is empty"),
        ({"test_list": [3]}, "row 1: a test is 3, expected the text of an assert"),
        ({"test_list": ["assert double(3"]}, "row 1: test 'assert double(3' is not Python"),
        ({"test_list": ["print(double(3))"]}, "row 1: test 'print(double(3))' is not one assert statement"),
        (
            {"test_list": ["assert triple(3) == 9"]},
            "row 1: the asserts must all call one function that the program defines, and they call none",
        ),
        ({"test_list": ["assert double(half(3)) == 3"]}, "and they call these: double, half"),
        ({"test_list": "assert double(3) == 6"}, "row 1: tests are text that is not JSON"),
        ({"test_list": 3}, "row 1: tests needs to be an object"),
        (
            {"test_list": {"entry_point": "double", "asserts": ["assert double(3) == 6"]}},
            "row 1: columns.setup is for a list of asserts",
        ),
        ({"test_setup_code": 3}, "row 1: the setup is 3, expected text or a list of lines"),
        ({"test_setup_code": "from math import"}, "row 1: the setup is not Python"),
        ({"code": "def double(x) return 2"}, "row 1: the reference program is not Python"),
    ],
)
def test_tests_that_cannot_be_run_are_one_clear_error(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    error = refused(tmp_path, rl=[{"file": jsonl(tmp_path / "tasks.jsonl", [TASK | changes]), "columns": MBPP}])
    assert message in error.message
    assert error.message.startswith("data.rl.0: row 1")


@pytest.mark.parametrize(
    ("task", "file", "columns", "count"),
    [
        ("mbpp", "mbpp.jsonl.gz", MBPP, 974),
        ("mbpp_sanitized", "sanitized-mbpp.json.gz", {**MBPP, "prompt": "prompt", "setup": "test_imports"}, 427),
    ],
)
def test_the_files_of_mbpp_are_rl_sources(
    tmp_path: Path,
    benchmark_data: Path,
    task: str,
    file: str,
    columns: dict[str, str],
    count: int,
) -> None:
    """Tests and reference programs are those that the benchmark of the same problems has, so they are graded as these
    are."""
    output = made(tmp_path, rl=[{"file": str(benchmark_data / "mbpp" / file), "columns": columns}])
    problems = read_records(output / "rl.jsonl", Problem)
    assert len(problems) == count
    made_of = {problem.gold: problem.tests for problem in problems}
    assert all(made_of[problem.gold] == problem.tests for problem in load(get(task), "test", benchmark_data))


def test_training_on_the_file_of_mbpp_leaves_its_test_problems_out(tmp_path: Path, benchmark_data: Path) -> None:
    source = {"file": str(benchmark_data / "mbpp" / "mbpp.jsonl.gz"), "columns": MBPP}
    output = made(tmp_path, benchmark_data, rl=[source], benchmarks=[{"name": "mbpp"}], on_overlap="drop")
    rows = {int(problem.id.rpartition(":")[2]) for problem in read_records(output / "rl.jsonl", Problem)}
    assert not rows & set(range(11, 511)), "the lines of the file are its task ids"
    assert len(rows) > 400


def test_verified_demonstrations_put_the_graders_worker_into_the_key() -> None:
    """It runs as a program of its own, so no import leads to it."""
    plain = DataSettings(sft=[SourceSettings(file="a.jsonl", columns=Columns(answer="a"))])
    verified = DataSettings(sft=[SourceSettings(file="a.jsonl", columns=Columns(answer="a"), verified=True)])
    worker = "evaluation/graders/maths_worker.py"
    assert (worker in code_of(STAGE, plain), worker in code_of(STAGE, verified)) == (False, True)


def notes(folder: Path, **settings: Any) -> list[str]:
    spec = write_spec(Path(tempfile.mkdtemp(dir=folder)), "data", settings, {})
    run_data(open_stage(DataSettings, spec))
    events = [json.loads(line) for line in (spec.parent / "events.jsonl").read_text().splitlines()]
    return [event["message"] for event in events if event["event"] == "note"]


def test_prompts_that_rl_can_learn_nothing_of_are_counted(tmp_path: Path) -> None:
    golds = [("1 + 1?", "2"), ("2 + 2?", "..."), ("3 + 3?", "6"), ("4 + 4?", "\\boxed{"), ("3 + 3?", "7")]
    rows = [{"question": question, "result": gold} for question, gold in golds]
    source = {"file": jsonl(tmp_path / "mine.jsonl", rows), "columns": {"prompt": "question", "answer": "result"}}
    never, contradicting = notes(tmp_path, rl=[source])
    assert never.startswith("data.rl.0: 2 of 5 prompts have a gold answer that no answer can equal; the first is")
    assert "mine.jsonl:2, '...'" in never
    assert "mine.jsonl:3 and mine.jsonl:5" in contradicting
    assert notes(tmp_path, rl=[{**source, "rows": 1}]) == []
    rows = [{"question": "2 + 3?", "result": "2+3=5\n#### 5"}, {"question": "1 + 4?", "result": "The answer is 5."}]
    (said,) = notes(tmp_path, rl=[{**source, "file": jsonl(tmp_path / "gsm8k.jsonl", rows)}])
    assert said.startswith("data.rl.0: 2 of 2 prompts have a gold answer that no answer can equal; the first is")
    assert said.endswith("the answer is what stands behind ####")


def test_a_source_with_fewer_rows_than_were_asked_for_says_so(tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "solution": "yes"} for i in range(4)]
    columns = {"prompt": "question", "completion": "solution"}
    source = {"file": jsonl(tmp_path / "mine.jsonl", rows), "columns": columns}
    (said,) = notes(tmp_path, sft=[{**source, "rows": 99}])
    assert said.endswith("mine.jsonl has 4 rows that are kept, and 99 were asked for")
    assert notes(tmp_path, sft=[{**source, "rows": 4}]) == []


@pytest.mark.parametrize("columns", [{"prompt": ""}, {"answer": " "}, {"tests": ["public_tests", ""]}, {"tests": []}])
def test_the_name_of_a_column_is_not_empty(columns: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(columns))}: names no column"):
        Columns.model_validate(columns)
