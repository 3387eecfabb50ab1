"""A sweep's record, runs and artifacts as the orchestrator leaves them, with scores that can be checked by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.metrics.estimates import wilson_interval
from evaluation.records import Score, write_jsonl
from pipeline.sweep.report.build import write_report
from pipeline.sweep.report.collect import collect

TOY = "toy"
STARTED = "2026-01-02T00:00:00+00:00"
GIT = {"commit": "0123456789abcdef", "dirty": True}
HARDWARE = {"cpu": "a CPU", "cores": 2, "memory_gib": 24.0, "gpu": []}
Place = tuple[str, str]


@dataclasses.dataclass
class FakeCell:
    """A cell and what it had scored when it ended: (benchmark, checkpoint) -> for each problem whether it was right."""

    method: str
    seed: str
    scores: Mapping[Place, Sequence[bool]]
    status: str = "done"
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    protocol: str = "p"
    manifest: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of its checkpoints' manifests that differ from the usual ones."""


def right(count: int, n: int = 100, start: int = 0) -> list[bool]:
    """`count` of `n` problems right, from number `start` on."""
    return [start <= index < start + count for index in range(n)]


def scores(
    sft: Sequence[bool], grpo: Sequence[bool] | None = None, base: Sequence[bool] | None = None
) -> dict[Place, Sequence[bool]]:
    """Of one benchmark; the base checkpoint has 3 of 100 right."""
    measured: dict[Place, Sequence[bool]] = {(TOY, "base"): base or right(3, len(sft)), (TOY, "sft"): sft}
    return measured | ({(TOY, "grpo"): grpo} if grpo is not None else {})


def make_sweep(home: Path, cells: Sequence[FakeCell], published: dict[str, Any] | None = None) -> Path:
    """Write everything; returns the sweep's folder. The baseline is method sft."""
    folder = home / "sweeps" / "20260102-000000-s"
    folder.mkdir(parents=True)
    labels = [{"method": cell.method, **cell.labels, "seed": cell.seed} for cell in cells]
    record = {
        "id": folder.name,
        "name": "s",
        "command": "vcore sweep s.yaml",
        "axes": {
            axis: list(dict.fromkeys(of_cell[axis] for of_cell in labels))
            for axis in dict.fromkeys(a for of_cell in labels for a in of_cell)
        },
        "baseline": {"method": "sft"},
        "published": published,
        "started": STARTED,
        "ended": "2026-01-02T01:00:00+00:00",
        "status": "done",
        "cells": [
            _entry(home, number, cell, of_cell)
            for number, (cell, of_cell) in enumerate(zip(cells, labels, strict=True))
        ],
    }
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder


def report_of(home: Path, cells: Sequence[FakeCell], published: dict[str, Any] | None = None) -> dict[str, Any]:
    """What report.json of such a sweep holds."""
    report: dict[str, Any] = json.loads(json.dumps(collect(home, make_sweep(home, cells, published))[0].as_json()))
    return report


def pages_of(home: Path, cells: Sequence[FakeCell], published: dict[str, Any] | None = None) -> Path:
    """The folder with all files of the report of such a sweep."""
    folder = make_sweep(home, cells, published)
    write_report(home, folder)
    return folder


def table(report: dict[str, Any], checkpoint: str, benchmark: str = TOY) -> dict[str, dict[str, Any]]:
    """Group -> row."""
    shown = next(t for t in report["tables"] if (t["benchmark"], t["checkpoint"]) == (benchmark, checkpoint))
    return {row["group"]: row for row in shown["rows"]}


def _entry(home: Path, number: int, cell: FakeCell, labels: dict[str, str]) -> dict[str, Any]:
    name = ".".join(["s", *(f"{axis}-{label}" for axis, label in labels.items())])
    run = make_run(home, f"20260102-0000{number + 1:02d}-{name}", name, cell, f"vcore run s.yaml --set name={name}")
    return {
        "labels": labels,
        "name": name,
        "status": cell.status,
        "run": run,
        "error": None if cell.status == "done" else "stage grpo: it broke",
        "command": f"vcore run s.yaml --set name={name}",
        "earlier_runs": [],
    }


