"""Training rows out of the sources of a config: demonstrations for SFT, problems for RL, each with what it asks."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from evaluation.benchmarks import get
from evaluation.conversations import Turn
from evaluation.custom_problems import never_equal
from evaluation.graders.extraction import after_thinking
from evaluation.graders.notation import clean
from evaluation.records import Kind, Problem, RecordError
from stages.data.programs import row_tests
from stages.data.questions import Question, question
from stages.data.reading import Dropped, load_task, read, seed_of
from stages.data.settings import DataSettings, SourceSettings
from stages.data.turns import answers_of, gold_of, request_in
from stages.data.values import weight_of
from stages.harness.context import Context, StageError

Row = dict[str, Any]
T = TypeVar("T", Row, Problem)
Questions = tuple[Question, ...]
"""What each message of the user asks."""


@dataclasses.dataclass(frozen=True)
class TrainingRow(Generic[T]):
    """What is written for training (`content`, under its `id`), and what it asks without the words of a template."""

    id: str
    content: T
    questions: Questions


def labelled(section: str, sources: Sequence[SourceSettings]) -> Iterator[tuple[str, SourceSettings, str]]:
    """What the rows of each source are called by. Two files of one name in different folders, or two splits of one
    dataset, are told apart: ids would else mean two rows."""
    times: Counter[str] = Counter()
    for index, source in enumerate(sources):
        name = source.task or Path(source.file or source.hub or "").name
        times[name] += 1
        yield f"{section}.{index}", source, name if times[name] == 1 else f"{name}#{times[name]}"


def demonstrations(
    source: SourceSettings, name: str, label: str, ctx: Context[DataSettings], dropped: list[Dropped]
) -> list[TrainingRow[Row]]:
    """The SFT rows of one source; those that are not verified are added to `dropped`. Raises `StageError`, with the
    row's number where one row is the reason."""
    if source.task is not None:
        task = get(source.task)
        problems = _task_problems(source, label, ctx)
        if task.demonstrate is None:
            raise StageError(
                f"{label}: {task.name} has no demonstrations", "Use another task, or a file with a completion column."
            )
        try:
            completions = task.demonstrate(problems, seed_of(source, ctx))
        except RecordError as error:
            fix = "Correct that row of the task's file; docs/data.md has its columns."
            raise StageError(f"{label}: {error}", fix) from None
        return [
            _demonstration(f"{name}/{p.id}", name, [_turn("user", p.prompt)], _turn("assistant", completion))
            for p, completion in zip(problems, completions, strict=True)
        ]
    rows = []
    column = source.columns.weight
    for number, row in read(source, label, ctx, dropped):
        answers = answers_of(row, source, label, number)
        weight = {} if column is None else {"weight": weight_of(row, column, label, number)}
        for nth, (turns, answer) in enumerate(answers, start=1):
            answered = after_thinking(answer["content"])
            if answered is None or not answered.strip():
                what = "a <think> that is never closed" if answered is None else "a thought and nothing after it"
                raise StageError(
                    f"{label}: row {number}: an answer has {what}, so it answers nothing",
                    "Correct or remove that row: what comes after the thought begins with </think>.",
                )
            id = f"{name}:{number}" if len(answers) == 1 else f"{name}:{number}.{nth}"
            worded = _worded(source, turns, [], f"{label}: row {number}")
            rows.append(_demonstration(id, name, worded, answer, _questions(turns), weight))
    if rows and column is not None and not any(row.content["weight"] for row in rows):
        raise StageError(
            f"{label}: all {len(rows)} weights in the column {column!r} are 0, and nothing would be learnt of it",
            f"Correct {label}.columns.weight, or leave the source out.",
        )
    return rows


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}


def _demonstration(
    id: str,
    source: str,
    prompt: list[Turn],
    answer: Turn,
    asked: Questions | None = None,
    weight: Mapping[str, float] = MappingProxyType({}),
) -> TrainingRow[Row]:
    content = {"id": id, "source": source, "prompt": prompt, "completion": [answer], **weight}
    return TrainingRow(id, content, _questions(prompt) if asked is None else asked)


