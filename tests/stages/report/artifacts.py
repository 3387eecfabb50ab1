"""Small artifacts as the orchestrator leaves them, with numbers that can be checked by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.metrics.estimates import mean_estimate
from evaluation.records import VERDICTS, Generation, Problem, Score, write_jsonl

HOSTILE = "<script>alert('x')</script> & ```` | \\boxed{3}"
CURVES: dict[str, dict[str, float]] = {
    "base": {"loss": 2.5},
    "sft": {"loss": 1.1, "uniform_loss": 1.0, "weighted_loss": 1.1, "kl": 0.05, "ess": 0.9},
    "grpo": {
        "reward": 0.5,
        "rewards/correct/mean": 0.4,
        "completions/mean_length": 30.0,
        "entropy": 0.2,
        "frac_reward_zero_std": 0.1,
    },
}


def artifact(folder: Path, name: str, metrics: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A folder with a manifest; `changes` replace fields of it."""
    made = folder / name
    (made / "record").mkdir(parents=True)
    manifest = {
        "schema": 1,
        "stage": name.partition(".")[0],
        "name": name,
        "key": (name.encode().hex() * 8)[:64],
        "digest": "ab" * 32,
        "preimage": {"settings": {"learning_rate": 0.002, "method": {"name": "vcore", "kl": 0.05}}, "outside": {}},
        "files": [],
        "inputs": {"data": {"stage": "data", "key": "00" * 32, "digest": "cd" * 32}},
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "versions": {"torch": "2.13.0"},
        "hardware": {"cpu": "a CPU", "cores": 2, "memory_gib": 24.0, "gpu": []},
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 12.0,
        "proof": {"ok": True},
        "metrics": metrics or {},
    }
    (made / "manifest.json").write_text(json.dumps(manifest | changes))
    if name in CURVES:
        write_jsonl(made / "record" / "metrics.jsonl", [{"step": step, **CURVES[name]} for step in (1, 2, 3)])
    return made


def change_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def data(folder: Path, n: int, overlap: Sequence[str] = (), benchmark: str = "toy") -> Path:
    made = artifact(folder, "data")
    (made / "benchmarks").mkdir()
    problems = [Problem(f"p{i}", benchmark, "maths", f"question {i}", str(i)) for i in range(n)]
    write_jsonl(made / "benchmarks" / f"{benchmark}.jsonl", problems)
    (made / "summary.json").write_text(json.dumps({"overlap": list(overlap), "on_overlap": "note"}))
    return made


def scored(
    folder: Path,
    checkpoint: str,
    verdicts: Sequence[Sequence[str]],
    protocol: str = "abc123",
    benchmark: str = "toy",
    truncated: int = 0,
    split: str = "test",
    thinking: dict[str, int] | None = None,
) -> dict[str, Path]:
    """The generate and score artifacts of a checkpoint, with verdicts of each sample of each problem; 9 tokens each."""
    generate = artifact(folder, f"generate.{checkpoint}", {"output_tokens_per_s": 9000.0})
    score = artifact(folder, f"score.{checkpoint}")
    samples = [(f"p{i}", j, verdict) for i, of_problem in enumerate(verdicts) for j, verdict in enumerate(of_problem)]
    generations, scores = [], []
    for position, (problem, j, verdict) in enumerate(samples):
        text = f"\\boxed{{{problem[1:]}}}" if verdict == "correct" else HOSTILE
        finish = "length" if position < truncated else "stop"
        generations.append(Generation(benchmark, problem, j, f"<|user|>{problem}", text, finish, 5, 9, 0))
        detail = "" if verdict == "correct" else f"not equal: {HOSTILE}"
        scores.append(Score(benchmark, problem, j, verdict, "3", problem[1:], detail))  # type: ignore[arg-type]
    write_jsonl(generate / "generations.jsonl", generations)
    write_jsonl(score / "scores.jsonl", scores)
    estimate = mean_estimate([[float(verdict == "correct") for verdict in of_problem] for of_problem in verdicts])
    counts = {name: sum(verdict == name for _, _, verdict in samples) for name in VERDICTS}
    k = len(verdicts[0])
    entry: dict[str, Any] = {
        "metric": f"avg@{k}" if k > 1 else "accuracy",
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "k": k,
        "verdicts": counts,
        "truncated": truncated,
        "prompt_too_long": 0,
        "no_answer": counts["no_answer"],
        "protocol": protocol,
        "protocol_details": {"sampling": {"temperature": 0.0, "split": split, "problems_sha256": "e" * 64}},
    }
    if thinking is not None:
        entry["thinking"] = thinking
        entry["protocol_details"]["sampling"]["thinking_budget"] = 512
    if k > 1:
        entry["pass_at"] = {
            "1": {"value": 0.5, "low": 0.4, "high": 0.6},
            "2": {"value": 0.75, "low": 0.65, "high": 0.85},
        }
    (score / "metrics.json").write_text(json.dumps({benchmark: entry}))
    return {f"generate.{checkpoint}": generate, f"score.{checkpoint}": score}


def first_right(right: int, n: int = 20) -> list[list[str]]:
    """One sample a problem, the first `right` of `n` correct."""
    return [["correct" if i < right else "wrong"] for i in range(n)]


def complete(
    folder: Path, base: int = 1, sft: int = 10, grpo: int = 19, sft_protocol: str = "abc123"
) -> dict[str, Path]:
    """Every artifact of a pipeline whose checkpoints answer so many of 20 problems rightly."""
    inputs = {"data": data(folder, 20)}
    for checkpoint, right in (("base", base), ("sft", sft), ("grpo", grpo)):
        inputs[checkpoint] = artifact(folder, checkpoint)
        inputs |= scored(folder, checkpoint, first_right(right), sft_protocol if checkpoint == "sft" else "abc123")
    return inputs


def run(folder: Path, inputs: dict[str, Path], **settings: Any) -> subprocess.CompletedProcess[str]:
    """The stage as a program; its output is in `folder/out`."""
    spec = {
        "stage": "report",
        "settings": {"title": "toy run", **settings},
        "inputs": {name: str(path) for name, path in inputs.items()},
        "output": str(folder / "out"),
        "state": str(folder / "state"),
        "seed": 7,
        "machine": {"device": "cpu", "threads": 1, "data_dir": None},
        "details": {
            "name": "toy",
            "command": "vcore run toy.yaml",
            "stages": [{"name": "sft", "state": "ran"}],
            "config": {},
        },
    }
    (folder / "out").mkdir(exist_ok=True)
    (folder / "spec.json").write_text(json.dumps(spec))
    return subprocess.run(
        [sys.executable, "-m", "stages.report", str(folder / "spec.json")], capture_output=True, text=True
    )


def report_of(folder: Path, inputs: dict[str, Path], **settings: Any) -> dict[str, Any]:
    """report.json of a run that must succeed."""
    answer = run(folder, inputs, **settings)
    assert answer.returncode == 0, answer.stderr
    report: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
    return report
