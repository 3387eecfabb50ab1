"""HumanEval+ (Liu et al., 2023, arXiv:2305.01210): HumanEval with about 80 times as many test inputs."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.code.evalplus import distinct, read_hub_test, release_inputs, tolerance
from evaluation.benchmarks.code.humaneval import to_problem
from evaluation.benchmarks.rows import check_set, text
from evaluation.records import Problem, RecordError

NAME = "humaneval_plus"
SIZE = 164


def parse(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Columns: task_id, prompt, canonical_solution, entry_point, with base_input, plus_input and atol, or test.

    The release has the former, the hub's data set the latter.
    """
    return check_set([to_problem(NAME, number, row, _tests) for number, row in enumerate(rows, start=1)], SIZE, NAME)


def _tests(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    if "base_input" in row:
        return {"inputs": distinct(release_inputs(row, where)), "atol": tolerance(row.get("atol"), where)}
    inputs, _, atol = read_hub_test(text(row, ("test",), where), where)
    try:
        json.dumps(inputs)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{where}: the inputs are not JSON: {error}") from error
    return {"inputs": inputs, "atol": tolerance(atol, where)}


BENCHMARK = Benchmark(
    name=NAME,
    kind="code",
    size=SIZE,
    digest="a6d287fbabae",
    sources={
        "test": Source(local="humanevalplus/HumanEvalPlus.jsonl.gz", hub="evalplus/humanevalplus", hub_split="test")
    },
    parse=parse,
)
