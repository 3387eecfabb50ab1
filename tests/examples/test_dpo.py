"""The worked example of docs/extending.md: a folder and a line of the graph add a stage; the rest follows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.checks.preflight import preflight
from pipeline.config.schema import PipelineConfig, load_config
from pipeline.core.errors import ConfigError
from pipeline.plan.decide import Decider
from pipeline.plan.graph import Input, Stage, build_graph
from pipeline.plan.planning import Planned
from pipeline.run.execute import Executor
from pipeline.run.view import View
from pipeline.store.store import Store
from stages.harness import declaration
from tests.examples.dpo.settings import DpoSettings
from tests.examples.dpo.stage import STAGE as DPO
from tests.tiny import make_tiny_model

CONFIG = """
name: preferences
seed: 0
benchmarks:
- {name: word_problems, problems: 1, max_new_tokens: 8}
execution: {device: cpu, threads: 1}
"""


def config(tmp_path: Path) -> PipelineConfig:
    (tmp_path / "c.yaml").write_text(CONFIG)
    return load_config(tmp_path / "c.yaml", [f"home={tmp_path / 'home'}", f"model={tmp_path / 'model'}"])


def pairs(file: Path, rows: int = 8) -> Path:
    made = [{"prompt": f"What is {n} + 1?", "chosen": f"\\boxed{{{n + 1}}}", "rejected": "four"} for n in range(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    return file


def graph(settings: PipelineConfig, dpo: DpoSettings) -> list[Stage]:
    """The pipeline's own graph and one line more."""
    stages = build_graph(settings)
    return [*stages, Stage("dpo", DPO, dpo, {"model": Input("base", ("model",))})]


def executor(settings: PipelineConfig, stages: list[Stage]) -> Executor:
    return Executor(Decider(settings, Store(settings.home_folder), stages=stages), View(), command="")


@pytest.mark.slow
def test_a_stage_of_ones_own_is_trained_cached_and_rerun_by_what_it_depends_on(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "model")
    settings = config(tmp_path)
    dpo = DpoSettings(file=str(pairs(tmp_path / "pairs.jsonl")), max_steps=2, batch_size=4, learning_rate=1e-3)
    base, trained = (stage for stage in graph(settings, dpo) if stage.name in ("base", "dpo"))

    def outcome(dpo: DpoSettings) -> tuple[str, Path]:
        stages = [base, *graph(settings, dpo)[-1:]]
        runs = executor(settings, stages)
        result = [runs.ensure(stage) for stage in stages][-1]
        return result.state, result.artifact.folder

    state, folder = outcome(dpo)
    assert state == "ran"
    assert (folder / "model" / "model.safetensors").is_file()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["proof"]["steps"] == 2
    assert {"tests/examples/dpo/run.py", "stages/training/loop.py"} <= manifest["preimage"]["code"].keys()
    assert set(manifest["preimage"]["outside"]) == {"dpo.file"}
    assert outcome(dpo) == ("cached", folder)
    assert outcome(dpo.model_copy(update={"micro_batch_size": 2})) == ("cached", folder), "execution enters no key"
    pairs(tmp_path / "pairs.jsonl", rows=9)
    assert outcome(dpo)[0] == "ran", "other pairs"
    assert trained.program == "dpo"


def test_a_stage_of_ones_own_is_checked_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declaration, "cpu_flags", frozenset)  # a CPU that computes in float32 alone
    make_tiny_model(tmp_path / "model")
    settings = config(tmp_path)

    settings.home_folder.mkdir()

    def check(**values: object) -> None:
        dpo = DpoSettings.model_validate({"file": "pairs.jsonl", "max_length": 64, **values})
        stage = graph(settings, dpo)[-1]
        preflight(settings, [Planned(stage, "RUN", "never run")])

    check()
    with pytest.raises(ConfigError, match=r"dpo.dtype: bfloat16 is for GPUs"):
        check(dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"dpo.max_length: 1024 is more than"):
        check(max_length=1024)
    with pytest.raises(ConfigError, match=r"dpo.micro_batch_size: 3 does not divide the 8 pairs"):
        check(micro_batch_size=3)
