"""The reward: the evaluation's verdicts on the text that the evaluation would see, the form of an answer, penalties."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.grading import Graded, Grader
from evaluation.records import Problem
from stages.grpo.custom import load_reward
from stages.grpo.rewards import Rewards, has_answer_form, make_grader, make_reader
from stages.grpo.settings import CustomReward, GrpoSettings, RewardSettings
from stages.harness.context import StageError, StageStopped
from stages.training import distributed
from tests.tiny import make_tiny_tokenizer

MATHS = Problem("m", "sums", "maths", "2+2?", "4")
CODE = Problem("c", "programs", "code", "Write f.", "def f(): pass", {})


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1) as opened:
        yield opened


def rewards_of(grader: Any, prompt_end: str = "") -> tuple[Rewards, Any]:
    tokenizer = make_tiny_tokenizer()
    return Rewards([MATHS, CODE], grader, make_reader(tokenizer, [tokenizer.eos_token_id], prompt_end)), tokenizer


def test_correct_is_the_graders_verdict_and_every_verdict_is_counted(grader: Grader) -> None:
    rewards, tokenizer = rewards_of(grader)
    texts = ["2+2=4. \\boxed{4}", "\\boxed{5}", "four", "\\boxed{4.0}"]
    ids = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
    logged: dict[str, float] = {}
    correct = rewards.correct(completion_ids=ids, problem=[0] * 4, log_metric=logged.__setitem__, prompts=[])
    assert correct == [1.0, 0.0, 0.0, 1.0]
    counts = {"correct": 2.0, "wrong": 1.0, "no_answer": 1.0, "timeout": 0.0, "grader_error": 0.0}
    assert logged == {f"verdicts/{verdict}": count for verdict, count in counts.items()}
    assert rewards.format(completion_ids=ids, problem=[0] * 4) == [1.0, 1.0, 0.0, 1.0]


def test_a_template_that_opens_the_thinking_is_heeded(grader: Grader) -> None:
    """Without </think> such a completion is all thinking: the evaluation finds no answer in it, nor may the reward."""
    for prompt_end, expected in (("assistant\n<think>\n", [0.0, 1.0]), ("assistant\n", [1.0, 1.0])):
        rewards, tokenizer = rewards_of(grader, prompt_end)
        texts = "so \\boxed{4}", "so</think>\\boxed{4}"
        ids = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
        correct = rewards.correct(completion_ids=ids, problem=[0] * 2, log_metric=lambda name, value: None, prompts=[])
        assert correct == expected
        assert rewards.format(completion_ids=ids, problem=[0] * 2) == expected


class _Recording:
    """A grader that notes what it is asked and answers from a list: only the boundary to it is under test here."""

    def __init__(self, verdicts: list[str]) -> None:
        self.verdicts, self.items = verdicts, []  # type: ignore[var-annotated]

    def grade(self, items: list[Any]) -> list[Graded]:
        self.items = items
        return [Graded(verdict, None, "sandbox is gone") for verdict in self.verdicts]  # type: ignore[arg-type]


def test_a_completion_without_end_token_counts_as_cut() -> None:
    recording = _Recording(["wrong", "wrong"])
    rewards, tokenizer = rewards_of(recording)
    ids = tokenizer("\\boxed{4}")["input_ids"]
    both = [ids, [*ids, tokenizer.eos_token_id]]
    rewards.correct(completion_ids=both, problem=[0, 1], log_metric=lambda name, value: None)
    assert recording.items == [(MATHS, "\\boxed{4}", "length"), (CODE, "\\boxed{4}", "stop")]


def graded(rewards: Rewards, recording: _Recording, verdicts: list[str]) -> list[float]:
    recording.verdicts = verdicts
    count = len(verdicts)
    return rewards.correct(completion_ids=[[5]] * count, problem=[0] * count, log_metric=lambda name, value: None)


def test_grader_errors_above_the_share_of_a_step_stop_the_run() -> None:
    """A step grades in as many calls as it samples; the share is of all of them, and of no step before."""
    recording = _Recording([])
    rewards, _ = rewards_of(recording)
    assert graded(rewards, recording, ["grader_error"]) == [0.0]
    assert graded(rewards, recording, ["correct", "timeout", "wrong"]) == [1.0, 0.0, 0.0]
    rewards.check_grader("step 1", 0.25)
    graded(rewards, recording, ["grader_error", "correct"])
    with pytest.raises(StageError, match="grader failed on 1 of 2 completions of step 2: sandbox is gone"):
        rewards.check_grader("step 2", 0.25)
    rewards.check_grader("step 3", 0.25)  # which used completions of the step before


def test_the_share_of_grader_errors_is_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has no failure to tell of, the other has two of a hundred: 1 % of all completions."""
    other = (Counter(grader_error=2, wrong=98), "no space left")
    monkeypatch.setattr(distributed, "gather", lambda value: [value, other])
    for share, stops in ((0.01, False), (0.009, True)):
        recording = _Recording([])
        rewards, _ = rewards_of(recording)
        graded(rewards, recording, ["wrong"] * 100)
        if stops:
            with pytest.raises(StageError, match="grader failed on 2 of 200 completions of step 1: no space left"):
                rewards.check_grader("step 1", share)
        else:
            rewards.check_grader("step 1", share)


