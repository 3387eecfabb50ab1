"""Running a recorded result again, from nothing but its record, and saying how it came back."""

import copy
import json
from pathlib import Path
from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.plan.decide import Options
from pipeline.prefect_.run import run as run_session
from pipeline.run.record import find_run, list_runs, outside_of, report_of
from pipeline.run.session import Session
from pipeline.run.view import View
from stages.harness.json_files import write_json

OF_ROUNDING = ("device", "threads", "stages_at_once", "launch", "deterministic")
"""Settings of `execution` by which sums are taken in another order."""
WITHOUT_A_CLOCK = ("base", "sft", "generate")
"""Stages whose bytes no time limit decides, as it does where answers are graded."""
NEEDED = ("title", "seed", "config", "stages", "results", "versions", "git")


def read_record(home: Path, name: str) -> tuple[dict[str, Any], str]:
    """The report.json of a run, and a name for it.

    Args:
        name: a run by its id, a report.json, an artifact's manifest.json (which stands for the last run that ended with
            it), or a folder that holds one of the two.

    Raises:
        ConfigError: there is none, it is no record of a run, or no run ended with that artifact.
    """
    path, run = Path(name).expanduser(), None
    if not path.exists():
        if "/" in name or path.suffix == ".json":
            fix = "Name a run (vcore runs), or a report.json or manifest.json that is there."
            raise ConfigError("there is no such file or folder", where=name, fix=fix)
        path = report_of(find_run(home, name))
        run = path.parent
    elif path.is_dir():
        run = path.resolve()
        files = [run / "report.json", run / "manifest.json"]
        path = next((file for file in files if file.exists()), files[0])
    record = read_report(path)
    if {"preimage", "key", "files"} <= record.keys():
        path = _report_with(record["stage"], record["key"], path, home)
        record, run = read_report(path), path.parent
    missing = [field for field in NEEDED if field not in record]
    if missing:
        message = f"{path} is no record of a run: it has no {', '.join(missing)}"
        raise ConfigError(message, fix="Name the report.json of a run.")
    record["outside"] = outside_of(record, home)
    if run is not None and (run / "run.json").is_file():
        return record, run.name
    return record, f"{record['title']}-seed-{record['seed']}".replace("/", "-")


def read_report(file: Path) -> dict[str, Any]:
    """The JSON object in a file, whatever version wrote it. Raises `ConfigError` where it cannot be read."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fix = "Name a run that ended, or a report.json."
        raise ConfigError(f"{file}: no record that could be read: {error}", fix=fix) from error
    return record if isinstance(record, dict) else {}


def _report_with(program: str, key: str, file: Path, home: Path) -> Path:
    """The report.json of the last run that ended with an artifact: beside its manifest `file` (as `vcore push` puts
    it), or of its home."""
    beside = file.parent / "report.json"
    if beside.is_file() and key in (stage.get("key") for stage in read_report(beside).get("stages", [])):
        return beside
    folder = file.resolve().parent  # HOME/store/STAGE/KEY
    homes = [folder.parents[2]] if folder.parts[-3:] == ("store", program, key) else []
    runs = [
        place / "runs" / run.id
        for place in dict.fromkeys((*homes, home))
        for run in reversed(list_runs(place))
        if key in (stage.key for stage in run.stages)
    ]
    for run in runs:
        if (run / "report.json").is_file():
            return run / "report.json"
    ran = f"; {runs[0].name} used it and has no report" if runs else ""
    what = f"{file} is the manifest of one artifact ({program} {key[:12]})"
    record = "HOME/runs/ID/report.json (it lists this key under `stages`)"
    raise ConfigError(
        f"{what}, and no run in {home / 'runs'} ended with it{ran}",
        fix=f"Give --home with the home of its run, or the record itself: {record}.",
    )


def pinned(config: dict[str, Any], outside: dict[str, Any]) -> dict[str, Any]:
    """The config with every hub revision set to the commit that the run read: `main` may be another one today.

    Args:
        config: as a record has it.
        outside: label -> {hub, commit} or {sha256}, labelled as in `pipeline.plan.external`.
    """
    config = copy.deepcopy(config)
    for label, entry in outside.items():
        if "commit" not in entry:
            continue
        if label == "model":
            config["model_revision"] = entry["commit"]
        elif label.startswith("benchmark "):
            config.setdefault("benchmark_revisions", {})[label.removeprefix("benchmark ")] = entry["commit"]
        else:
            _, kind, index = label.split(".")  # data.sft.0
            config["data"][kind][int(index)]["revision"] = entry["commit"]
    return config


def rerun(record: dict[str, Any], home: Path, overrides: list[str], view: View) -> Session:
    """Run the record's config on the data it had, in a store of its own; a second call goes on where the first was.

    Nothing of the first run is there: a mirror, which would hand its artifacts over, is left out, and so are the
    trackers that the first run went to, which may be those of somebody else.
    """
    home.mkdir(parents=True, exist_ok=True)
    config = {**pinned(record["config"], record["outside"]), "home": str(home), "export": None}
    config["execution"] = {**config.get("execution", {}), "mirror": None}
    write_json(home / "config.yaml", config)  # JSON is YAML
    session = Session.prepare(home / "config.yaml", overrides, Options(), view)
    run_session(session)
    return session


def compare(record: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """How a result came back.

    Args:
        record, again: report.json of the first run and of the second.

    Returns:
        `verdict`: `bit for bit` (every artifact but the report has the same bytes), `within the intervals` (every score
        lies in the 95 % interval that it had, under the same protocol) or `not reproduced`; `stages` and `results`, one
        entry each; `differences` of data, versions, commit and hardware, which may be the reason; `broken`, the first
        stage that made other bytes of the same inputs although nothing differs and it was to come back bit for bit
        in both runs, else None. The verdict is then `not reproduced`, wherever the scores lie: something has an effect
        that no record has.
    """
    made = {stage["name"]: stage for stage in again["stages"]}
    stages = [
        _made_again(stage, made.get(stage["name"], {})) for stage in record["stages"] if stage["name"] != "report"
    ]
    measured = {(r["checkpoint"], r["benchmark"]): r for r in again["results"]}
    results = [_came_back(old, measured.get((old["checkpoint"], old["benchmark"]))) for old in record["results"]]
    verdict = "not reproduced"
    if all(stage["same_bytes"] for stage in stages):
        verdict = "bit for bit"
    elif all(result["came_back"] in ("the same", "within the interval") for result in results):
        verdict = "within the intervals"
    differences = _differences(record, again)
    broken = None if differences else _broken(record, again)
    if broken is not None:
        verdict = "not reproduced"
    return {"verdict": verdict, "stages": stages, "results": results, "differences": differences, "broken": broken}


def _made_again(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """One stage of the first run beside that of the second."""
    return {"stage": old["name"], "same_bytes": new.get("digest") == old["digest"]}


def _broken(record: dict[str, Any], again: dict[str, Any]) -> str | None:
    """The first stage that was to come back bit for bit and did not, with all equal that is known to matter."""
    made = {stage["name"]: stage for stage in again["stages"]}
    for old in record["stages"]:
        new, kind = made.get(old["name"]), old["name"].partition(".")[0]
        if new is None or new["digest"] == old["digest"] or kind not in WITHOUT_A_CLOCK:
            continue
        promised = all(stage.get("comes_back") == "bit for bit" for stage in (old, new))
        configs = (record["config"].get(kind), again["config"].get(kind))
        if old.get("state") == "ran" and promised and configs[0] == configs[1] and _facts(old) == _facts(new):
            return str(old["name"])
    return None


def _facts(stage: dict[str, Any]) -> dict[str, Any]:
    """What decides a stage's bytes, as its manifest has it; of a changed checkout nothing is equal."""
    git, hardware = stage["git"], stage["hardware"]
    return {
        "inputs": {name: entry["digest"] for name, entry in stage["inputs"].items()},
        "versions": stage["versions"],
        "commit": object() if git["dirty"] else git["commit"],
        **{name: hardware.get(name) for name in ("cpu", "cores", "gpu")},
    }


