"""The GRPO stage in two processes, which share each step and draw completions of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from datasets import Dataset

from tests.stages.grpo.runs import BRIEF, content, curve, result, run_two_processes
from tests.tiny import read_stage_run, write_spec


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [0, 2])
def test_two_processes_share_a_step(dev_inputs: dict[str, Path], tmp_path: Path, rounds: int) -> None:
    """Each samples and grades half of the completions; counts, curve and checkpoint are of all of them."""
    settings = {**BRIEF, "rollout": "transformers", "steps": 4, "checkpoint_steps": 4, "dev_every": 4, "dev_samples": 2}
    settings["resampling_rounds"] = rounds
    spec = write_spec(tmp_path, "grpo", settings, dev_inputs, seed=3)
    run = read_stage_run(tmp_path, 0, run_two_processes(spec))
    further = sum(4 * point.get("resampling/groups", 0) for point in curve(run.output))
    assert (further > 0) == (rounds > 0)
    assert sum(result(run)["metrics"]["verdicts"].values()) == 4 * 16 + further
    assert any(note.endswith("of 20 samples of data.dev are right") for note in run.notes)
    assert [point["step"] for point in curve(run.output)] == [1, 2, 3, 4]
    assert result(run)["proof"]["relative_weight_change"] > 0
    events = list((run.output / "record" / "tensorboard").iterdir())
    assert len(events) == 1
    assert b"rewards/correct/mean" in events[0].read_bytes()


@pytest.mark.slow
def test_micro_batches_change_no_step_of_two_processes(grpo_inputs: dict[str, Path], tmp_path: Path) -> None:
    """Means that TRL takes over one process' micro-batch are over the step of both."""
    settings = {**BRIEF, "rollout": "transformers", "steps": 2, "loss_type": "bnpo", "top_entropy_quantile": 0.5}
    settings |= {"entropy_coef": 0.3, "learning_rate": 1e-3, "temperature": 1.3, "trainer": {"optim": "sgd"}}
    seen = []
    for size in (None, 2):
        folder = tmp_path / str(size)
        spec = write_spec(folder, "grpo", {**settings, "micro_batch_size": size}, grpo_inputs, seed=3)
        run_two_processes(spec)
        seen.append([[point[name] for name in ("grad_norm", "reward", "loss")] for point in curve(folder / "output")])
    whole, split = seen
    for one, other in zip(whole, split, strict=True):
        assert other == pytest.approx(one, rel=1e-5)


@pytest.mark.slow
def test_shared_prompts_change_no_step_of_two_processes(grpo_inputs: dict[str, Path], tmp_path: Path) -> None:
    seen = []
    for share in (False, True):
        folder = tmp_path / str(share)
        settings = {**BRIEF, "steps": 2, "micro_batch_size": 4, "share_prompts": share}
        run_two_processes(write_spec(folder, "grpo", settings, grpo_inputs, seed=3))
        seen.append([[point[name] for name in ("grad_norm", "reward", "loss")] for point in curve(folder / "output")])
    alone, shared = seen
    for one, other in zip(alone, shared, strict=True):
        assert other == pytest.approx(one, rel=1e-5, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rollout", ["vllm", "transformers"])
def test_processes_draw_their_own_completions_and_resume_to_the_same_bytes(
    grpo_inputs: dict[str, Path], tmp_path: Path, rollout: str
) -> None:
    """Two processes share a group: what one draws must not be what the other draws, or half of it is a copy."""
    settings = {**BRIEF, "rollout": rollout, "steps": 3, "prompts_per_step": 1, "num_generations": 8}
    settings |= {"micro_batch_size": None, "checkpoint_steps": 1, "temperature": 1.2, "stop_check_prompts": 0}
    settings["trainer"] = {"log_completions": True}
    spec = write_spec(tmp_path, "grpo", settings, grpo_inputs, seed=3)

    run_two_processes(spec)
    straight = content(tmp_path / "output")
    checkpoints = tmp_path / "state" / "checkpoints"
    for table in sorted((checkpoints / "completions").glob("*.parquet")):
        rows = Dataset.from_parquet(str(table), cache_dir=str(tmp_path / "cache"))
        texts = [str(completion) for completion in rows["completion"]]
        assert len(texts) == 8
        assert texts[:4] != texts[4:]
        assert sum(first == second for first, second in zip(texts[:4], texts[4:], strict=True)) < 2
    shutil.rmtree(checkpoints / "checkpoint-3")
    shutil.rmtree(tmp_path / "output")
    run_two_processes(spec)
    assert content(tmp_path / "output") == straight
