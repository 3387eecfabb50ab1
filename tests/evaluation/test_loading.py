"""Reading problems: local files, the hub's library on local files, generated ones."""

import dataclasses
import functools
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks import get
from evaluation.benchmarks.base import Source
from evaluation.loading import LoadError, digest, load, read_file, read_source
from evaluation.records import Problem, RecordError, read_rows
from tests.evaluation.benchmarks.test_contest import aime_rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_local_file_and_a_limit(tmp_path: Path) -> None:
    write(tmp_path / "aime24" / "aime24.jsonl", aime_rows())
    assert [problem.id for problem in load(get("aime24"), "test", tmp_path, limit=2)] == ["aime24-I-01", "aime24-I-02"]


def test_a_limit_does_not_hide_an_incomplete_file(tmp_path: Path) -> None:
    write(tmp_path / "aime24" / "aime24.jsonl", aime_rows()[:20])
    with pytest.raises(RecordError, match="20 problems"):
        load(get("aime24"), "test", tmp_path, limit=2)


def test_problems_are_chosen_by_what_the_benchmark_notes_of_them(tmp_path: Path) -> None:
    rows = [
        {"id": f"algebra/{n}", "problem": f"{n}?", "answer": "1", "subject": "Algebra", "level": n % 5 + 1}
        for n in range(500)
    ]
    write(tmp_path / "math500" / "math500.jsonl.gz", []).write_bytes(
        gzip.compress("\n".join(map(json.dumps, rows)).encode())
    )
    choose = functools.partial(load, get("math500"), "test", tmp_path)
    easy = choose(limit=3, where={"level": 1, "subject": "Algebra"})
    assert [problem.id for problem in easy] == ["algebra/0", "algebra/5", "algebra/10"]
    assert len(choose(where={"level": 5})) == 100
    for where, message in (
        ({"level": 6}, "no problem has level 6; there is 1, 2, 3, 4, 5"),
        ({"level": True}, "no problem has level true"),
        ({"level": "1"}, 'no problem has level "1"; there is 1, 2'),
        ({"levle": 1}, "no problem has levle 1; they note level, subject"),
        ({"level": 1, "subject": "Geometry"}, 'no problem has subject "Geometry"; there is "Algebra"'),
    ):
        with pytest.raises(LoadError, match=message):
            choose(where=where)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=f"{tmp_path}/aime24/aime24.jsonl does not exist"):
        load(get("aime24"), "test", tmp_path)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "aime24" / "aime24.jsonl"
    path.parent.mkdir()
    path.write_text('\n{"a": \n')
    with pytest.raises(RecordError, match=r"aime24.jsonl:2: not a JSON object"):
        load(get("aime24"), "test", tmp_path)


def test_the_hubs_library_reads_a_parquet_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real `datasets.load_dataset`, pointed at a folder that is laid out like the hub's repository."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "repository" / "data").mkdir(parents=True)
    datasets.Dataset.from_list(aime_rows(hub=True)).to_parquet(
        str(tmp_path / "repository" / "data" / "train-00000-of-00001.parquet")
    )
    source = dataclasses.replace(get("aime24").sources["test"], hub=str(tmp_path / "repository"))
    benchmark = dataclasses.replace(get("aime24"), sources={"test": source})
    from_hub = load(benchmark, "test")
    write(tmp_path / "aime24" / "aime24.jsonl", aime_rows())
    assert from_hub == load(get("aime24"), "test", tmp_path)


def test_a_hub_that_does_not_have_it_is_one_clear_error(tmp_path: Path) -> None:
    source = Source(local="x/y.jsonl", hub=str(tmp_path / "nothing"), hub_split="test")
    with pytest.raises(LoadError, match=r"cannot be loaded.*put x/y.jsonl below a local data folder"):
        list(read_source(source, "test"))


def test_generated_problems_need_a_number_and_depend_on_the_seed() -> None:
    task = get("word_problems")
    with pytest.raises(LoadError, match="say how many"):
        load(task, "test")
    assert (
        load(task, "test", None, 5, seed=1)
        == load(task, "test", None, 5, seed=1)
        != load(task, "test", None, 5, seed=2)
    )


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(LoadError, match="aime24 has no split 'train'; it has test"):
        load(get("aime24"), "train")