def make_run(home: Path, run: str, name: str, cell: FakeCell, command: str) -> str:
    """A run's folder and artifacts; returns its id."""
    folder = home / "runs" / run
    folder.mkdir(parents=True)
    stages = [
        _stage(home, "data", "data", 4.0, cell, outside={"data.sft.0": {"hub": "owner/demos", "commit": "c" * 40}})
    ]
    results: dict[str, dict[str, Any]] = {}
    for benchmark, checkpoint in cell.scores:
        shared = "base" if checkpoint == "base" else f"{checkpoint}-{run}"
        if checkpoint not in results:
            outside = {"model": {"hub": "owner/model", "commit": "d" * 40}} if checkpoint == "base" else {}
            stages.append(_stage(home, checkpoint, shared, 10.0, cell, outside=outside))
            _curve(stages[-1]["folder"], checkpoint)
            stages.append(_stage(home, f"generate.{checkpoint}", shared, 3.0, cell, {"output_tokens": 900}))
            stages.append(_stage(home, f"score.{checkpoint}", shared, 1.0, cell))
        results.setdefault(checkpoint, {})[benchmark] = _result(cell.scores[benchmark, checkpoint], cell.protocol)
    for checkpoint, measured in results.items():
        score = Path(next(stage["folder"] for stage in stages if stage["name"] == f"score.{checkpoint}"))
        (score / "metrics.json").write_text(json.dumps(measured))
        rows = [
            Score(benchmark, f"p{index}", 0, "correct" if good else "wrong", None, "")
            for benchmark in measured
            for index, good in enumerate(cell.scores[benchmark, checkpoint])
        ]
        write_jsonl(score / "scores.jsonl", rows)
    (folder / "config.json").write_text('{"execution": {"device": "auto", "gpus": null}}')
    record = {"id": run, "name": name, "command": command, "started": STARTED, "status": cell.status, "plan": []}
    (folder / "run.json").write_text(json.dumps(record | {"stages": stages}))
    if cell.status == "done":
        rows = [
            {**row, "benchmark": benchmark, "checkpoint": checkpoint, "completion_tokens": 9.0}
            for checkpoint, measured in results.items()
            for benchmark, row in measured.items()
        ]
        report = {"title": name, "verdict": "", "seed": 0, "command": command, "results": rows, "comparisons": []}
        report |= {"stages": [], "caveats": [], "versions": {}, "git": GIT, "hardware": HARDWARE, "config": {}}
        (folder / "report.json").write_text(json.dumps(report))
    return run


def _result(verdicts: Sequence[bool], protocol: str) -> dict[str, Any]:
    low, high = wilson_interval(sum(verdicts), len(verdicts))
    counts = {"n": len(verdicts), "k": 1, "truncated": 1, "no_answer": 2, "prompt_too_long": 0}
    return {
        "metric": "accuracy",
        "value": sum(verdicts) / len(verdicts),
        "low": low,
        "high": high,
        "verdicts": {"correct": sum(verdicts), "wrong": len(verdicts) - sum(verdicts)},
        "protocol": protocol,
        "protocol_details": {},
        **counts,
    }


def _stage(
    home: Path,
    name: str,
    key: str,
    seconds: float,
    cell: FakeCell,
    metrics: dict[str, Any] | None = None,
    outside: dict[str, Any] | None = None,
) -> dict[str, Any]:
    folder = home / "store" / name.partition(".")[0] / f"{name}-{key}"
    (folder / "record").mkdir(parents=True, exist_ok=True)
    manifest = {
        "stage": name.partition(".")[0],
        "key": folder.name,
        "seconds": seconds,
        "files": [{"path": "content", "size": 1, "sha256": "0" * 64}],
        "digest": f"digest of {folder.name}",
        "preimage": {"outside": outside or {}},
        "git": GIT,
        "versions": {"torch": "2.13.0"},
        "hardware": HARDWARE,
        "metrics": metrics or {},
    }
    (folder / "manifest.json").write_text(
        json.dumps(manifest | (dict(cell.manifest) if name in ("sft", "grpo") else {}))
    )
    return {"name": name, "key": folder.name, "state": "ran", "seconds": seconds, "folder": str(folder)}


def _curve(folder: str, checkpoint: str) -> None:
    rows = {
        "sft": [
            {
                "step": s,
                "uniform_loss": 2 / s,
                "loss": 1 / s,
                "kl": 0.05,
                "ess": 0.9,
                "alpha": 0.95,
                "num_tokens": 500.0 * s,
            }
            for s in (1, 2, 3)
        ],
        "grpo": [
            {"step": s, "reward": 0.1 * s, "completions/mean_length": 30.0, "num_tokens": 2000.0 * s} for s in (1, 2, 3)
        ],
    }
    if checkpoint in rows:
        write_jsonl(Path(folder) / "record" / "metrics.jsonl", rows[checkpoint])
