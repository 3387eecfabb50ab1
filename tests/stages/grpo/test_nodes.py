"""GRPO on two nodes of a Slurm job, each of which has vLLM beside its trainer."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.execution import LaunchSettings
from pipeline.launch.environment import stage_environment
from pipeline.launch.process import Launch, run_process
from stages.harness.documents import Machine, Spec
from tests.stages.grpo.runs import BRIEF, content


@pytest.mark.slow
def test_two_nodes_make_what_two_processes_on_one_make(
    grpo_inputs: dict[str, Path], tmp_path: Path, cluster: Path
) -> None:
    settings = {**BRIEF, "steps": 2, "prompts_per_step": 1, "num_generations": 8, "micro_batch_size": None}
    settings |= {"rollout": "vllm", "temperature": 1.2, "stop_check_prompts": 0}
    spec = Spec(
        stage="grpo",
        settings=settings,
        inputs={name: str(folder) for name, folder in grpo_inputs.items()},
        seed=3,
        machine=Machine(device="cpu", threads=1, data_dir=None),
    )
    made = []
    for how in (LaunchSettings(kind="torchrun", processes=2), LaunchSettings(kind="slurm", nodes=2)):
        environment = stage_environment("cpu", 1, hub=False)
        work = tmp_path / how.kind
        attempt = Launch("grpo", "stages.grpo", work, environment, locks=(), grace_s=60, settings=how)
        run_process(attempt, spec, lambda event: None)
        made.append(content(work / "out"))
    one, two = made
    assert one == two
