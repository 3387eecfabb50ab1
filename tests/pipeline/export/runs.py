"""A run with curves, scores and a gate, as the orchestrator leaves it: real store, real record, no stage runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.config.schema import PipelineConfig
from pipeline.core.digests import digest
from pipeline.run.documents import GateVerdict
from pipeline.run.execute import StageOutcome
from pipeline.run.record import RunRecord
from pipeline.store.documents import GitState, InputRecord, ManifestDraft, Preimage
from pipeline.store.store import Artifact, Store
from tests.pipeline import helpers

COMMIT = "0123456789abcdef0123456789abcdef01234567"
STEPS = 1200
"""Of SFT's curve: more than one call to MLflow takes."""
SFT = [{"step": step, "loss": 2.0 / step, "kl": 0.05, "method": "vcore"} for step in range(1, STEPS + 1)]
GRPO = [{"step": 1, "reward": 0.25}, {"step": 1, "dev/accuracy": 0.5}, {"step": 2, "reward": float("nan")}]
SCORES = {"base": 0.1, "sft": 0.5, "grpo": 0.75}
INPUTS = {
    "base": {},
    "sft": {"base": "base", "data": "data"},
    "grpo": {"data": "data", "model": "sft"},
}
GATE = GateVerdict(
    benchmark="word_problems",
    checkpoint="grpo",
    tier="critical",
    asked="may drop by 1 points",
    against="sft",
    verdict="PASS",
    difference=0.25,
    low=0.1,
    high=0.4,
    n=20,
    samples=1,
    samples_before=1,
    p_pass=0.001,
    p_fail=1.0,
    detectable=0.2,
)
STAGES = ("data", "base", "sft", "grpo", "score.base", "score.sft", "score.grpo")


def make_run(
    tmp_path: Path, *overrides: str, until: str = STAGES[-1], status: str = "done", error: str | None = None
) -> str:
    """Write a run and everything it made; returns its id. Artifacts that are there are cached, as in a second run.

    Args:
        until: the last stage that has an artifact.
    """
    config = helpers.config(tmp_path, *overrides)
    store, made = Store(config.home_folder), dict[str, Artifact]()
    record = RunRecord.start(store.home, config, "vcore run small.yaml", [])
    for name in STAGES[: STAGES.index(until) + 1]:
        made[name], state = _artifact(store, name, config, made)
        record.stage_done(StageOutcome(name, state, made[name], seconds=2.5))  # type: ignore[arg-type]
    if until == STAGES[-1]:
        (record.folder / "report.md").write_text("# The report\n")
        (record.folder / "report.html").write_text("<h1>The report</h1>")
        record.data.gate = [GATE]
    record.end(status, error)
    return record.folder.name


def _artifact(store: Store, name: str, config: PipelineConfig, made: dict[str, Artifact]) -> tuple[Artifact, str]:
    program, _, checkpoint = name.partition(".")
    key = digest([name, config.identity_settings()])
    if (found := store.find(program, key).artifact) is not None:
        return found, "cached"
    out = store.work(program, key) / "out"
    (out / "record").mkdir(parents=True)
    (out / "payload").write_text(name)
    if name in ("sft", "grpo"):
        write_rows(out / "record/metrics.jsonl", SFT if name == "sft" else GRPO)
    if checkpoint:
        (out / "metrics.json").write_text(json.dumps({"word_problems": measurement(SCORES[checkpoint])}))
    inputs = {"generations": checkpoint} if checkpoint else INPUTS.get(name, {})
    draft = ManifestDraft(
        stage=program,
        name=name,
        key=key,
        preimage=Preimage(stage=program),
        git=GitState(commit=COMMIT, dirty=name == "data"),
        inputs={as_: InputRecord(stage=of, key=made[of].key, digest="0" * 64) for as_, of in inputs.items()},
        seconds=2.5,
        started="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T00:00:03+00:00",
    )
    return store.publish(program, key, draft), "ran"


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    """As a stage writes its curve, NaN included."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def measurement(value: float) -> dict[str, Any]:
    """An entry of metrics.json, 4 samples of 20 problems."""
    return {
        "metric": "avg@4",
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "n": 20,
        "k": 4,
        "verdicts": {},
        "truncated": 8,
        "no_answer": 4,
        "pass_at": {"1": {"value": value, "low": 0, "high": 1}, "4": {"value": 0.9, "low": 0, "high": 1}},
        "majority": {"value": 0.6, "low": 0, "high": 1},
        "protocol": "abc123",
        "protocol_details": {"sampling": {"temperature": 1.0}},
    }
