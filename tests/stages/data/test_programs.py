"""Programming tasks as the usual sets hold them, and demonstrations that are kept where their program passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.grading import Grader
from evaluation.records import Problem, read_records
from pipeline.config.schema import PipelineConfig
from pipeline.plan.code import code_of
from pipeline.plan.graph import build_graph
from stages.data.settings import Columns, DataSettings, SourceSettings
from stages.data.stage import STAGE
from tests.evaluation.benchmarks.contests.rows import texts
from tests.stages.data.test_data import jsonl, made, refused

STDIN = "a, b = map(int, input().split())\nprint(a + b)"
FUNCTION = "def add(a, b):\n    return a + b"
FORMS: dict[str, tuple[Any, str]] = {
    "inputs and outputs": ({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}, STDIN),
    "the same as JSON text": (json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}), STDIN),
    "lines": ({"inputs": [["1 2", ""]], "outputs": [["3"]], "fn_name": None}, STDIN),
    "input and output": ({"input": ["1 2\n"], "output": ["3\n"]}, STDIN),
    "a list of cases": ([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}], STDIN),
    "our own": ({"cases": [{"input": "1 2\n", "output": "3\n"}], "time_limit_s": 3}, STDIN),
    "arguments": ({"inputs": [[1, 2], [3, 4]], "outputs": [3, 7], "fn_name": "add"}, FUNCTION),
    "arguments, values in lists of one": (
        {"inputs": [[1, 2], [3, 4]], "outputs": [[3], [7]], "fn_name": "add"},
        FUNCTION,
    ),
    "lines of JSON": (
        [{"input": "1\n2", "output": "3", "testtype": "functional", "metadata": {"func_name": "add"}}],
        FUNCTION,
    ),
    "calls": ([{"type": "function_call", "fn_name": "add", "input": [1, 2], "output": 3}], FUNCTION),
}


def problems(folder: Path, row: dict[str, Any], **columns: Any) -> list[Problem]:
    source = {"file": jsonl(folder / "tasks.jsonl", [{"question": "Add.", **row}])}
    output = made(folder, rl=[{**source, "columns": {"prompt": "question", "tests": "tests", **columns}}])
    return read_records(output / "rl.jsonl", Problem)


@pytest.mark.parametrize("form", FORMS)
def test_tests_by_cases_in_the_forms_of_the_usual_sets(tmp_path: Path, form: str) -> None:
    value, program = FORMS[form]
    [problem] = problems(tmp_path, {"tests": value})
    assert (problem.kind, problem.gold) == ("code", "")
    with Grader(1, code_timeout_s=2.0) as grader:
        right, wrong = grader.grade([(problem, program, "stop"), (problem, program.replace("+", "*"), "stop")])
    assert (right.verdict, wrong.verdict) == ("correct", "wrong"), (right, wrong)


def test_cases_of_several_columns_are_put_together(tmp_path: Path) -> None:
    row = {"public_tests": texts([("1 2\n", "3\n")]), "private_tests": {"input": ["3 4\n"], "output": ["7\n"]}}
    columns = {"tests": ["public_tests", "private_tests", "generated_tests"]}
    [problem] = problems(tmp_path, row | {"generated_tests": {"input": [], "output": []}}, **columns)
    assert [case["output"] for case in problem.tests["cases"]] == ["3\n", "7\n"]


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ({"inputs": ["1"], "outputs": []}, "row 1: 1 inputs and 0 outputs"),
        ({"inputs": [], "outputs": []}, "at least one case"),
        ({"inputs": "1", "outputs": "2"}, "expected lists"),
        ({"inputs": [1], "outputs": ["2"]}, "expected text or a list of lines"),
        ([{"input": "1"}], "an entry without input and output"),
        ([{"input": "1", "output": "2", "testtype": "functional"}], "say nowhere which"),
        ([{"input": "1", "output": "2", "fn_name": name} for name in "fg"], "tests name 2 functions"),
        ({"cases": [{"input": "1", "output": "2"}], "comparison": "fuzzy"}, "comparison is 'fuzzy'"),
        ([{"input": "1", "output": "2", "testtype": kind} for kind in ("stdin", "functional")], "and some do not"),
        ({"inputs": ["1"], "outputs": ["2"], "fn_name": "f", "language": "cpp"}, "is for Python; programs in C++"),
        ({"inputs": ["1"], "outputs": ["2"], "comparison": "fuzzy"}, "comparison is 'fuzzy'"),
        ({"cases": [{"input": "1", "output": "2"}], "checker": "def check("}, "the checker is no Python"),
        (["assert add(1, 2) == 3"], "need the reference program: columns.answer"),
    ],
)
def test_tests_that_are_not_as_they_should_be_are_refused(tmp_path: Path, tests: Any, message: str) -> None:
    source = {"file": jsonl(tmp_path / "tasks.jsonl", [{"question": "Add.", "tests": tests}])}
    error = refused(tmp_path, rl=[{**source, "columns": {"prompt": "question", "tests": "tests"}}])
    assert message in error.message


def test_rules_beside_inputs_and_outputs_hold(tmp_path: Path) -> None:
    rules = {"checker": "def check(i, o, e): return True", "time_limit_s": 1.5}
    tests = {"inputs": ["1"], "outputs": ["2"], **rules, "difficulty": "easy"}
    [problem] = problems(tmp_path, {"tests": tests})
    assert problem.tests == {"cases": [{"input": "1", "output": "2"}], **rules}


def fenced(program: str) -> str:
    return f"Here it is.\n```python\n{program}\n```"


def test_demonstrations_stay_where_their_program_passes_and_the_others_are_listed(tmp_path: Path) -> None:
    value = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
    texts = [
        fenced(STDIN),
        fenced(STDIN.replace("+", "-")),
        "It cannot be done.",
        fenced("import numpy\n" + STDIN),
        fenced(STDIN.replace("a + b", "sum([a, b])")),
    ]
    rows = [{"question": f"Add ({n}).", "text": text, "tests": value} for n, text in enumerate(texts)]
    source = {"file": jsonl(tmp_path / "shown.jsonl", rows), "verify": "tests"}
    source["columns"] = {"prompt": "question", "completion": "text", "tests": "tests"}
    output = made(tmp_path, sft=[source])
    kept = [json.loads(line)["id"] for line in (output / "sft.jsonl").read_text(encoding="utf-8").splitlines()]
    assert kept == ["shown.jsonl:1", "shown.jsonl:5"]
    dropped = [json.loads(line) for line in (output / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(one["row"], one["verdict"]) for one in dropped] == [(2, "wrong"), (3, "no_answer"), (4, "wrong")]
    assert dropped[0] == {"source": "data.sft.0", "row": 2, "verdict": "wrong", "detail": "case 1: '-1' instead of '3'"}
    assert "ModuleNotFoundError" in dropped[2]["detail"]
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert summary["sft"]["dropped"] == {"data.sft.0": {"no_answer": 1, "wrong": 2}}


CPP = '#include <cstdio>\nint main() { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }'
ENDLESS = CPP.replace("int a, b;", "for (volatile int n = 0;;) ++n; int a, b;")
NUMPY = "import numpy as np\nprint(int(np.array(list(map(int, input().split()))).sum()))"


def verified(folder: Path, programs: list[str], tests: Any, fence: str = "", **settings: Any) -> tuple[Path, list[int]]:
    """The data stage's output for demonstrations with these programs, and which of them stay."""
    folder.mkdir(exist_ok=True)
    rows = [
        {"prompt": f"Add ({n}).", "completion": f"So:\n```{fence}\n{one}\n```", "tests": tests}
        for n, one in enumerate(programs)
    ]
    source = {"file": jsonl(folder / "a.jsonl", rows), "columns": {"tests": "tests"}, "verify": "tests"}
    common = {name: settings.pop(name) for name in ("packages",) if name in settings}
    output = made(folder, sft=[source | settings], **common)
    lines = (output / "sft.jsonl").read_text(encoding="utf-8").splitlines()
    return output, [int(json.loads(line)["id"].rpartition(":")[2]) for line in lines]


