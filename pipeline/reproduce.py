"""Running a recorded result again, from nothing but its record, and saying how it came back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.plan import Options
from pipeline.progress import View
from pipeline.runs import find_run
from pipeline.session import Session
from stages.runtime import write_json

NEEDED = ("title", "seed", "config", "stages", "results", "versions", "git")


def read_record(home: Path, name: str) -> tuple[dict[str, Any], str]:
    """A run's report.json: of a run by its id, of a folder that holds one, or the file itself; and a name for it.

    Raises:
        ConfigError: there is none, or it is no record of a run.
    """
    path = Path(name).expanduser()
    if not path.exists():
        path = find_run(home, name)
    file = path / "report.json" if path.is_dir() else path
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: no record that could be read: {error}", fix="Name a run that ended, or a report.json.") from error
    missing = [field for field in NEEDED if not isinstance(record, dict) or field not in record]
    if missing:
        raise ConfigError(f"{file} is no record of a run: it has no {', '.join(missing)}", fix="Name the report.json of a run.")
    name = file.parent.name if path.is_dir() else f"{record['title']}-seed-{record['seed']}"
    return record, name.replace("/", "-")


def rerun(record: dict[str, Any], home: Path, overrides: list[str], view: View) -> Session:
    """Run the record's config in a store of its own, where nothing of the first run is; a second call goes on where it was."""
    home.mkdir(parents=True, exist_ok=True)
    config = {**record["config"], "home": str(home)}
    write_json(home / "config.yaml", config)  # JSON is YAML
    session = Session.prepare(home / "config.yaml", overrides, Options(), view)
    session.run()
    return session


def compare(record: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """How a result came back.

    Args:
        record, again: report.json of the first run and of the second.

    Returns:
        `verdict`: `bit for bit` (every artifact but the report has the same bytes), `within the intervals` (every score lies in the 95 %
        interval that it had, under the same protocol) or `not reproduced`; `stages` and `results`, one entry each; `differences` of
        commit and versions, which may be the reason.
    """
    digests = {stage["name"]: stage["digest"] for stage in again["stages"]}
    stages = [
        {"stage": stage["name"], "same_bytes": digests.get(stage["name"]) == stage["digest"]}
        for stage in record["stages"]
        if stage["name"] != "report"
    ]
    found = {(r["checkpoint"], r["benchmark"]): r for r in again["results"]}
    results = []
    for old in record["results"]:
        new = found.get((old["checkpoint"], old["benchmark"]))
        if new is None:
            came_back = "missing"
        elif new["protocol"] != old["protocol"]:
            came_back = "another protocol"
        elif new["value"] == old["value"]:
            came_back = "the same"
        else:
            came_back = "within the interval" if old["low"] <= new["value"] <= old["high"] else "outside the interval"
        results.append(
            {name: old[name] for name in ("checkpoint", "benchmark", "value", "low", "high")}
            | {"again": new["value"] if new else None, "came_back": came_back}
        )
    if all(stage["same_bytes"] for stage in stages):
        verdict = "bit for bit"
    else:
        near = all(result["came_back"] in ("the same", "within the interval") for result in results)
        verdict = "within the intervals" if near else "not reproduced"
    return {"verdict": verdict, "stages": stages, "results": results, "differences": _differences(record, again)}


def _differences(record: dict[str, Any], again: dict[str, Any]) -> list[str]:
    old, new = record["versions"], again["versions"]
    out = [f"{name}: {old.get(name)} -> {new.get(name)}" for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    if record["git"]["commit"] != again["git"]["commit"]:
        out.append(f"commit: {record['git']['commit']} -> {again['git']['commit']}")
    if record["git"]["dirty"]:
        out.append("the first run was of a checkout with changes that no commit holds")
    first, second = ({name: (r.get("hardware") or {}).get(name) for name in ("cpu", "gpu")} for r in (record, again))
    out += [f"{name}: {first[name]} -> {second[name]}" for name in first if first[name] != second[name]]
    return out
