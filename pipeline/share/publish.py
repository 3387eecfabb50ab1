"""A checkpoint as a repository for the hub: the model, a card with its results, and the record to reproduce it from."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.digests import DigestMemo
from pipeline.core.errors import ConfigError
from pipeline.run.record import find_run, load_run, outside_of, read_report, report_of
from pipeline.store.documents import Manifest
from stages.base.settings import MAKE, BaseSettings
from stages.data.settings import DataSettings
from stages.grpo.settings import GrpoSettings
from stages.harness.json_files import write_json
from stages.harness.settings import StageSettings, role_of
from stages.report.kinds import declares, position
from stages.sft.settings import SftSettings

RECORD = "vcore"
"""Folder of the repository that holds the record."""
TRAINING: dict[str, type[StageSettings]] = {"sft": SftSettings, "grpo": GrpoSettings}
"""Stages that train on the user's data, in order -> their settings."""
FILLED_IN = ("source", "revision", "chat")
"""Fields of `base` that follow from the rest of a config."""
REPO_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def assemble(
    home: Path, run: str, checkpoint: str | None, repo_id: str, license: str | None, out: Path, linked: bool = False
) -> list[Path]:
    """Write the repository's files to `out`.

    Args:
        run: a run that ended, by id or `latest`.
        checkpoint: `sft`, `grpo` or `base`; None is the last one the run trained.
        license: the card's licence, as the hub names it; it follows from base model and data, so there is no default.
        out: a folder that does not exist yet, or is empty.
        linked: hard links to the store's files instead of copies: only for a folder that nobody edits.

    Returns:
        The files, relative to `out`.

    Raises:
        ConfigError: no such run or checkpoint, a run without a report, a checkpoint that is gone, damaged or not the
            one that the report is about, or a folder with something in it.
    """
    if not REPO_ID.match(repo_id):
        raise ConfigError(f"{repo_id!r} is no repository on the hub", fix="Name it OWNER/NAME.")
    folder = find_run(home, run)
    report = read_report(report_of(folder), config=dict, results=list, stages=list)
    report["outside"] = outside_of(report, home)
    stages = {stage.name: stage for stage in load_run(folder).stages}
    trained = [name for name in stages if declares(name.partition(".")[0], "makes_checkpoint")]
    chosen = checkpoint or trained[-1]
    if chosen not in trained:
        raise ConfigError(f"run {folder.name} has no checkpoint {chosen}; it has {', '.join(trained)}")
    artifact = Path(stages[chosen].folder)
    _check(artifact, next(stage["digest"] for stage in report["stages"] if stage["name"] == chosen))
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty", where="--out", fix="Name a new folder.")
    out.mkdir(parents=True, exist_ok=True)
    for source in sorted((artifact / "model").rglob("*")):
        if source.is_file():
            target = out / source.relative_to(artifact / "model")
            target.parent.mkdir(parents=True, exist_ok=True)
            (_link if linked else shutil.copyfile)(source, target)
    (out / RECORD).mkdir()
    write_json(out / RECORD / "report.json", report)
    for source in (folder / "report.md", artifact / "manifest.json"):
        shutil.copyfile(source, out / RECORD / source.name)
    (out / "README.md").write_text(card(report, chosen, repo_id, license), encoding="utf-8")
    return sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())


def _check(artifact: Path, digest: str) -> None:
    """Raise ConfigError unless a checkpoint is there, whole, and has the content that the report measured."""
    again = "Run the pipeline again, then push that run."
    if not (artifact / "manifest.json").is_file():
        raise ConfigError(f"{artifact} is not there any more: removed by `vcore store gc`, or set aside", fix=again)
    manifest = Manifest.read(artifact / "manifest.json")
    if manifest is None:
        raise ConfigError(f"file manifest.json of {artifact} is damaged", fix=again)
    if manifest.digest != digest:
        message = f"{artifact} was computed anew since, with other content; the run's report is not about it"
        raise ConfigError(message, fix=again)
    memo = DigestMemo(artifact / ".none")
    for entry in manifest.files:
        file = artifact / entry.path
        if not file.is_file() or memo.sha256(file) != entry.sha256:
            raise ConfigError(f"file {entry.path} of {artifact} is missing or damaged", fix=again)


