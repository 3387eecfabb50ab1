"""The reward of a completion: the weighted sum of `Rewards.parts`.

These are the verdict of the evaluation's own grader, the form of the answer, penalties, and functions of a user's own.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trl.rewards import get_repetition_penalty_reward, get_soft_overlong_punishment

from evaluation.engines.base import text_of
from evaluation.graders.extraction import after_thinking, continue_prompt
from evaluation.grading import Grader
from evaluation.records import VERDICTS, Problem
from stages.grpo.custom import RewardFunction, load_reward
from stages.grpo.settings import GrpoSettings
from stages.harness.context import StageError
from stages.training import distributed
from stages.training.custom_code import NO_DIGESTS

Ids = Sequence[Sequence[int]]
TrlReward = Callable[..., list[float]]
Reader = Callable[[Sequence[int]], tuple[str, str]]
"""Token ids of a completion -> its text and finish reason."""
FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)


def make_grader(settings: GrpoSettings) -> Grader:
    """The evaluation's grader, with the limits that these settings give it."""
    limits = settings.maths_timeout_s, settings.code_timeout_s, settings.memory_mib
    partial = settings.rewards.partial
    return Grader(settings.grader_workers, *limits, packages=settings.packages, count_cases=partial)


def make_reader(tokenizer: Any, eos_token_ids: Sequence[int], prompt_end: str = "") -> Reader:
    """Decodes completions exactly as the evaluation does; one without an end token at its end counts as cut (`length`).

    `prompt_end` is what a prompt ends with: where the chat template opens a <think> there, a completion is thinking
    until it closes it.
    """

    def read(ids: Sequence[int]) -> tuple[str, str]:
        finished = bool(ids) and ids[-1] in eos_token_ids
        return continue_prompt(prompt_end, text_of(tokenizer, ids, ())), "stop" if finished else "length"

    return read


