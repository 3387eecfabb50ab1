"""A small pipeline for tests of the orchestrator, and what stands for its stages: real store and plan, no stage
runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config.schema import PipelineConfig, load_config
from pipeline.plan.decide import Options
from pipeline.plan.planning import Planned, make_plan
from pipeline.store.documents import ManifestDraft
from pipeline.store.store import Store

CONFIG = """
name: small
seed: 0
benchmarks:
- {name: word_problems, problems: 20, max_new_tokens: 64}
data:
  sft: [{task: word_problems, rows: 64}]
  rl: [{task: word_problems, rows: 32}]
sft: {learning_rate: 2e-3, max_steps: 4, max_length: 256}
grpo: {steps: 2, max_completion_length: 64}
"""
ORDER = [
    "data",
    "base",
    "generate.base",
    "score.base",
    "sft",
    "generate.sft",
    "score.sft",
    "grpo",
    "generate.grpo",
    "score.grpo",
    "report",
]


def config(tmp_path: Path, *overrides: str) -> PipelineConfig:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return load_config(path, [f"home={tmp_path / 'home'}", *overrides])


def plan(tmp_path: Path, *overrides: str, **options: Any) -> dict[str, Planned]:
    settings = config(tmp_path, *overrides)
    return {p.stage.name: p for p in make_plan(settings, Store(settings.home_folder), Options(**options))}


def make(
    tmp_path: Path, *overrides: str, content: str = "", forced: tuple[str, ...] = (), until: str = "report"
) -> None:
    """Publish an artifact for every stage the plan would run, in order, as a run would, up to one."""
    settings = config(tmp_path, *overrides)
    store = Store(settings.home_folder)
    for name in ORDER[: ORDER.index(until) + 1]:
        planned = {p.stage.name: p for p in make_plan(settings, store)}.get(name)
        if planned is None or (planned.state == "HIT" and name not in forced):
            continue
        assert planned.key is not None
        if planned.state == "HIT":
            store.set_aside(planned.stage.program, planned.key)
        out = store.work(planned.stage.program, planned.key) / "out"
        (out / "record").mkdir(parents=True)
        for file in ("sft.jsonl", "rl.jsonl", "benchmarks/word_problems.jsonl", "model/weights", "generations.jsonl"):
            (out / file).parent.mkdir(exist_ok=True)
            (out / file).write_text(f"{name} {planned.stage.settings.identity_settings()}{content}")
        for file, text in (("report.md", ""), ("report.html", ""), ("report.json", '{"seed": 0, "results": []}')):
            (out / file).write_text(text)
        assert planned.preimage is not None
        manifest = ManifestDraft(
            stage=planned.stage.program,
            name=name,
            key=planned.key,
            preimage=planned.preimage,
            started="2026-01-01T00:00:00+00:00",
            ended="2026-01-01T00:00:03+00:00",
            seconds=2.5,
            proof={"made": True},
        )
        store.remember(settings.name, name, store.publish(planned.stage.program, planned.key, manifest).manifest)


def states(plan: dict[str, Planned]) -> dict[str, str]:
    return {name: planned.state for name, planned in plan.items()}
