"""Writes the site: one page, its scripts, and the data that they load."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evaluation.records import RecordError
from pipeline.browse.data_files import write_data
from pipeline.browse.samples import Source, write_samples
from pipeline.core.errors import ConfigError
from pipeline.history.collect import METRICS, collect_all, seed_of
from pipeline.history.page import write_page
from pipeline.run.documents import RunRecordDocument
from pipeline.run.gates.gate import line, whole
from pipeline.run.record import list_runs, unreadable_runs
from pipeline.store.documents import Manifest, utc_now
from pipeline.store.store import Artifact, Store
from stages.report.render.pages import render
from stages.report.render.text import flat

PAGE = Path(__file__).parent / "page"
SCRIPTS = ("load.js", "filter.js", "graph.js", "views.js", "sample_views.js", "start.js")
MOST_SAMPLES = 100_000
DETAILS_PER_FILE = 100
_MARK = "data/site.js"
"""A folder that holds this is a site, and may be written anew."""


@dataclasses.dataclass
class Site:
    """What was written."""

    page: Path
    runs: int = 0
    artifacts: int = 0
    samples: int = 0
    left_out: int = 0  # scores whose samples are not in the site, because newer ones fill it
    trouble: list[str] = dataclasses.field(default_factory=list)  # what could not be read, a line each


def build_site(home: Path, folder: Path, most_samples: int = MOST_SAMPLES) -> Site:
    """Write the site of everything in `home` into a folder that is new, empty or an older site.

    Args:
        most_samples: how many samples it may hold; those of newer runs come first, and what does not fit is counted.

    Raises:
        ConfigError: the folder holds something else, or cannot be written.
        StoreError: there is no store.
    """
    store = Store.existing(home)
    records = list_runs(home)
    try:
        data = _prepare(folder)
        site = Site(folder / "index.html", runs=len(records))
        site.trouble += [f"{file}: cannot be read and is passed over" for file in unreadable_runs(home)]
        manifests = dict(_manifests(store, site))
        site.artifacts = len(manifests)
        numbers = {key: number for number, key in enumerate(manifests)}
        scores = _scores(store, records, manifests, numbers, site)
        _write_samples(store, scores, manifests, data, most_samples, site)
        histories = _histories(home, folder, records)
        _write_details(manifests, data)
        overview = {
            "made": utc_now(),
            "home": str(home),
            "runs": [_run(home, folder, record, numbers) for record in reversed(records)],
            "artifacts": [_artifact(manifest, numbers) for manifest in manifests.values()],
            "scores": [score["shown"] for score in scores],
            "histories": histories,
            "samples": site.samples,
            "left_out": site.left_out,
            "trouble": site.trouble,
        }
        write_data(data, "site", overview)
        for script in SCRIPTS:
            shutil.copyfile(PAGE / script, folder / script)
        variables = {"title": "vcore results", "scripts": SCRIPTS}
        (folder / "index.html").write_text(render(PAGE, "index.html.j2", variables), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror or error}", where="--out") from error
    store.memo.save()
    return site


def _prepare(folder: Path) -> Path:
    """Make the folder, without what an older site left; returns that of its data."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not (folder / _MARK).is_file():
        fix = "Name a folder that is new or empty, or an older site."
        raise ConfigError(f"{folder} holds something else than a site", where="--out", fix=fix)
    for part in ("data", "history"):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    (folder / _MARK).touch()  # one that is interrupted may be written anew
    return folder / "data"


def _manifests(store: Store, site: Site) -> Iterator[tuple[str, Manifest]]:
    """(STAGE/KEY, manifest) of every artifact."""
    for program, key, folder in store.artifacts():
        manifest = Manifest.read(folder / "manifest.json")
        if manifest is None:
            site.trouble.append(f"{program}/{key[:12]}: its manifest cannot be read")
        else:
            yield f"{program}/{key}", manifest


def _scores(
    store: Store,
    records: Sequence[RunRecordDocument],
    manifests: dict[str, Manifest],
    numbers: dict[str, int],
    site: Site,
) -> list[dict[str, Any]]:
    """Every benchmark of every score artifact, those of the newest runs first: what the page shows of it, and the
    artifact that it is of."""
    of_runs = [f"score/{s.key}" for r in reversed(records) for s in reversed(r.stages) if s.name.startswith("score.")]
    order = dict.fromkeys(name for name in [*of_runs, *reversed(manifests)] if name.startswith("score/"))
    scores: list[dict[str, Any]] = []
    for name in order:
        if name not in manifests:
            continue  # removed from the store; the run's page says so
        found = store.find("score", manifests[name].key)
        file = store.folder("score", manifests[name].key) / "metrics.json"
        try:
            measured = METRICS.validate_json(file.read_bytes()) if found.artifact is not None else {}
        except (OSError, ValueError) as error:
            found = dataclasses.replace(found, damage=f"metrics.json cannot be read ({type(error).__name__})")
            measured = {}
        if found.damage:
            site.trouble.append(f"{manifests[name].name} {manifests[name].key[:12]}: {found.damage}")
        for benchmark, m in measured.items():
            shown = m.model_dump(include={"metric", "value", "low", "high", "n", "k", "protocol"})
            checkpoint = manifests[name].name.partition(".")[2]
            shown |= {"artifact": numbers[name], "benchmark": benchmark, "checkpoint": checkpoint, "samples": 0}
            scores.append({"shown": shown, "artifact": found.artifact, "protocol": flat(m.protocol_details)})
    return scores