@pytest.mark.parametrize(
    ("kind", "completion", "good"),
    [
        ("maths", "so \\boxed{4}.", True),
        ("maths", "\\boxed{\\frac{1}{2}}", True),
        ("maths", "\\boxed{4} or \\boxed{5}", False),
        ("maths", "\\boxed{\\boxed{4}}", False),
        ("maths", "\\boxed{4", False),
        ("maths", "\\boxed{ }", False),
        ("maths", "4", False),
        ("maths", "<think>\n2+2=4\n</think>\n\\boxed{4}", True),
        ("maths", "<think>\n2+2=4\n\\boxed{4}", False),
        ("maths", "<think>\n\\boxed{4}</think> so it is 4", False),
        ("maths", "<think>\n\\boxed{4}</think> \\boxed{4}", False),
        ("code", "<think>\n```python\ndef f(): pass\n```", False),
        ("code", "```python\ndef f(): pass\n```", True),
        ("code", "Here:\n```\nx\n```\nDone.", True),
        ("code", "```python\ndef f(): pass", False),
        ("code", "```\na\n```\n```\nb\n```", False),
        ("code", "def f(): pass", False),
        ("code", "inline ``` fence ``` only", False),
    ],
)
def test_form_of_an_answer(kind: str, completion: str, good: bool) -> None:
    assert has_answer_form(kind, completion) is good


@pytest.mark.parametrize(
    ("tokens", "finished", "penalty"),
    [
        (1, True, 0),
        (80, True, 0),
        (85, True, -0.25),
        (90, True, -0.5),
        (100, True, -1),
        (3, False, -1),
        (100, False, -1),
    ],
)
def test_overlong_penalty_grows_over_the_buffer_and_a_cut_completion_has_all_of_it(
    tokens: int, finished: bool, penalty: float
) -> None:
    overlong, tokenizer = part("overlong", max_completion_length=100, overlong_buffer=20)
    ids = [5] * (tokens - finished) + [tokenizer.eos_token_id] * finished
    assert overlong(completion_ids=[ids]) == [penalty]


@pytest.mark.parametrize(
    ("ids", "penalty"), [([], 0.0), ([1], 0.0), ([1, 2, 3, 4], 0.0), ([1, 1, 1, 1, 1], -0.75), ([1, 2, 1, 2], -1 / 3)]
)
def test_repetition_penalty_is_the_share_of_repeated_ngrams(ids: list[int], penalty: float) -> None:
    repetition, _ = part("repetition", repetition_ngram=2)
    assert repetition(completion_ids=[ids]) == [pytest.approx(penalty)]


@settings(deadline=None)  # the first example loads the tokenizer
@given(tokens=st.lists(st.integers(3, 6), max_size=40), finished=st.booleans(), buffer=st.integers(1, 30))
def test_penalties_are_exactly_what_their_formulas_say(tokens: list[int], finished: bool, buffer: int) -> None:
    """TRL computes both; these are the formulas by which the project computed them itself before."""
    overlong, tokenizer = part("overlong", max_completion_length=41, overlong_buffer=buffer)
    ids = [*tokens, tokenizer.eos_token_id] if finished else tokens
    over = (len(ids) - (41 - buffer)) / buffer
    assert overlong(completion_ids=[ids]) == [-min(1.0, max(0.0, over)) if finished else -1.0]
    for ngram in (1, 3):
        repetition, _ = part("repetition", repetition_ngram=ngram)
        total = len(ids) - ngram + 1
        distinct = len({tuple(ids[start : start + ngram]) for start in range(total)})
        assert repetition(completion_ids=[ids]) == [distinct / total - 1.0 if total > 0 else 0.0]


def part(name: str, max_completion_length: int = 512, **rewards: Any) -> tuple[Any, Any]:
    """The part of the reward called `name`, and the tokenizer of its completions."""
    made, tokenizer = rewards_of(_Recording([]))
    chosen = {"max_completion_length": max_completion_length, "rewards": {name: 1.0, **rewards}}
    functions, _ = made.parts(GrpoSettings.model_validate(chosen))
    assert functions[-1].__name__ == name
    return functions[-1], tokenizer


