"""The reward: the verdict of the evaluation's own grader, the form of the answer, penalties, and functions of the user's own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from evaluation.engines.base import text_of
from evaluation.graders.extraction import after_thinking, continue_prompt
from evaluation.grading import Grader
from evaluation.records import VERDICTS, Problem
from stages.grpo.custom import RewardFunction, load_reward
from stages.grpo.settings import GrpoSettings
from stages.grpo.shaping import overlong_penalty, repetition_penalty
from stages.harness.context import StageError
from stages.training import distributed

TrlReward = Callable[..., list[float]]

_FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)


class Rewards:
    """Reward functions for TRL's GRPOTrainer over a fixed list of problems.

    The dataset's column `problem` holds the index of each row's problem. Completions are decoded from their ids exactly as the
    evaluation decodes them, and one that does not end with an end token counts as cut at the length limit. `prompt_end` is what a prompt
    ends with: where the chat template opens a <think> there, the completion counts as thinking until it closes it, as in the evaluation.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        grader: Grader,
        tokenizer: Any,
        ends: Sequence[int],
        max_error_share: float,
        prompt_end: str = "",
        dev_from: int | None = None,
    ) -> None:
        """`dev_from` is the index of the first problem that is only looked at, not trained on: right answers to these are counted."""
        self._dev_from = len(problems) if dev_from is None else dev_from
        self._dev_verdicts: list[tuple[int, bool]] = []
        self._graded = self._failed = 0
        self._failure = ""
        self._prompt_end = prompt_end
        self._problems = problems
        self._grader = grader
        self._tokenizer = tokenizer
        self._ends = set(ends)
        self._max_error_share = max_error_share

    def correct(
        self,
        completion_ids: Sequence[Sequence[int]],
        problem: Sequence[int],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        """1 where the grader says `correct`, else 0; logs the count of each verdict of the step."""
        items = [
            (self._problems[index], *self._decoded(ids)) for index, ids in zip(problem, completion_ids, strict=True)
        ]
        graded = self._grader.grade(items)
        self._dev_verdicts += [
            (index, grade.verdict == "correct")
            for grade, index in zip(graded, problem, strict=True)
            if index >= self._dev_from
        ]
        # Over all processes: TRL logs the mean of what each of them says.
        failure = next((grade.detail for grade in graded if grade.verdict == "grader_error"), "")
        gathered = distributed.gather((Counter(grade.verdict for grade in graded), failure))
        counts = sum((of_one for of_one, _ in gathered), Counter[str]())
        for verdict in VERDICTS:
            log_metric(f"verdicts/{verdict}", float(counts[verdict]))
        self._graded += counts.total()
        self._failed += counts["grader_error"]
        self._failure = next((detail for _, detail in gathered if detail), self._failure)
        return [1.0 if grade.verdict == "correct" else 0.0 for grade in graded]

    def check_grader(self, when: str) -> None:
        """Whether the grader itself works: over all that all processes have graded since this was last asked, a step or a look at the dev
        problems. A step may grade in several calls, some of a single group, of which one failure would be a large share.

        Raises:
            StageError: the grader failed on more than the allowed share.
        """
        graded, failed = self._graded, self._failed
        self._graded = self._failed = 0
        if failed > self._max_error_share * graded:
            raise StageError(
                f"the grader failed on {failed} of {graded} completions of {when}: {self._failure}",
                "Repair the grader's environment; `grpo.max_grader_error_share` bounds the share.",
            )

    def take_dev_verdicts(self) -> list[tuple[int, bool]]:
        """(problem, right) of each completion of a dev problem that this process has graded since this was last asked."""
        taken, self._dev_verdicts = self._dev_verdicts, []
        return taken

    def format(self, completion_ids: Sequence[Sequence[int]], problem: Sequence[int], **_: Any) -> list[float]:
        """1 where the completion has the asked form, else 0."""
        return [
            float(has_answer_form(self._problems[index].kind, self._decoded(ids)[0]))
            for index, ids in zip(problem, completion_ids, strict=True)
        ]

    def parts(self, settings: GrpoSettings) -> tuple[list[TrlReward], list[float]]:
        """The reward functions that these settings ask for, named as TRL logs them, and their weights.

        `correct` and `format` are always among them, so that their curves exist even at weight 0.

        Raises:
            StageError: a function of the user's own cannot be loaded; later, it returns what is no reward.
        """
        chosen = settings.rewards
        functions: list[TrlReward] = [self.correct, self.format]
        weights = [chosen.correct, chosen.format]
        if chosen.overlong:
            functions.append(self._overlong(settings.max_completion_length, chosen.overlong_buffer))
            weights.append(chosen.overlong)
        if chosen.repetition:
            functions.append(self._repetition(chosen.repetition_ngram))
            weights.append(chosen.repetition)
        for part in chosen.custom:
            functions.append(self._custom(part.function, load_reward(part)))
            weights.append(part.weight)
        return functions, weights

    def _overlong(self, limit: int, buffer: int) -> TrlReward:
        def overlong(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
            return [overlong_penalty(len(ids), self._finished(ids), limit, buffer) for ids in completion_ids]

        return overlong

    def _repetition(self, ngram: int) -> TrlReward:
        def repetition(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
            return [repetition_penalty(ids, ngram) for ids in completion_ids]

        return repetition

    def _custom(self, name: str, function: RewardFunction) -> TrlReward:
        def custom(completion_ids: Sequence[Sequence[int]], problem: Sequence[int], **_: Any) -> list[float]:
            decoded = [self._decoded(ids) for ids in completion_ids]
            return function(
                [self._problems[index] for index in problem],
                [text for text, _ in decoded],
                [reason for _, reason in decoded],
            )

        custom.__name__ = name
        return custom

    def _finished(self, ids: Sequence[int]) -> bool:
        return bool(ids) and ids[-1] in self._ends

    def _decoded(self, ids: Sequence[int]) -> tuple[str, str]:
        """Text and finish reason of one completion."""
        return continue_prompt(self._prompt_end, text_of(self._tokenizer, ids, ())), "stop" if self._finished(
            ids
        ) else "length"


def has_answer_form(kind: str, completion: str) -> bool:
    """Exactly one complete, non-empty \\boxed{} (maths), or exactly one closed fenced block (code), and that where the grader reads it:
    after the thinking. A form that is paid for where it is not read teaches answers that are never seen."""
    answer = after_thinking(completion)
    if answer is None:
        return False
    if kind == "code":
        return len(_FENCE.findall(completion)) == len(_FENCE.findall(answer)) == 2
    return completion.count("\\boxed{") == answer.count("\\boxed{") == 1 and _boxed_is_complete(
        answer.partition("\\boxed{")[2]
    )


def _boxed_is_complete(rest: str) -> bool:
    """Whether the box whose content starts `rest` is closed and not empty."""
    depth = 1
    for place, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return bool(rest[:place].strip())
    return False
