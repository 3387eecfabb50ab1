"""What is known to be wrong with several nodes before anything starts, and that they change no key."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.checks.preflight import preflight
from pipeline.core.errors import ConfigError
from pipeline.plan.planning import make_plan
from pipeline.store.store import Store
from tests.pipeline.helpers import config, make, plan, states


@pytest.fixture(autouse=True)
def on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("VCORE_RENDEZVOUS", raising=False)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("{score: {kind: slurm, nodes: 2}}", r"launch\.score\.nodes: score runs on one node; .* trainings alone"),
        ("{data: {kind: slurm, nodes: 2}}", r"launch\.data\.nodes: data runs on one node"),
        ("{sft: {kind: torchrun, nodes: 2}}", "2 nodes need to know where they meet, and VCORE_RENDEZVOUS is not set"),
        ("{score: {kind: slurm, config: some.yaml}}", "score is one process"),
        ("{sft: {kind: slurm, nodes: 3, processes: 3}}", "9 processes cannot share the 32 rows of a step evenly"),
    ],
)
def test_nodes_that_cannot_be_are_refused(tmp_path: Path, override: str, message: str) -> None:
    settings = config(tmp_path, f"execution.launch={override}")
    with pytest.raises(ConfigError, match=message):
        preflight(settings, make_plan(settings, Store(settings.home_folder)))


def test_no_engine_of_rl_spans_nodes(tmp_path: Path) -> None:
    launch = "execution.launch={grpo: {kind: slurm, nodes: 2, processes: 1, sbatch: ['--gres=gpu:1']}}"
    settings = config(tmp_path, launch, "grpo.tensor_parallel=2", "grpo.dtype=bfloat16")
    with pytest.raises(ConfigError, match="an engine of 2 GPUs takes as many training processes, and grpo has 1"):
        preflight(settings, make_plan(settings, Store(settings.home_folder)))


def test_node_0_has_the_address_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCORE_RENDEZVOUS", "192.0.2.1:29500")  # kept for documentation: no machine has it
    settings = config(tmp_path, "execution.launch={sft: {kind: torchrun, nodes: 2}}")
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1 is no address of this machine, which is node 0"):
        preflight(settings, make_plan(settings, Store(settings.home_folder)))


@pytest.mark.parametrize(
    "asked",
    ["--requeue", "--req", "--ntasks-per-node=4", "--ntasks-per-n=4", "--array=0-3", "--arr, 0-3", "-a0-3", "'-a 0-3'"],
)
def test_what_a_job_on_several_nodes_cannot_have_is_refused(tmp_path: Path, asked: str) -> None:
    with pytest.raises(ConfigError, match=r"sbatch: --[a-z-]+ cannot be with several nodes"):
        config(tmp_path, f"execution.launch={{sft: {{kind: slurm, nodes: 2, sbatch: [{asked}]}}}}")
    config(tmp_path, f"execution.launch={{sft: {{kind: slurm, sbatch: [{asked}]}}}}")
    others = "--no-requeue, --account=a, -A, me, --reservation=r, --ntasks=2, --ntasks-per-gpu=1"
    config(tmp_path, f"execution.launch={{sft: {{kind: slurm, nodes: 2, sbatch: [{others}]}}}}")


@pytest.mark.parametrize(
    "asked", ["--nodes=2", "--node=2", "'-N 2'", "-N2", "--nodes, '2'", "--gres=gpu:8, --nodes=2-4"]
)
def test_further_nodes_that_would_do_nothing_are_refused(tmp_path: Path, asked: str) -> None:
    with pytest.raises(ConfigError, match=r"asks for 2(-4)? nodes, and the stage uses one; write `nodes: N`"):
        config(tmp_path, f"execution.launch={{sft: {{kind: slurm, sbatch: [{asked}]}}}}")
    if asked != "--gres=gpu:8, --nodes=2-4":
        config(tmp_path, f"execution.launch={{sft: {{kind: slurm, nodes: 2, sbatch: [{asked}]}}}}")


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        ("{nodes: 2}", "one local process is on one"),
        ("{kind: slurm, nodes: 4, sbatch: [--nodes=2]}", "asks for 2 nodes, and nodes is 4"),
    ],
)
def test_nodes_that_contradict_themselves(tmp_path: Path, launch: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, f"execution.launch={{sft: {launch}}}")


def test_the_number_of_nodes_changes_no_key(tmp_path: Path) -> None:
    make(tmp_path)
    found = plan(tmp_path, "execution.launch={sft: {kind: slurm, nodes: 2}, grpo: {kind: slurm, nodes: 4}}")
    assert set(states(found).values()) == {"HIT"}