def _write_samples(
    store: Store,
    scores: list[dict[str, Any]],
    manifests: dict[str, Manifest],
    data: Path,
    most: int,
    site: Site,
) -> None:
    """Write the samples of the scores, in their order, until the next would be too many."""
    numbers: dict[str, dict[str, int]] = {}
    for number, score in enumerate(scores):
        numbers.setdefault(score["artifact"].key, {})[score["shown"]["benchmark"]] = number
        write_data(data, f"p{number}", [list(pair) for pair in score["protocol"].items()])
    for of_artifact in numbers.values():
        listed = [scores[number] for number in of_artifact.values()]
        if site.samples + sum(score["shown"]["n"] * score["shown"]["k"] for score in listed) > most:
            site.left_out += len(listed)
            continue
        artifact: Artifact = listed[0]["artifact"]
        sources = {
            name: store.find(record.stage.partition(".")[0], record.key).artifact
            for name, record in artifact.manifest.inputs.items()
        }
        try:
            source = Source(artifact, sources.get("generations"), sources.get("data"))
            for benchmark, count in write_samples(source, of_artifact, data).items():
                scores[of_artifact[benchmark]]["shown"]["samples"] = count
                site.samples += count
        except RecordError as error:
            site.trouble.append(f"{artifact.manifest.name} {artifact.key[:12]}: {error}")


def _histories(home: Path, folder: Path, records: Sequence[RunRecordDocument]) -> list[list[Any]]:
    """Write a page for each pipeline that scored in two runs or more; (name, runs, page) of each."""
    written = []
    for number, history in enumerate(collect_all(home, records)):
        write_page(history, folder / "history", f"{number}.html", back="../index.html")
        written.append([history.name, history.runs, f"history/{number}.html"])
    return written


def _run(home: Path, folder: Path, record: RunRecordDocument, numbers: dict[str, int]) -> dict[str, Any]:
    report = home / "runs" / record.id / "report.html"
    link = quote(os.path.relpath(report.resolve(), folder.resolve())) if report.is_file() else None
    stages = [
        [s.name, numbers.get(f"{s.name.partition('.')[0]}/{s.key}", -1), s.key[:12], s.state, round(s.seconds, 1)]
        for s in record.stages
    ]
    shown = {name: getattr(record, name) for name in ("id", "name", "status", "started", "command", "error")}
    gate = [[one.verdict, one.tier, one.benchmark, one.checkpoint, line(one)] for one in record.gate or ()]
    shown |= {"gate": gate, "overall": whole(record.gate) if record.gate else None}
    return shown | {"seed": seed_of(home / "runs" / record.id), "report": link, "stages": stages}


def _artifact(manifest: Manifest, numbers: dict[str, int]) -> list[Any]:
    """[stage, key, made, seconds, bytes, headline, inputs]"""
    inputs = [
        [name, numbers.get(f"{source.stage.partition('.')[0]}/{source.key}", -1), source.stage, source.key[:12]]
        for name, source in manifest.inputs.items()
    ]
    headline = str(manifest.metrics.get("headline", ""))[:200]
    name = manifest.name or manifest.stage
    return [name, manifest.key, manifest.ended, round(manifest.seconds, 1), manifest.size, headline, inputs]


def _write_details(manifests: dict[str, Manifest], data: Path) -> None:
    """What an artifact's own page shows beside, in files of many: settings, versions, machine, files."""
    details = [
        {
            "settings": _pairs(flat(manifest.preimage.settings)),
            "versions": _pairs(manifest.versions),
            "machine": _pairs(flat(manifest.hardware.model_dump())),
            "proof": _pairs(flat(manifest.proof)),
            "files": [[entry.path, entry.size, entry.sha256[:12]] for entry in manifest.files[:200]],
            "command": manifest.command,
            "commit": manifest.git.commit or "",
            "digest": manifest.digest,
        }
        for manifest in manifests.values()
    ]
    for start in range(0, len(details), DETAILS_PER_FILE):
        write_data(data, f"a{start // DETAILS_PER_FILE}", details[start : start + DETAILS_PER_FILE])


def _pairs(values: dict[str, str]) -> list[list[str]]:
    return [[name, value] for name, value in values.items()]