def _came_back(old: dict[str, Any], new: dict[str, Any] | None) -> dict[str, Any]:
    """One result of the first run beside that of the second."""
    if new is None:
        word = "missing"
    elif new["protocol"] != old["protocol"]:
        word = "another protocol"
    elif new["value"] == old["value"]:
        word = "the same"
    else:
        word = "within the interval" if old["low"] <= new["value"] <= old["high"] else "outside the interval"
    first = {name: old[name] for name in ("checkpoint", "benchmark", "value", "low", "high")}
    return first | {"again": new["value"] if new else None, "came_back": word}


def _differences(record: dict[str, Any], again: dict[str, Any]) -> list[str]:
    data, data_now = record["outside"], again["outside"]
    out = [
        f"{label}: {_read_outside(data.get(label))} -> {_read_outside(data_now.get(label))}"
        for label in sorted({*data, *data_now})
        if data.get(label) != data_now.get(label)
    ]
    old, new = record["versions"], again["versions"]
    out += [
        f"{name}: {old.get(name)} -> {new.get(name)}" for name in sorted({*old, *new}) if old.get(name) != new.get(name)
    ]
    before, now = record["git"]["commit"], again["git"]["commit"]
    shorter = min(len(before or ""), len(now or ""))  # a wheel knows the first digits of its commit
    if (before or "")[:shorter] != (now or "")[:shorter] or (before is None) != (now is None):
        out.append(f"commit: {before} -> {now}")
    if record["git"]["dirty"]:
        out.append("the first run was of a checkout with changes that no commit holds")
    first, second = (
        {name: (r.get("hardware") or {}).get(name) for name in ("cpu", "cores", "gpu")} for r in (record, again)
    )
    out += [f"{name}: {first[name]} -> {second[name]}" for name in first if first[name] != second[name]]
    how, how_now = (r["config"].get("execution", {}) for r in (record, again))
    changed = (name for name in OF_ROUNDING if name in how and name in how_now and how[name] != how_now[name])
    return out + [f"execution.{name}: {how[name]} -> {how_now[name]}" for name in changed]


def _read_outside(entry: dict[str, Any] | None) -> str:
    """`openai/gsm8k at 0123456789ab`, `local files with sha256 0123456789ab`"""
    if entry is None:
        return "none recorded"
    if "commit" in entry:
        return f"{entry['hub']} at {entry['commit'][:12]}"
    return f"local files with sha256 {entry['sha256'][:12]}"