def test_completions_are_decoded_once_for_all_parts(tmp_path: Path) -> None:
    rewards, _ = rewards_of(_Recording(["correct"] * 2))
    decoded: list[Any] = []
    rewards._read_one = lambda ids: decoded.append(ids) or ("\\boxed{4}", "stop")  # type: ignore[func-returns-value]
    (tmp_path / "own.py").write_text(
        "def own(problems, completions, reasons):\n    return [0.0] * len(completions.pop())\n"
    )
    custom = {"file": str(tmp_path / "own.py"), "function": "own"}
    settings = GrpoSettings.model_validate({"rewards": {"overlong": 0.5, "custom": [custom]}})
    functions, _ = rewards.parts(settings)
    for ids in ([[1], [2]], [[1], [3]]):
        call = {"completion_ids": ids, "problem": [0, 0], "log_metric": lambda name, value: None}
        assert [function(**call) for function in functions[:3]] == [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    assert decoded == [[1], [2], [1], [3]]


def custom(tmp_path: Path, body: str, **settings: Any) -> Any:
    file = tmp_path / "mine.py"
    file.write_text(f"def brevity(problems, completions, finish_reasons, scale=1):\n    {body}\n", encoding="utf-8")
    rewards, tokenizer = rewards_of(_Recording([]))
    part = {"file": str(file), "function": "brevity", "weight": -0.5, **settings}
    functions, weights = rewards.parts(GrpoSettings.model_validate({"rewards": {"custom": [part]}}))
    assert weights == [1.0, 0.1, -0.5]
    ids = [tokenizer("ab")["input_ids"], [*tokenizer("abcd")["input_ids"], tokenizer.eos_token_id]]
    return functions[-1](completion_ids=ids, problem=[0, 1], prompts=[])


def test_a_function_of_ones_own_sees_problem_text_and_finish_reason(tmp_path: Path) -> None:
    parts = "scale * len(c) + (p.kind == 'code') / 2 + (r == 'stop') / 4"
    body = f"return [{parts} for p, c, r in zip(problems, completions, finish_reasons)]"
    assert custom(tmp_path, body, options={"scale": 10}) == [20.0, 40.75]


def test_a_function_of_ones_own_may_change_the_lists_it_is_given(tmp_path: Path) -> None:
    assert custom(tmp_path, "problems.clear(); completions.clear(); return [1.0, 2.0]") == [1.0, 2.0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [1.0]", "returned 1 rewards for 2 completions"),
        ("completions.pop(); return [1.0]", "returned 1 rewards for 2 completions"),
        ("return [1.0, float('nan')]", "returned nan for completion 1"),
        ("return [1.0, -1e30]", "returned -1e\\+30 for completion 1: larger than advantages can be"),
        ("return [None, 1.0]", "returned None for completion 0"),
        ("return [1.0, 10**5000]", "returned a number for completion 1 that is no float"),
        ("return 3", "returned int, not a list"),
        ("raise KeyError('gold')", "reward brevity of .*mine.py raised KeyError: 'gold'"),
        ("return (", "mine.py: SyntaxError"),
        ("raise SystemExit(0)", "reward brevity of .*mine.py raised SystemExit: 0"),
    ],
)
def test_a_function_of_ones_own_that_gives_no_rewards_is_named(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(StageError, match=message):
        custom(tmp_path, body)


def test_a_function_that_does_not_end_ends_the_run(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(StageError, match=r"reward brevity of .*mine.py did not end within 0.2 s"):
        custom(tmp_path, "import time; time.sleep(60)", timeout_s=0.2)
    assert time.monotonic() - begun < 10


def test_a_stop_that_arrives_while_a_function_runs_is_no_error_of_the_function(tmp_path: Path) -> None:
    """Signals reach the main thread, which waits: what its handler raises must leave as it is."""

    def stop(*_: Any) -> None:
        raise StageStopped

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(StageStopped):
            custom(tmp_path, "import time; time.sleep(5)")
    finally:
        signal.signal(signal.SIGALRM, before)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    assert custom(tmp_path, "import numpy; return [numpy.float32(0.5), numpy.int64(2)]") == [0.5, 2.0]


def test_the_file_is_imported_as_a_module(tmp_path: Path) -> None:
    """A dataclass with postponed annotations looks its module up by name."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Part:\n    value: float\n\n"
        "def reward(problems, completions, finish_reasons):\n    return [Part(2.0).value for _ in completions]\n",
        encoding="utf-8",
    )
    assert load_reward(CustomReward(file=str(file)))([MATHS], ["x"], ["stop"]) == [2.0]
    file.write_text("reward = 3\n", encoding="utf-8")
    with pytest.raises(StageError, match=r"reward reward of .*mine.py is no function but 3"):
        load_reward(CustomReward(file=str(file)))


def test_partial_credit_is_the_share_of_cases_and_off_unless_it_is_asked_for() -> None:
    tests = {"cases": [{"input": str(n), "output": str(n)} for n in range(4)]}
    problem = Problem("s", "programs", "code", "Print it.", "", tests)
    texts = ["print(input())", "print(2)", "print()", "n = input()\nprint(n if n != '0' else '')"]
    given = {False: [1.0, 0.0, 0.0, 0.0], True: [1.0, 0.25, 0.0, 0.75]}
    for partial, expected in given.items():
        settings_ = GrpoSettings(rewards=RewardSettings(partial=partial), code_timeout_s=2.0, grader_workers=1)
        with make_grader(settings_) as grader:
            rewards = Rewards([problem], grader, lambda ids: (texts[ids[0]], "stop"), dev=[problem])
            functions, _ = rewards.parts(settings_)
            call = {"completion_ids": [[n] for n in range(4)], "log_metric": lambda name, value: None}
            assert functions[0](problem=[0] * 4, **call) == expected
            functions[0](problem=[1] * 4, **call)
            assert [right for _, right in rewards.take_dev_verdicts()] == [True, False, False, False]
    assert "partial" not in GrpoSettings().rewards.identity_settings()