def _questions(turns: Sequence[Turn]) -> Questions:
    return tuple(question(turn["content"]) for turn in turns if turn["role"] == "user")


def rl_problems(
    source: SourceSettings, name: str, label: str, ctx: Context[DataSettings]
) -> list[TrainingRow[Problem]]:
    """The RL problems of one source. Raises `StageError`, with the row's number where one row is the reason."""
    if source.task is not None:
        return [TrainingRow(p.id, p, (question(p.prompt),)) for p in _task_problems(source, label, ctx)]
    columns = source.columns
    if columns.answer is None and columns.tests is None:
        raise StageError(f"{label}: columns.answer is not set", "Name the column with the gold answer.")
    kind: Kind = "maths" if columns.tests is None else "code"
    problems = []
    for number, row in read(source, label, ctx):
        turns = request_in(row, columns, label, number)
        gold = "" if columns.answer is None else gold_of(row, columns.answer, label, number)
        tests = row_tests(row, columns, gold, label, number, language=source.language)
        *context, asked = _worded(source, turns, tests.get("asserts", []), f"{label}: row {number}")
        problem = Problem(f"{name}:{number}", name, kind, asked["content"], gold, tests, context=context)
        problems.append(TrainingRow(problem.id, problem, _questions(turns)))
    _note_unwinnable([row.content for row in problems], label, ctx)
    return problems


def _note_unwinnable(problems: Sequence[Problem], label: str, ctx: Context[DataSettings]) -> None:
    """Say which prompts can earn no reward, and which seem to have two answers: RL learns nothing of them, or noise."""
    lost = [(p, reason) for p in problems if p.kind == "maths" and (reason := never_equal("maths", p.gold)) is not None]
    if lost:
        problem, reason = lost[0]
        count = f"{len(lost)} of {len(problems)} prompts have a gold answer that no answer can equal"
        ctx.note(f"{label}: {count}; the first is {problem.id}, {problem.gold!r:.60}: {reason}")
    golds: dict[str, Problem] = {}
    for problem in problems:
        first = golds.setdefault(f"{problem.context} {problem.prompt}", problem)
        if problem.kind == "maths" and clean(first.gold) != clean(problem.gold):
            what = f"the same prompt with the gold answers {first.gold!r:.60} and {problem.gold!r:.60}"
            why = "unless they are two forms of one, one of them cannot be right"
            ctx.note(f"{label}: {first.id} and {problem.id} (perhaps others) are {what}: {why}")
            return


def refuse_repeated(problems: Sequence[TrainingRow[Problem]], label: str) -> None:
    """Pass rates and groups of completions go by the problem's id. Raises `StageError` where two problems have one."""
    repeated, times = Counter(problem.id for problem in problems).most_common(1)[0] if problems else ("", 1)
    if times > 1:
        raise StageError(
            f"{label}: the problem {repeated} is there {times} times",
            "A task is listed twice: give one more rows instead.",
        )


def _task_problems(source: SourceSettings, label: str, ctx: Context[DataSettings]) -> list[Problem]:
    assert source.task is not None
    return load_task(
        get(source.task), source.split, source.rows, seed_of(source, ctx), label, ctx, shuffle=source.shuffle
    )


def _worded(source: SourceSettings, turns: list[Turn], asserts: Sequence[str], where: str) -> list[Turn]:
    """The turns, with what the user says in the source's template: in one pass, since it may hold a {tests} of its
    own."""
    if source.template is None:
        return turns
    if "{tests}" in source.template and not asserts:
        raise StageError(f"{where}: the template shows {{tests}}, and the row has no asserts", "Leave out {tests}.")
    said = [turn["content"] for turn in turns if turn["role"] == "user"]
    if len(said) > 1:
        raise StageError(f"{where}: the user speaks {len(said)} times, a template words one message", "Leave it out.")
    values = {"{prompt}": said[0]} | ({"{tests}": "\n".join(asserts)} if source.columns.tests is not None else {})
    worded = re.sub("|".join(map(re.escape, values)), lambda place: values[place[0]], source.template)
    return [_turn("user", worded) if turn["role"] == "user" else turn for turn in turns]
