"""Generations from elsewhere, read as records: what a row may leave out, and what others call the same thing."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from evaluation.records import Generation, Problem, RecordError, make_record, read_rows

OWN_GOLDS = "maths"
"""In place of a benchmark's name: the rows bring their own gold answers."""
FIELDS = frozenset(field.name for field in dataclasses.fields(Generation))
FINISH_REASONS: dict[str | None, str] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_length": "length",
    "max_tokens": "length",
    "prompt_too_long": "prompt_too_long",
    "unknown": "unknown",
    None: "unknown",
}
"""What sampling programs write, in our words."""
_PREFIXES = {"humaneval": "HumanEval/", "humaneval_plus": "HumanEval/", "mbpp_plus": "Mbpp/"}


@dataclasses.dataclass(frozen=True)
class ReadRows:
    """The generations of a file by their lines, the names of fields that were not looked at, and how many rows of
    another benchmark were left out."""

    generations: dict[int, Generation]
    ignored: tuple[str, ...]
    left_out: int = 0


def read_any(benchmark: str, path: Path, problems: Mapping[str, Problem], partial: bool = False) -> ReadRows:
    """The rows of a file: complete records, or what of them is known.

    A row needs `problem_id` and `completion`; or, as evalplus writes it, `task_id` with `solution` (a whole program) or
    `completion` (what goes on with the beginning that the benchmark gives). Rows of a problem without a `sample` are
    its samples in their order. Fields that a generation does not have are left out. A file that names another benchmark
    throughout is read as this one's where the prompts are the same, whatever the ids.

    Args:
        problems: the benchmark's, by id; they have the prompts and the beginnings.
        partial: whether rows of another benchmark whose prompts this one does not have are left out.

    Raises:
        RecordError: for a row that is none of these or has another benchmark's prompt (its line is named), and a file
            without any.
    """
    generations: dict[int, Generation] = {}
    ignored: set[str] = set()
    counts: Counter[str] = Counter()
    read = [(number, row, _named(benchmark, row, problems, f"{path}:{number}")) for number, row in read_rows(path)]
    names = {named.setdefault("benchmark", benchmark) for _, _, named in read}
    answered: dict[Any, str] = {}
    if len(names) == 1 and names != {benchmark}:
        answered = _by_prompt((row.get("prompt") for _, row, _ in read), problems)
    for number, row, named in read:
        where = f"{path}:{number}"
        if named["benchmark"] != benchmark:
            if row.get("prompt") not in answered:
                if partial and answered:
                    continue
                other = f"{where}: a generation of {named['benchmark']}, not of {benchmark}"
                if len(names) > 1:
                    raise RecordError(f"{other}; leave one benchmark's rows in the file")
                hint = "; --partial leaves such rows out" if answered else ""
                raise RecordError(f"{other}, which has no problem with this prompt{hint}")
            named |= {"benchmark": benchmark, "problem_id": answered[row["prompt"]]}
        problem_id = named["problem_id"]
        named["finish_reason"] = _finish_reason(named.get("finish_reason"), where)
        unsaid = {"sample": counts[problem_id], "prompt": "", "prompt_tokens": 0, "completion_tokens": 0, "seed": None}
        known = {name: value for name, value in named.items() if name in FIELDS}
        generations[number] = make_record(unsaid | known, Generation, where)
        counts[problem_id] += 1
        ignored |= named.keys() - FIELDS
    if not generations:
        raise RecordError(f"{path}: no generations")
    return ReadRows(generations, tuple(sorted(ignored)), len(read) - len(generations))