def _link(source: Path, target: Path) -> None:
    """A hard link where the file system has them (weights are large), else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def card(report: dict[str, Any], checkpoint: str, repo_id: str, license: str | None) -> str:
    """The model card: the hub's metadata with the checkpoint's results, and how they came about."""
    import jinja2
    from huggingface_hub import EvalResult, ModelCardData

    config, results, outside = report["config"], report["results"], report["outside"]
    datasets = {entry["hub"] for label, entry in outside.items() if label.startswith("data.") and "hub" in entry}
    stages = {stage["name"] for stage in report["stages"]}
    metadata = ModelCardData(
        base_model=None if config["model"] == MAKE or Path(config["model"]).exists() else config["model"],
        datasets=sorted(datasets) or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        license=license,
        tags=["vcore", *(name for name in _training(checkpoint) if name in stages)],
        model_name=repo_id.partition("/")[2],
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type=r["benchmark"],
                dataset_name=r["benchmark"],
                dataset_split=r["split"],
                metric_type=r["metric"],
                metric_name=f"{r['metric']} {_bounds(r)}, n={r['n']}, protocol {r['protocol']}",
                metric_value=round(100 * r["value"], 2),
            )
            for r in results
            if r["checkpoint"] == checkpoint
        ],
    )
    checkpoints = list(dict.fromkeys(r["checkpoint"] for r in results))
    rows = []
    for name in dict.fromkeys(r["benchmark"] for r in results):
        measured = {r["checkpoint"]: r for r in results if r["benchmark"] == name}
        first = next(iter(measured.values()))
        cells = [f"{100 * r['value']:.1f} {_bounds(r)}" if (r := measured.get(c)) else "" for c in checkpoints]
        rows.append({"benchmark": name, "n": first["n"], "metric": first["metric"], "cells": cells})
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    templates = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True)
    text = templates.get_template("model_card.md.j2").render(
        metadata=metadata.to_yaml(),
        repo=repo_id,
        checkpoint=checkpoint,
        checkpoints=checkpoints,
        rows=rows,
        report=report,
        record=RECORD,
        sources=_sources(config, outside),
        settings=_settings(config, checkpoint),
    )
    return str(text)


def _sources(config: dict[str, Any], outside: dict[str, Any]) -> list[str]:
    """One line for each thing the pipeline started from: hub repositories at commits, digests of local files, tasks
    made from a seed."""
    lines = []
    for label, entry in outside.items():
        if "hub" in entry:
            kind = "" if label == "model" else "datasets/"
            address = f"https://huggingface.co/{kind}{entry['hub']}/tree/{entry['commit']}"
            lines.append(f"`{label}`: [{entry['hub']}]({address}) at `{entry['commit']}`")
        else:
            lines.append(f"`{label}`: local files, sha256 `{entry['sha256']}`")
    for kind in ("sft", "rl", "dev"):
        for index, source in enumerate(config.get("data", {}).get(kind, [])):
            label = f"data.{kind}.{index}"
            if label not in outside and source.get("task"):
                lines.append(f"`{label}`: {source['rows']} problems of `{source['task']}`, made from a seed")
    return lines


def _training(checkpoint: str) -> list[str]:
    """The stages of training that a checkpoint has behind it, where its run has them."""
    return [name for name in TRAINING if position(name) <= position(checkpoint)]


def _settings(config: dict[str, Any], checkpoint: str) -> str:
    """The settings that a checkpoint depends on, as YAML that a config takes: none that are null or of the machine."""
    trained = _training(checkpoint)
    made = {"base": BaseSettings} if config["model"] == MAKE else {}
    sections: dict[str, type[StageSettings]] = {**({"data": DataSettings} if trained else {}), **made}
    chosen: dict[str, Any] = {}
    for name, fields in (sections | {name: TRAINING[name] for name in trained}).items():
        section = config.get(name) or {}
        counted = (f for f in section if f not in fields.model_fields or role_of(fields, f) == "identity")
        # A method with its preset, which is none of the identity: its values are.
        chosen[name] = _shown({f: section[f] for f in counted if f not in FILLED_IN})
    chosen = {name: section for name, section in chosen.items() if section}
    return str(yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True, width=100)) if chosen else ""


def _shown(value: Any) -> Any:
    """A value without what is null or empty in it, and of files the name alone."""
    if isinstance(value, list):
        return [_shown(item) for item in value]
    if not isinstance(value, dict):
        return value
    shown = {f: Path(v).name if f == "file" else _shown(v) for f, v in value.items() if v is not None}
    return {f: v for f, v in shown.items() if v not in ({}, [])}


def _bounds(result: dict[str, Any]) -> str:
    """`[65.8, 73.9]`"""
    return f"[{100 * result['low']:.1f}, {100 * result['high']:.1f}]"


def upload(folder: Path, repo_id: str, private: bool) -> str:
    """Make the repository and upload `folder` in one commit; returns its address.

    Raises `ConfigError` where the hub refuses or does not answer.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Checkpoint, card and record from vcore")
    except (HfHubHTTPError, LocalTokenNotFoundError, httpx.HTTPError, OSError) as error:
        message = f"the hub did not take it: {type(error).__name__}: {str(error).splitlines()[0]}"
        fix = "Log in with `hf auth login`, or set HF_TOKEN; the folder is kept, and the same command tries again."
        raise ConfigError(message, fix=fix) from error
    return str(address)