def test_importing_the_package_leaves_the_heavy_libraries_out() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'evaluate', 'sympy', 'math_verify'}"
    modules = "evaluation.loading, evaluation.grading, evaluation.metrics, stages.score.settings"
    program = f"import sys, {modules}; print({heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


@pytest.mark.parametrize(
    "change",
    [
        {"id": "b"},
        {"kind": "maths"},
        {"prompt": "Double!"},
        {"gold": "def f(x): return 2 * x"},
        {"tests": {"entry_point": "f", "inputs": [[1]]}},
        {"tests": {"entry_point": "f", "inputs": [[1], [2.0]]}},
        {"tests": {"entry_point": "f", "inputs": [[1], [2]], "atol": 0.1}},
        {"meta": {"completion": "def f(x):\n"}},
    ],
)
def test_the_digest_follows_whatever_decides_a_prompt_or_a_verdict(change: dict[str, Any]) -> None:
    problem = Problem(
        "a", "mine", "code", "Double.", "def f(x): return x + x", {"entry_point": "f", "inputs": [[1], [2]]}
    )
    reordered = dataclasses.replace(problem, tests=dict(reversed(problem.tests.items())), meta={"level": 3})
    assert digest([problem]) == digest([reordered]) != digest([dataclasses.replace(problem, **change)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n' * 9_000 + b'\xff\xfe{"b": 2}\n{}\n', "rows.jsonl:9001: not text in UTF-8"),
        (b'{"a": 1}\n' + b"[" * 100_000 + b"\n", "rows.jsonl:2: not a JSON object"),
        (b'{"a": 1}\n{"b": {"c": 1, "c": 1}}\n', "rows.jsonl:2: 'c' is there twice"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content)
    with pytest.raises(RecordError, match=message):
        list(read_rows(file))


def test_a_compressed_file_that_ends_too_early_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"a": %d}\n' % (number * 7919) for number in range(50_000)))
    for damaged in (whole[: len(whole) // 2], b"not gzip at all"):
        file.write_bytes(damaged)
        with pytest.raises(RecordError, match=r"rows.jsonl.gz: damaged after line"):
            list(read_rows(file))


def test_a_mark_of_the_encoding_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    assert list(read_rows(file)) == [(1, {"a": 1})]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_tables_of_comma_separated_values(tmp_path: Path, name: str) -> None:
    file = tmp_path / name

    def write_bytes(content: bytes) -> None:
        file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)

    write_bytes('\ufeffa,b\r\n"1\r\n2\n3","say ""x"""\r\n\r\né,\r\n'.encode())
    assert list(read_file(file)) == [(1, {"a": "1\r\n2\n3", "b": 'say "x"'}), (2, {"a": "é", "b": ""})]
    write_bytes(b"a,b\n1," + b"x" * 200_000 + b"\n")
    assert [len(row["b"]) for _, row in read_file(file)] == [200_000]
    write_bytes(b"")
    assert list(read_file(file)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2,3\n", "row 1 has more cells than the first line has names"),
        (b"a,b\n1,2\n3\n", "row 2 has fewer cells than the first line has names"),
        (b"a,b,a\n1,2,3\n", "the first line has 'a' twice"),
        (b"a,b\n" + b"1,2\n" * 9_000 + b"\xff,1\n3,4\n", "line 9002 is not text in UTF-8"),
        (b'a,b\n1,2\n3,"4\n5,6\n7,8\n', "not a table .* after row 1: unexpected end of data"),
        (b'a,b\n1,"2\n3,4\n5,"6"\n', "not a table .* after row 0: ',' expected after '\"'"),
        (b'a,b\n1,2"\n3\n', "row 2 has fewer cells"),
    ],
)
def test_tables_that_would_lose_rows_or_cells_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(content)
    with pytest.raises(RecordError, match=f"a.csv: {message}"):
        list(read_file(file))