def _by_prompt(prompts: Iterable[Any], problems: Mapping[str, Problem]) -> dict[Any, str]:
    """A prompt as it was sent -> the id of the problem that it asks.

    It is the beginning of a program that the problem gives, or it holds the user message, after any examples. What
    stands around that, such as the chat template, has to be the same in all prompts: 12+2 does not ask 2+2.
    """
    beginnings = {problem.meta.get("completion"): name for name, problem in problems.items()}
    messages = {text: name for name, problem in problems.items() if (text := problem.prompt.strip())}
    found: dict[str, tuple[str, tuple[str, str]]] = {}
    for sent in {prompt for prompt in prompts if isinstance(prompt, str) and prompt}:
        if sent in beginnings:
            found[sent] = beginnings[sent], ("", "")
        elif held := [text for text in messages if text in sent]:
            last = max(held, key=lambda text: (sent.rindex(text) + len(text), len(text)))
            before, _, after = sent.rpartition(last)
            found[sent] = messages[last], (before.rstrip(), after.lstrip())
    usual = Counter(around for _, around in found.values()).most_common(1)
    return {sent: name for sent, (name, around) in found.items() if around == usual[0][0]}


def read_own_golds(path: Path) -> tuple[ReadRows, dict[str, Problem]]:
    """Rows that have `gold` too, text or a number; those of one problem must agree on it."""
    problems: dict[str, Problem] = {}
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        if not {"problem_id", "gold"} <= row.keys():
            needed = "a row needs problem_id, completion and gold"
            raise RecordError(f"{where}: {needed}; this one has {', '.join(sorted(row))}")
        name, gold = _id(row["problem_id"], where), _gold(row["gold"], where)
        known = problems.setdefault(name, Problem(name, OWN_GOLDS, "maths", "", gold))
        if known.gold != gold:
            raise RecordError(f"{where}: the gold answer of {name} is {gold!r} here and {known.gold!r} before")
    read = read_any(OWN_GOLDS, path, problems)
    return dataclasses.replace(read, ignored=tuple(name for name in read.ignored if name != "gold")), problems


def _named(benchmark: str, row: Mapping[str, Any], problems: Mapping[str, Problem], where: str) -> dict[str, Any]:
    """The row under our names, with its problem's id as the benchmark writes it."""
    if {"problem_id", "completion"} <= row.keys():
        return {**row, "problem_id": _id(row["problem_id"], where)}
    if "task_id" not in row or not {"solution", "completion"} & row.keys():
        needed = "a row needs problem_id and completion, or task_id with solution or completion"
        raise RecordError(f"{where}: {needed}; this one has {', '.join(sorted(row))}")
    name = _benchmarks_id(benchmark, _id(row["task_id"], where))
    rest = {key: value for key, value in row.items() if key not in ("task_id", "solution", "completion", "prompt")}
    if "solution" in row:
        return {**rest, "problem_id": name, "completion": row["solution"]}
    beginning = problems[name].meta.get("completion") if name in problems else None
    if name in problems and not isinstance(beginning, str):
        missing = f"{benchmark} {name} has no beginning that a completion could go on with"
        raise RecordError(f"{where}: {missing}; name it problem_id instead")
    return {**rest, "problem_id": name, "completion": row["completion"], "prompt": beginning or ""}


def _id(value: Any, where: str) -> str:
    """A problem's id as text: MBPP's are numbers in some files."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise RecordError(f"{where}: the problem's id is {value!r:.80}, not text or a whole number")


def _benchmarks_id(benchmark: str, task_id: str) -> str:
    """evalplus' id of a task as the benchmark has it: plain MBPP's are the numbers without a prefix; others' may lack
    theirs."""
    if benchmark in ("mbpp", "mbpp_sanitized"):
        return task_id.removeprefix("Mbpp/")
    return _PREFIXES[benchmark] + task_id if benchmark in _PREFIXES and task_id.isdecimal() else task_id


def _finish_reason(value: Any, where: str) -> str:
    if (value is None or isinstance(value, str)) and value in FINISH_REASONS:
        return FINISH_REASONS[value]
    known = ", ".join(name for name in FINISH_REASONS if name)
    raise RecordError(f"{where}: finish_reason is {value!r:.80}, not one of {known}, or null where it is not known")


def _gold(value: Any, where: str) -> str:
    if isinstance(value, str) and value.strip():
        return value
    if type(value) is int or (isinstance(value, float) and math.isfinite(value)):
        return format(Decimal(repr(value)), "f")  # 1e22 as digits, which every grader reads
    raise RecordError(f"{where}: gold is {value!r:.80}, not text or a number")
