"""LiveCodeBench's rows, in the form of the hub's files: made here, since its problems are not shipped."""

import base64
import json
import pickle
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.code import livecodebench
from evaluation.benchmarks.code.contest_prompts import SYSTEM
from evaluation.benchmarks.code.payloads import PayloadError, unpacked
from evaluation.graders.programs import packed
from evaluation.graders.programs.tests import case_tests
from evaluation.grading import Grader
from evaluation.loading import LoadError, digest, load
from evaluation.records import Problem, RecordError, read_records, write_jsonl
from tests.evaluation.benchmarks.contests.rows import FUNCTION, STDIN, private, release
from tests.stages.data.test_data import jsonl, made, refused

BENCHMARK = livecodebench.V1


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a release of four problems in the first file."""
    monkeypatch.setitem(livecodebench.SIZES, "v1", 4)
    return release(tmp_path, 4)


def test_rows_of_both_kinds(small: Path) -> None:
    reading, calling = load(BENCHMARK, "test", small)[:2]
    assert (reading.id, reading.benchmark, reading.kind, reading.gold) == ("p0", "livecodebench_v1", "code", "")
    assert reading.context == [{"role": "system", "content": SYSTEM}]
    assert reading.prompt.startswith("### Question:\nAdd two numbers (0).\n\n### Format: Read the inputs from stdin")
    assert calling.prompt.endswith(
        "```python\nclass Solution:\n    def add(self, a: int, b: int) -> int:\n        \n```\n\n"
        "### Answer: (use the provided format with backticks)\n\n"
    )
    assert reading.meta == {"contest_date": "2023-05-01", "platform": "atcoder", "difficulty": "easy"}
    assert calling.tests["function"] == "add"
    cases = [(case.input, case.output) for case in case_tests(reading.tests).cases()]
    assert cases == [(b"1 2\n", b"3\n"), (b"3 4\n", b"7\n"), (b"5 6\n", b"11\n")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_content": None}, "column 'question_content' is empty"),
        ({"question_content": 5}, "column 'question_content' holds int, not text"),
        ({"starter_code": 5}, "column 'starter_code' holds int, not text"),
        ({"question_content": ...}, "no column 'question_content'"),
        ({"starter_code": ...}, "no column 'starter_code'"),
        ({"metadata": "[]"}, "p2\\): metadata or contest_date: \\[\\] is no object"),
    ],
)
def test_a_row_that_asks_nothing_is_named(small: Path, change: dict[str, Any], message: str) -> None:
    file = small / "livecodebench" / "test.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows[2] = {name: value for name, value in (rows[2] | change).items() if value is not ...}
    write_jsonl(file, rows)
    with pytest.raises(RecordError, match=f"livecodebench_v1, row 3.*{message}"):
        load(BENCHMARK, "test", small)


def test_a_window_of_dates(small: Path) -> None:
    def ids(**window: str) -> list[str]:
        return [problem.id for problem in load(BENCHMARK, "test", small, where={"contest_date": window})]

    assert ids(**{"from": "2023-06-01"}) == ["p1", "p2", "p3"]
    assert ids(**{"from": "2023-06-01", "to": "2023-07-01"}) == ["p1", "p2"]
    assert ids(to="2023-05-31") == ["p0"]
    with pytest.raises(LoadError, match="no problem has contest_date"):
        ids(**{"from": "2026-01-01"})


def test_both_kinds_are_graded_and_cases_move_with_the_problems(small: Path, tmp_path: Path) -> None:
    problems = load(BENCHMARK, "test", small)[:2]
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    moved = [Problem(**{**vars(p), "tests": packed.moved(p.tests, folder, f"cases/{p.id}.gz")}) for p in problems]
    write_jsonl(folder / "x.jsonl", moved)
    assert str(tmp_path) not in (folder / "x.jsonl").read_text(encoding="utf-8")
    read = read_records((folder / "x.jsonl").rename(folder / "y.jsonl"), Problem)
    assert digest(read) == digest(problems)
    programs = {"p0": STDIN, "p1": FUNCTION}
    with Grader(1) as grader:
        right = grader.grade([(p, f"```python\n{programs[p.id]}\n```", "stop") for p in read])
        assert [graded.verdict for graded in right] == ["correct", "correct"], right
        wrong = [programs[p.id].replace("+", "-") for p in read]
        graded = grader.grade([(p, f"```python\n{text}\n```", "stop") for p, text in zip(read, wrong, strict=True)])
        assert [one.verdict for one in graded] == ["wrong", "wrong"]
        (folder / "cases/p0.gz").write_bytes((folder / "cases/p1.gz").read_bytes())
        (folder / "cases/p1.gz").write_bytes((folder / "cases/p1.gz").read_bytes()[:-9])
        damaged = grader.grade([(p, f"```python\n{programs[p.id]}\n```", "stop") for p in read])
    assert [one.verdict for one in damaged][1] == "grader_error"
    assert damaged[0].verdict != "correct"


class _Runs:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("__import__('os').abort()",)


def _payload(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


@pytest.mark.parametrize(
    "payload",
    [
        _payload(pickle.dumps(_Runs())),
        _payload(pickle.dumps({"input": "1"})),
        _payload(pickle.dumps(["[]", "[]"])),
        _payload(pickle.dumps("[]") + b"x"),
        _payload(pickle.dumps(private([("1", "2")]))[:-9]),
        _payload(pickle.dumps('[{"input": "1", "output": "2", "testtype": "stdin"}')),
        _payload(pickle.dumps('[{"input": "1", "output": 2, "testtype": "stdin"}]')),
        _payload(pickle.dumps('"no list"')),
        *(
            _payload(pickle.dumps(f"[{item}]"))
            for item in ("5", '"x"', "null", '{"input": "", "output": "", "testtype": ""}, 5')
        ),
        "[5]",
        _payload(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f."),
        private([("1", "2")])[:-8],
        "%%%",
        "",
        "[",
        '[{"input": "1}]',
    ],
)
def test_a_payload_that_does_not_decode_is_refused_and_nothing_of_it_runs(payload: str) -> None:
    with pytest.raises(PayloadError):
        list(unpacked(payload))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_texts_of_every_kind_come_back(protocol: int) -> None:
    cases = [('{"a": [1]}\\', 'é\u2028 "x"\n'), ("x" * 3_000_000, "}]{["), ("", "\U0001f600\t\\\\")]
    tests = [{"input": one, "output": other, "testtype": "stdin"} for one, other in cases]
    for text in (json.dumps(tests), json.dumps(tests, ensure_ascii=False, indent=1)):
        assert list(unpacked(_payload(pickle.dumps(text, protocol)))) == tests
        assert list(unpacked(text)) == tests


def test_rows_that_are_not_as_they_should_be_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(livecodebench.SIZES, "v1", 2)
    folder = release(tmp_path, 2)
    file = folder / "livecodebench/test.jsonl"
    good = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]

    def refused(match: str, **changed: Any) -> None:
        write_jsonl(file, [good[0], good[1] | changed])
        with pytest.raises(RecordError, match=match):
            load(BENCHMARK, "test", folder)

    refused("row 2.*the tests do not decode", private_test_cases="AAAA")
    refused("row 2.*the problem stdin", metadata="{}")
    refused("occurs twice", question_id="p0")
    refused("row 2.*contest_date", contest_date="May")
    refused("row 2.*not JSON", private_test_cases=private([("1\n2", "three")], "functional"))
    file.unlink()
    with pytest.raises(LoadError, match=r"test\.jsonl does not exist"):
        load(BENCHMARK, "test", folder)


def test_long_tests_are_streamed(tmp_path: Path) -> None:
    """The memory for unpacking does not grow with the number of tests."""
    peaks = []
    for number in (20, 80):
        payload = private([(f"{n} " * 100_000, "1") for n in range(number)])
        tracemalloc.start()
        stored = packed.pack(unpacked(payload), tmp_path / "cases.gz")
        assert sum(1 for _ in packed.read(stored)) == stored["cases"] == number
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_the_folder_of_cases_is_gone_with_its_process(small: Path) -> None:
    program = (
        "import sys\nfrom evaluation.benchmarks.code import livecodebench\nfrom evaluation.loading import load\n"
        "livecodebench.SIZES['v1'] = 4\n"
        "print(load(livecodebench.V1, 'test', sys.argv[1])[0].tests['packed']['file'])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(small)], capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).parent.parent.exists()


def test_the_data_stage_keeps_cases_beside_the_problems(small: Path, tmp_path: Path) -> None:
    window = {"contest_date": {"from": "2023-06-01"}}
    output = made(tmp_path / "out", small, benchmarks=[{"name": "livecodebench_v1", "where": window}])
    problems = read_records(output / "benchmarks/livecodebench_v1.jsonl", Problem)
    assert [problem.id for problem in problems] == ["p1", "p2", "p3"]
    files = [Path(problem.tests["packed"]["file"]) for problem in problems]
    assert all(file.is_relative_to(output / "benchmarks/livecodebench_v1.cases") for file in files)
    with Grader(1) as grader:
        graded = grader.grade([(problems[0], FUNCTION, "stop"), (problems[1], STDIN, "stop")])
    assert [one.verdict for one in graded] == ["correct", "correct"]


def test_training_on_a_problem_is_found_whatever_its_format(small: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": "Add two numbers (1).", "completion": "?"},
        {"prompt": "Add two numbers (2).", "completion": "?"},
    ]
    source = {"file": jsonl(tmp_path / "rows.jsonl", rows)}
    error = refused(tmp_path / "out", small, sft=[source], benchmarks=[{"name": "livecodebench_v1"}])
    assert "2 training prompts are benchmark problems" in str(error)
