"""How a step's rollout is put together from several rounds, in one process and shared by two."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stages.grpo.resampling import CORRECT, ResamplingTrainer, Sample
from stages.grpo.trl_internals import whole_groups, zero_variance_groups
from stages.training import distributed

GENERATIONS = 3


class Processes:
    """Threads that stand for processes: `gather` waits for all of them."""

    def __init__(self, count: int) -> None:
        self.count, self.here = count, threading.local()
        self._barrier, self._values = threading.Barrier(count, timeout=20), [None] * count

    def gather(self, value: Any) -> list[Any]:
        self._values[self.here.index] = value
        self._barrier.wait()
        values = list(self._values)
        self._barrier.wait()
        return values

    def run(self, work: Any) -> list[Any]:
        def start(index: int) -> Any:
            self.here.index = index
            return work(index)

        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(start, range(self.count)))


class Sampler(ResamplingTrainer):
    """The trainer with a model that solves every third problem always, every third never, and the rest sometimes."""

    def __init__(self, rounds: int, problems: int, processes: Processes) -> None:
        self._rounds, self._draw_seed, self.num_generations = rounds, 5, GENERATIONS
        self.state = SimpleNamespace(global_step=7)
        self.train_dataset = [{"problem": index} for index in range(problems)]
        self.reward_weights = torch.tensor([1.0, 0.5])
        self.processes, self.sampled = processes, list[list[int]]()

    def _sample_all(self, rows: list[dict[str, Any]]) -> tuple[list[Sample], torch.Tensor]:
        self.sampled.append([row["problem"] for row in rows])
        shared = [row for part in self.processes.gather(rows) for row in part]
        rewards = [reward(row["problem"], place % GENERATIONS) for place, row in enumerate(shared)]
        samples = [Sample(row, [], [], part, None) for row, part in zip(shared, rewards, strict=True)]
        return samples, torch.tensor(rewards)


def reward(problem: int, place: int) -> list[float]:
    """By part; the sum over parts is equal in a group where the problem is always or never solved."""
    return [[1.0, 0.0], [0.0, 0.0], [float(place == 1), 1.0]][problem % 3]


def replaced(
    rounds: int, problems: int, first: list[int], processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """All rows of the step, their rewards, and what each process was asked to sample."""
    monkeypatch.setattr(distributed, "world_size", lambda: processes.count)
    monkeypatch.setattr(distributed, "rank", lambda: processes.here.index)
    monkeypatch.setattr(distributed, "gather", processes.gather)
    rows = [{"problem": problem} for problem in first for _ in range(GENERATIONS)]
    share = len(rows) // processes.count

    def work(index: int) -> Any:
        trainer = Sampler(rounds, problems, processes)
        samples, rewards = trainer._sample_all(rows[index * share : (index + 1) * share])
        return *trainer._replace_groups(samples, rewards), trainer.sampled

    parts = processes.run(work)
    first = parts[0]
    assert all(part[0] == first[0] and torch.equal(part[1], first[1]) and part[2] == first[2] for part in parts)
    return *first[:3], [part[3] for part in parts]


@pytest.mark.parametrize("count", [1, 2])
def test_each_completion_keeps_its_own_reward_and_its_group(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, rewards, drawn, sampled = replaced(20, 90, [0, 2, 1, 3], Processes(count), monkeypatch)
    assert [sample.completion for sample in samples] == rewards.tolist()
    problems = [sample.row["problem"] for sample in samples]
    assert problems[GENERATIONS : 2 * GENERATIONS] == [2] * GENERATIONS  # a mixed group stays where it is
    groups = [problems[start : start + GENERATIONS] for start in range(0, 12, GENERATIONS)]
    assert all(len(set(group)) == 1 and group[0] % 3 == 2 for group in groups)
    assert len({group[0] for group in groups}) == 4
    ever = [problem for part in zip(*sampled, strict=True) for process in part for problem in process]
    once = sorted(problem for problem in set(ever) for _ in range(GENERATIONS))
    assert sorted(ever) == once, "a problem was sampled twice in a step"
    sizes = [{len(part) for part in round_} for round_ in zip(*sampled, strict=True)]
    assert all(len(size) == 1 for size in sizes), "a process sampled less than another"
    assert drawn[0] == whole_groups(3, GENERATIONS, count) == {1: 3, 2: 4}[count]


@pytest.mark.parametrize("count", [1, 2])
def test_what_rounds_or_prompts_do_not_replace_stays(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    first = [0, 2, 1, 3]
    # 4 and 5 are left for three missing, and only 5 is mixed.
    samples, _, drawn, _ = replaced(20, 6, first, Processes(count), monkeypatch)
    assert drawn == [2]
    assert sorted(sample.row["problem"] for sample in samples)[::GENERATIONS] == [1, 2, 3, 5]
    samples, rewards, drawn, _ = replaced(1, 90, first, Processes(1), monkeypatch)
    assert (drawn, len(samples)) == ([3], 12)
    left = zero_variance_groups(rewards[:, CORRECT], GENERATIONS)
    assert [samples[group * GENERATIONS].row["problem"] for group in left] == [first[group] for group in left]


def test_a_group_that_is_all_right_is_replaced_whatever_its_form_and_length() -> None:
    """As in DAPO; where `correct` has no weight the sum of the parts decides."""
    trainer = Sampler(1, 3, Processes(1))
    all_right, mixed = [[1.0, 0.0], [1.0, 0.3], [1.0, 1.0]], [[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]]
    rewards = torch.tensor(all_right + mixed)
    assert trainer._without_signal(rewards) == [0]
    trainer.reward_weights = torch.tensor([0.0, 1.0])
    assert trainer._without_signal(rewards) == []
    trainer.reward_weights = torch.tensor([0.0, 0.0])
    assert trainer._without_signal(rewards) == [0, 1]


def test_groups_have_no_variance_by_the_sum_of_the_parts_and_not_by_rounding() -> None:
    assert zero_variance_groups(torch.tensor([0.1 + 0.2, 0.3, 0.3, 0.0, 0.0, 0.01]), 3) == [0]
    assert [whole_groups(n, 4, 8) for n in (1, 2, 3)] == [2, 2, 4]
