"""Multiple choice with lettered options: a thousand questions of SuperGPQA (arXiv:2502.14739), and R-Bench-T.

R-Bench-T (arXiv:2505.02018) is complete. Of SuperGPQA those questions are taken whose ids have the smallest SHA-256:
the same ones everywhere, whatever the order of the rows.
"""

import hashlib
from collections.abc import Iterable, Mapping
from string import ascii_uppercase
from typing import Any

from evaluation.benchmarks.base import Benchmark, Source
from evaluation.benchmarks.prompts import choice_prompt
from evaluation.benchmarks.rows import check_set, text
from evaluation.records import Problem, RecordError

SUPERGPQA_SIZE = 1000
RBENCH_SIZE = 1094


def parse_supergpqa(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """A thousand questions. Columns: uuid or id, question, options (a list of texts), answer_letter.

    A source with more rows (the hub's has 26,529) is cut to the thousand with the smallest SHA-256 of the id. They are
    not the thousand that a paper may have drawn, which a local file can hold.
    """
    problems = []
    for number, row in enumerate(rows, start=1):
        where = f"supergpqa, row {number}"
        name = text(row, ("uuid", "id"), where)
        problems.append(_problem("supergpqa", name, row, row.get("options"), "answer_letter", where))
    if len(problems) > SUPERGPQA_SIZE:
        problems = sorted(problems, key=lambda p: hashlib.sha256(p.id.encode()).hexdigest())[:SUPERGPQA_SIZE]
    return check_set(problems, SUPERGPQA_SIZE, "supergpqa")


def parse_rbench(split: str, rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """All 1,094 questions. Columns: index or id, question, one column an option (A, B, ...), answer."""
    problems = []
    for number, row in enumerate(rows, start=1):
        where = f"rbench_t, row {number}"
        name = next((str(row[column]) for column in ("index", "id") if row.get(column) is not None), str(number))
        options = [row[letter] for letter in ascii_uppercase if row.get(letter) is not None]
        problems.append(_problem("rbench_t", name, row, options, "answer", where))
    return check_set(problems, RBENCH_SIZE, "rbench_t")


def _problem(benchmark: str, name: str, row: Mapping[str, Any], options: Any, answer: str, where: str) -> Problem:
    texts = isinstance(options, list) and all(isinstance(option, str) for option in options)
    if not texts or not 2 <= len(options) <= len(ascii_uppercase):
        raise RecordError(f"{where}: the options must be two to {len(ascii_uppercase)} texts, not {options!r}")
    gold = text(row, (answer,), where).strip().upper()
    if gold not in ascii_uppercase[: len(options)] or len(gold) != 1:
        raise RecordError(f"{where}: the answer {gold!r} is not the letter of one of its {len(options)} options")
    return Problem(name, benchmark, "choice", choice_prompt(text(row, ("question",), where).strip(), options), gold)


SUPERGPQA = Benchmark(
    name="supergpqa",
    kind="choice",
    size=SUPERGPQA_SIZE,
    sources={"test": Source(local="supergpqa/supergpqa.jsonl", hub="m-a-p/SuperGPQA", hub_split="train")},
    parse=parse_supergpqa,
)
RBENCH = Benchmark(
    name="rbench_t",
    kind="choice",
    size=RBENCH_SIZE,
    sources={
        "test": Source(
            local="rbench_t/rbench_t.jsonl", hub="R-Bench/R-Bench", hub_config="rbench-t_en", hub_split="test"
        )
    },
    parse=parse_rbench,
)