class Rewards:
    """Reward functions for TRL's GRPOTrainer over a fixed list of problems.

    The dataset's column `problem` holds the index of each row's problem: first those that are trained on, then `dev`,
    of which right answers are counted.
    """

    def __init__(self, problems: Sequence[Problem], grader: Grader, read: Reader, dev: Sequence[Problem] = ()) -> None:
        self._problems, self._first_dev = [*problems, *dev], len(problems)
        self._grader, self._read_one = grader, read
        self._dev_verdicts: list[tuple[int, bool]] = []
        self._graded = self._failed = 0
        self._failure = ""
        self._partial = False
        self._last_read: tuple[Ids, list[str], list[str]] = ([], [], [])

    def parts(
        self, settings: GrpoSettings, code_digests: Mapping[str, str] = NO_DIGESTS
    ) -> tuple[list[TrlReward], list[float]]:
        """The reward functions that these settings ask for, named as TRL logs them, and their weights.

        `correct` and `format` are always among them: their curves exist even at weight 0. Raises StageError where a
        function of the user's own cannot be loaded; called, it raises it for what is no reward.

        Args:
            code_digests: file -> the sha256 that it has to have; see `load_custom`.
        """
        chosen = settings.rewards
        self._partial = chosen.partial
        parts: list[tuple[float, TrlReward]] = [(chosen.correct, self.correct), (chosen.format, self.format)]
        if chosen.overlong:
            parts.append((chosen.overlong, self._overlong(settings.max_completion_length, chosen.overlong_buffer)))
        if chosen.repetition:  # minus the share of n-grams of tokens that occurred before
            repetition: TrlReward = get_repetition_penalty_reward(chosen.repetition_ngram)
            repetition.__name__ = "repetition"
            parts.append((chosen.repetition, repetition))
        for part in chosen.custom:
            function = load_reward(part, code_digests)
            parts.append((part.weight, self._custom(part.function, function)))
        return [function for _, function in parts], [weight for weight, _ in parts]

    def correct(
        self, completion_ids: Ids, problem: Sequence[int], log_metric: Callable[[str, float], None], **_: Any
    ) -> list[float]:
        """1 where the grader says `correct`, else 0, or where partial credit is given the share of the cases that the
        program passed; logs the count of each verdict of the step."""
        problems = [self._problems[index] for index in problem]
        graded = self._grader.grade(list(zip(problems, *self._read(completion_ids), strict=True)))
        right = [grade.verdict == "correct" for grade in graded]
        self._dev_verdicts += [pair for pair in zip(problem, right, strict=True) if pair[0] >= self._first_dev]
        # Over all processes: TRL logs the mean of what each of them says.
        failure = next((grade.detail for grade in graded if grade.verdict == "grader_error"), "")
        gathered = distributed.gather((Counter(grade.verdict for grade in graded), failure))
        counts = sum((verdicts for verdicts, _ in gathered), Counter[str]())
        for verdict in VERDICTS:
            log_metric(f"verdicts/{verdict}", float(counts[verdict]))
        self._graded += counts.total()
        self._failed += counts["grader_error"]
        self._failure = next((detail for _, detail in gathered if detail), self._failure)
        if self._partial:
            return [
                one if grade.share is None else grade.share
                for one, grade in zip(map(float, right), graded, strict=True)
            ]
        return list(map(float, right))

    def format(self, completion_ids: Ids, problem: Sequence[int], **_: Any) -> list[float]:
        """1 where the completion has the form that its kind of problem asks for, else 0."""
        texts = zip(problem, self._read(completion_ids)[0], strict=True)
        return [float(has_answer_form(self._problems[index].kind, text)) for index, text in texts]

    def _overlong(self, limit: int, buffer: int) -> TrlReward:
        """DAPO's penalty, 0 to -1 over the last `buffer` tokens before `limit`; -1 at any length where it was cut."""
        penalty = get_soft_overlong_punishment(limit, buffer)

        def overlong(completion_ids: Ids, **_: Any) -> list[float]:
            penalties = zip(penalty(completion_ids=completion_ids), self._read(completion_ids)[1], strict=True)
            return [value if reason == "stop" else -1.0 for value, reason in penalties]

        return overlong

    def _custom(self, name: str, function: RewardFunction) -> TrlReward:
        def custom(completion_ids: Ids, problem: Sequence[int], **_: Any) -> list[float]:
            problems = [self._problems[index] for index in problem]
            return function(problems, *map(list, self._read(completion_ids)))  # lists that it may change

        custom.__name__ = name
        return custom

    def _read(self, completion_ids: Ids) -> tuple[list[str], list[str]]:
        """Texts and finish reasons. TRL hands the same list to every part of the reward: it is decoded once."""
        if completion_ids is not self._last_read[0]:
            texts, reasons = zip(*map(self._read_one, completion_ids), strict=True)
            self._last_read = completion_ids, list(texts), list(reasons)
        return self._last_read[1:]

    def check_grader(self, when: str, max_error_share: float) -> None:
        """Raise StageError where the grader itself failed on more than `max_error_share` of all processes' completions
        since the last check. A step may grade in several calls, of a single one of which a failure is a large share."""
        graded, failed = self._graded, self._failed
        self._graded = self._failed = 0
        if failed > max_error_share * graded:
            raise StageError(
                f"the grader failed on {failed} of {graded} completions of {when}: {self._failure}",
                "Repair the grader's environment; `grpo.max_grader_error_share` bounds the share.",
            )

    def take_dev_verdicts(self) -> list[tuple[int, bool]]:
        """(problem, right) of each completion of a dev problem that this process has graded since the last call."""
        taken, self._dev_verdicts = self._dev_verdicts, []
        return taken


def has_answer_form(kind: str, completion: str) -> bool:
    """Whether there is exactly one complete, non-empty \\boxed{} (maths), or exactly one closed fenced block (code).

    It must be where the grader reads it, after the thinking: a form paid for elsewhere teaches answers never seen.
    """
    answer = after_thinking(completion)
    if answer is None:
        return False
    if kind == "code":
        return len(FENCE.findall(completion)) == len(FENCE.findall(answer)) == 2
    boxes = completion.count("\\boxed{"), answer.count("\\boxed{")
    return boxes == (1, 1) and _boxed_is_complete(answer.partition("\\boxed{")[2])


def _boxed_is_complete(rest: str) -> bool:
    """Whether the box whose content starts `rest` is closed and not empty."""
    depth = 1
    for place, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return bool(rest[:place].strip())
    return False
