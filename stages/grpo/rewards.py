"""The reward: the verdict of the evaluation's own grader, and a small part for the form of the answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from evaluation.engines.base import text_of
from evaluation.grading import Grader
from evaluation.records import VERDICTS, Problem
from stages.runtime import StageError

_FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)


class Rewards:
    """Reward functions for TRL's GRPOTrainer over a fixed list of problems.

    The dataset's column `problem` holds the index of each row's problem. Completions are decoded from their ids exactly as the
    evaluation decodes them, and one that does not end with an end token counts as cut at the length limit.
    """

    def __init__(self, problems: Sequence[Problem], grader: Grader, tokenizer: Any, ends: Sequence[int], max_error_share: float) -> None:
        self._problems = problems
        self._grader = grader
        self._tokenizer = tokenizer
        self._ends = set(ends)
        self._max_error_share = max_error_share

    def correct(
        self, completion_ids: Sequence[Sequence[int]], problem: Sequence[int], log_metric: Callable[[str, float], None], **_: Any
    ) -> list[float]:
        """1 where the grader says `correct`, else 0; logs the count of each verdict of this batch.

        Raises:
            StageError: the grader itself failed on more than the allowed share.
        """
        items = [(self._problems[index], *self._decoded(ids)) for index, ids in zip(problem, completion_ids, strict=True)]
        graded = self._grader.grade(items)
        counts = Counter(grade.verdict for grade in graded)
        for verdict in VERDICTS:
            log_metric(f"verdicts/{verdict}", float(counts[verdict]))
        if counts["grader_error"] > self._max_error_share * len(graded):
            detail = next(grade.detail for grade in graded if grade.verdict == "grader_error")
            raise StageError(
                f"the grader failed on {counts['grader_error']} of {len(graded)} completions of a step: {detail}",
                "Repair the grader's environment; `grpo.max_grader_error_share` bounds the share.",
            )
        return [1.0 if grade.verdict == "correct" else 0.0 for grade in graded]

    def format(self, completion_ids: Sequence[Sequence[int]], problem: Sequence[int], **_: Any) -> list[float]:
        """1 where the completion has the asked form, else 0."""
        return [
            float(has_answer_form(self._problems[index].kind, self._decoded(ids)[0]))
            for index, ids in zip(problem, completion_ids, strict=True)
        ]

    def _decoded(self, ids: Sequence[int]) -> tuple[str, str]:
        """Text and finish reason of one completion."""
        finished = bool(ids) and ids[-1] in self._ends
        return text_of(self._tokenizer, ids, ()), "stop" if finished else "length"


def has_answer_form(kind: str, completion: str) -> bool:
    """Exactly one complete, non-empty \\boxed{} (maths), or exactly one closed fenced block (code)."""
    if kind == "code":
        return len(_FENCE.findall(completion)) == 2
    return completion.count("\\boxed{") == 1 and _boxed_is_complete(completion.partition("\\boxed{")[2])


def _boxed_is_complete(rest: str) -> bool:
    """Whether the box whose content starts `rest` is closed and not empty."""
    depth = 1
    for place, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return bool(rest[:place].strip())
    return False