def test_demonstrations_in_cpp_are_compiled_and_run(tmp_path: Path) -> None:
    value = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"], "time_limit_s": 0.5}
    programs = [CPP, CPP.replace("+", "-"), "int main() { return x; }", ENDLESS, "int add(int a, int b);"]
    output, kept = verified(tmp_path, programs, value, "cpp", language="cpp")
    assert kept == [1]
    dropped = [json.loads(line) for line in (output / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(one["row"], one["verdict"]) for one in dropped] == [
        (2, "wrong"),
        (3, "wrong"),
        (4, "timeout"),
        (5, "no_answer"),
    ]
    assert dropped[1]["detail"].startswith("compile error: ")
    assert dropped[3]["detail"] == "no C++ program defines main"


def test_demonstrations_may_use_the_sandboxs_packages(tmp_path: Path) -> None:
    value = {"inputs": ["1 2\n"], "outputs": ["3\n"]}
    programs = [NUMPY, NUMPY.replace("sum", "prod"), STDIN, "import pandas\n" + STDIN]
    output, kept = verified(tmp_path, programs, value, packages=["numpy"])
    assert kept == [1, 3]
    dropped = [json.loads(line) for line in (output / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert dropped[0]["detail"] == "case 1: '2' instead of '3'"
    assert "No module named 'pandas'" in dropped[1]["detail"]


def test_the_packages_are_the_pipelines_and_only_where_demonstrations_are_run(tmp_path: Path) -> None:
    def data(**source: Any) -> Any:
        config = {
            "name": "x",
            "seed": 0,
            "benchmarks": [{"name": "gsm8k"}],
            "data": {"sft": [{"file": "a.jsonl", **source}]},
            "sft": {},
            "sandbox": {"packages": ["numpy"]},
        }
        return build_graph(PipelineConfig.model_validate(config))[0]

    assert data().settings.packages == []
    checked = data(columns={"tests": "t"}, verify="tests")
    assert checked.settings.packages == ["numpy"] == list(checked.kind.packages(checked.settings))
    with pytest.raises(ValueError, match=r"data\.packages is filled from the top-level sandbox\.packages"):
        PipelineConfig.model_validate(
            {"name": "x", "seed": 0, "benchmarks": [{"name": "gsm8k"}], "data": {"packages": ["numpy"]}}
        )


def test_a_language_that_tests_name_themselves_goes_before(tmp_path: Path) -> None:
    value = {"inputs": ["1 2\n"], "outputs": ["3\n"], "language": "python"}
    assert verified(tmp_path / "0", [STDIN], value, language="cpp")[1] == [1]
    rows = [{"prompt": "?", "completion": "?", "tests": ["assert add(1, 2) == 3"]}]
    source = {"file": jsonl(tmp_path / "b.jsonl", rows), "columns": {"tests": "tests"}, "verify": "tests"}
    error = refused(tmp_path / "1", sft=[source | {"language": "cpp"}])
    assert "language: cpp is for tests by cases; these are Python" in error.message
    with pytest.raises(ValueError, match=r"language: is that of programs with tests; name their column"):
        SourceSettings(file="a.jsonl", language="cpp")


def test_demonstrations_with_asserts_need_no_reference_program(tmp_path: Path) -> None:
    asserts = ["assert add(1, 2) == 3", "assert set([add(2, 2)]) == {4}"]
    rows = [{"prompt": f"{n}", "completion": fenced(p), "tests": asserts} for n, p in enumerate((FUNCTION, "x = 1"))]
    source = {"file": jsonl(tmp_path / "a.jsonl", rows), "columns": {"tests": "tests"}, "verify": "tests"}
    output = made(tmp_path, sft=[source])
    assert len((output / "sft.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def test_where_no_program_passes_the_first_says_why(tmp_path: Path) -> None:
    rows = [{"prompt": "?", "completion": fenced("print(1)"), "tests": {"inputs": [""], "outputs": ["2"]}}]
    source = {"file": jsonl(tmp_path / "a.jsonl", rows), "columns": {"tests": "tests"}, "verify": "tests"}
    error = refused(tmp_path, sft=[source])
    assert "none is verified; row 1 is wrong: case 1: '1' instead of '2'" in error.message


@pytest.mark.parametrize(("good", "kept"), [(98, False), (99, True)])
def test_demonstrations_that_the_grader_itself_fails_on_are_at_most_one_in_a_hundred(
    tmp_path: Path, good: int, kept: bool
) -> None:
    broken = {"inputs": ["1"], "outputs": ["1"], "checker": "def check(i, o, e): return 1 // 0"}
    tests = [broken, *[{"inputs": [""], "outputs": ["2"]}] * good]
    rows = [{"prompt": f"{n}", "completion": fenced("print(2)"), "tests": one} for n, one in enumerate(tests)]
    source = {"file": jsonl(tmp_path / "a.jsonl", rows), "columns": {"tests": "tests"}, "verify": "tests"}
    if kept:
        output = made(tmp_path, sft=[source])
        [dropped] = (json.loads(line) for line in (output / "dropped.jsonl").read_text(encoding="utf-8").splitlines())
        assert (dropped["row"], dropped["verdict"]) == (1, "grader_error")
    else:
        error = refused(tmp_path, sft=[source])
        assert "data.sft.0: the grader failed on 1 of 99 demonstrations; the first: row 1: " in error.message
        assert "ZeroDivisionError" in error.message


def test_settings_that_cannot_be_verified_are_refused() -> None:
    for wrong in ({}, {"columns": Columns(tests="t", answer="a"), "verified": True}):
        with pytest.raises(ValueError, match="verify: needs"):
            SourceSettings(file="a.jsonl", verify="tests", **wrong)
    source = {"file": "a.jsonl", "columns": {"tests": "t", "answer": "a"}}
    for chosen in ({"verify": "tests"}, {"verified": True}, {"turns": "last"}):
        for name in ("rl", "dev"):
            with pytest.raises(ValueError, match=rf"{name}\.0\.{next(iter(chosen))}: is for demonstrations"):
                DataSettings.model_validate({name: [source | chosen]})


def test_the_sandbox_is_in_the_key_where_demonstrations_are_verified() -> None:
    source = {"file": "a.jsonl", "columns": Columns(tests="t")}
    plain, verified = (
        code_of(STAGE, DataSettings(sft=[SourceSettings(**source, verify=verify)])) for verify in (None, "tests")
    )
    child = {f"evaluation/sandbox/child/{name}.py" for name in ("main", "start")}
    assert not child & plain.keys()
    assert child <= verified.keys()
