"""Runs of one pipeline, one a night, as the orchestrator leaves them: real artifacts of the real store."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.metrics.estimates import mean_estimate
from evaluation.records import Generation, Problem, Score, write_jsonl
from pipeline.core.digests import digest
from pipeline.store.documents import InputRecord, ManifestDraft, Preimage
from pipeline.store.store import Artifact, Store

GSM = "gsm8k"
Verdicts = Sequence[Sequence[str]]
"""Of each problem, the verdict on each of its samples."""


@dataclasses.dataclass
class Night:
    """What one run scored: checkpoint -> verdicts, all on one benchmark."""

    verdicts: dict[str, Verdicts]
    protocol: dict[str, Any] = dataclasses.field(default_factory=lambda: {"sampling": {"temperature": 0.0}})
    seed: int = 0
    status: str = "done"
    name: str = "nightly"
    answers: dict[tuple[str, int, int], str] = dataclasses.field(default_factory=dict)
    """(checkpoint, problem, sample) -> completion, where it is not the usual one."""


def right(count: int, n: int = 100, first: int = 0) -> list[list[str]]:
    """One sample a problem, `count` of `n` correct from number `first` on."""
    return [["correct" if first <= i < first + count else "wrong"] for i in range(n)]


def make_nights(home: Path, nights: Sequence[Night], samples: bool = False, benchmark: str = GSM) -> list[str]:
    """Write everything; returns the runs' ids. `samples`: also problems and generations, not the scores alone."""
    store, ids = Store(home), []
    for number, night in enumerate(nights):
        started = datetime.datetime(2026, 1, 1, 2, tzinfo=datetime.UTC) + datetime.timedelta(days=number)
        run = f"{started:%Y%m%d-%H%M%S}-{night.name}"
        made: dict[str, Artifact] = {}
        for checkpoint, verdicts in night.verdicts.items():
            if samples:
                made |= _samples(store, checkpoint, verdicts, night, benchmark)
            made[f"score.{checkpoint}"] = _score(store, checkpoint, verdicts, night, benchmark, made)
        _record(home / "runs" / run, night, made, started)
        ids.append(run)
    return ids


def _record(folder: Path, night: Night, made: dict[str, Artifact], started: datetime.datetime) -> None:
    folder.mkdir(parents=True)
    stages = [
        {"name": name, "key": a.key, "state": "ran", "seconds": 1.0, "folder": str(a.folder)}
        for name, a in made.items()
    ]
    record = {
        "id": folder.name,
        "name": night.name,
        "command": f"vcore run {night.name}.yaml",
        "started": started.isoformat(timespec="seconds"),
        "status": night.status,
        "plan": [],
        "stages": stages,
    }
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.json").write_text(json.dumps({"name": night.name, "seed": night.seed}))


def _publish(store: Store, name: str, files: dict[str, Any], inputs: dict[str, Artifact], identity: Any) -> Artifact:
    """An artifact with these files: rows of a .jsonl, or a document. The same identity is the same artifact."""
    program = name.partition(".")[0]
    key = digest([name, identity])
    if (found := store.find(program, key).artifact) is not None:
        return found
    out = store.work(program, key) / "out"
    for file, content in files.items():
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".jsonl"):
            write_jsonl(out / file, content)
        else:
            (out / file).write_text(json.dumps(content))
    draft = ManifestDraft(
        stage=program,
        name=name,
        key=key,
        preimage=Preimage(stage=program),
        seconds=1.0,
        started="2026-01-01T02:00:00+00:00",
        ended="2026-01-01T02:00:01+00:00",
        inputs={n: InputRecord(stage=a.manifest.name, key=a.key, digest=a.manifest.digest) for n, a in inputs.items()},
    )
    return store.publish(program, key, draft)


def _samples(store: Store, checkpoint: str, verdicts: Verdicts, night: Night, benchmark: str) -> dict[str, Artifact]:
    problems = [Problem(f"{benchmark}/{i}", benchmark, "maths", f"question {i}?", str(i)) for i in range(len(verdicts))]
    data = _publish(store, "data", {f"benchmarks/{benchmark}.jsonl": problems}, {}, [benchmark, len(verdicts)])
    model = _publish(store, checkpoint, {"model/config.json": {}}, {"data": data}, [night.seed])
    generations = [
        Generation(
            benchmark,
            f"{benchmark}/{i}",
            j,
            f"<|user|>question {i}?",
            night.answers.get((checkpoint, i, j), f"so it is \\boxed{{{i if verdict == 'correct' else i + 1}}}"),
            "stop",
            7,
            9,
            night.seed,
        )
        for i, of_problem in enumerate(verdicts)
        for j, verdict in enumerate(of_problem)
    ]
    inputs = {"model": model, "data": data}
    files = {"generations.jsonl": generations, "summary.json": {"protocol": {}}}
    identity = [verdicts, night.protocol, night.seed, sorted(night.answers.items())]
    generate = _publish(store, f"generate.{checkpoint}", files, inputs, identity)
    return {"data": data, checkpoint: model, f"generate.{checkpoint}": generate}


def _score(
    store: Store, checkpoint: str, verdicts: Verdicts, night: Night, benchmark: str, made: dict[str, Artifact]
) -> Artifact:
    scores = [
        Score(benchmark, f"{benchmark}/{i}", j, verdict, str(i), str(i))  # type: ignore[arg-type]
        for i, of_problem in enumerate(verdicts)
        for j, verdict in enumerate(of_problem)
    ]
    estimate = mean_estimate([[float(verdict == "correct") for verdict in of_problem] for of_problem in verdicts])
    counts = dict.fromkeys(("correct", "wrong", "no_answer", "timeout", "grader_error"), 0)
    for score in scores:
        counts[score.verdict] += 1
    entry = {
        "metric": "accuracy",
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "k": len(verdicts[0]),
        "verdicts": counts,
        "truncated": 0,
        "prompt_too_long": 0,
        "no_answer": counts["no_answer"],
        "protocol": digest(night.protocol)[:12],
        "protocol_details": night.protocol,
    }
    inputs = {n: made[m] for n, m in (("generations", f"generate.{checkpoint}"), ("data", "data")) if m in made}
    files = {"scores.jsonl": scores, "metrics.json": {benchmark: entry}}
    identity = [verdicts, night.protocol, night.seed, {name: a.key for name, a in inputs.items()}]
    return _publish(store, f"score.{checkpoint}", files, inputs, identity)
