"""A checkpoint as a repository for the hub: the model, a card with its results, and the record it can be reproduced from."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.runs import find_run

RECORD = "vcore"
"""Folder of the repository that holds the record."""
REPO_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def assemble(
    home: Path, run: str, checkpoint: str | None, repo_id: str, license: str | None, out: Path, linked: bool = False
) -> list[Path]:
    """Write the repository's files to `out`.

    Args:
        run: a run that ended, by id or `latest`.
        checkpoint: `sft`, `grpo` or `base`; None is the last one the run trained.
        license: the card's licence, as the hub names it; a model's licence follows from its base model and data, so there is no default.
        out: a folder that does not exist yet, or is empty.
        linked: hard links to the store's files instead of copies: only for a folder that nobody edits.

    Returns:
        The files, relative to `out`.

    Raises:
        ConfigError: no such run or checkpoint, a run that did not end, or a folder with something in it.
    """
    if not REPO_ID.match(repo_id):
        raise ConfigError(f"{repo_id!r} is no repository on the hub", fix="Name it OWNER/NAME.")
    folder = find_run(home, run)
    if not (folder / "report.json").is_file():
        raise ConfigError(f"run {folder.name} has no report: it did not end", fix="Continue it, then push.")
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    stages: dict[str, dict[str, Any]] = {stage["name"]: stage for stage in json.loads((folder / "run.json").read_text("utf-8"))["stages"]}
    trained = [name for name in ("base", "sft", "grpo") if name in stages]
    chosen = checkpoint or trained[-1]
    if chosen not in trained:
        raise ConfigError(f"run {folder.name} has no checkpoint {chosen}; it has {', '.join(trained)}")
    artifact = Path(stages[chosen]["folder"])
    if not (artifact / "model" / "config.json").is_file():
        raise ConfigError(f"{artifact} is not there any more", fix="Run the pipeline again.")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty", where="--out", fix="Name a new folder.")
    out.mkdir(parents=True, exist_ok=True)
    for source in sorted((artifact / "model").rglob("*")):
        if source.is_file():
            target = out / source.relative_to(artifact / "model")
            target.parent.mkdir(parents=True, exist_ok=True)
            (_link if linked else shutil.copyfile)(source, target)
    (out / RECORD).mkdir()
    for source in (folder / "report.json", folder / "report.md", artifact / "manifest.json"):
        shutil.copyfile(source, out / RECORD / source.name)
    (out / "README.md").write_text(card(report, chosen, repo_id, license), encoding="utf-8")
    return sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())


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

    config, results = report["config"], report["results"]
    mine = [r for r in results if r["checkpoint"] == checkpoint]
    data = ModelCardData(
        base_model=None if config["model"] == "make" or Path(config["model"]).exists() else config["model"],
        library_name="transformers",
        pipeline_tag="text-generation",
        license=license,
        tags=["vcore", *(name for name in ("sft", "grpo") if name in (s["name"] for s in report["stages"]))],
        model_name=repo_id.partition("/")[2],
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type=r["benchmark"],
                dataset_name=r["benchmark"],
                dataset_split=r["split"],
                metric_type=r["metric"],
                metric_name=f"{r['metric']} [{100 * r['low']:.1f}, {100 * r['high']:.1f}], n={r['n']}, protocol {r['protocol']}",
                metric_value=round(100 * r["value"], 2),
            )
            for r in mine
        ],
    )
    checkpoints = list(dict.fromkeys(r["checkpoint"] for r in results))
    rows = [
        {"benchmark": name, "n": first["n"], "metric": first["metric"], "cells": [_cell(results, name, c) for c in checkpoints]}
        for name in dict.fromkeys(r["benchmark"] for r in results)
        if (first := next(r for r in results if r["benchmark"] == name))
    ]
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    text = templates.get_template("model_card.md.j2").render(
        metadata=data.to_yaml(), repo=repo_id, checkpoint=checkpoint, checkpoints=checkpoints, rows=rows, report=report, record=RECORD
    )
    return str(text)


def _cell(results: list[dict[str, Any]], benchmark: str, checkpoint: str) -> str:
    for r in results:
        if (r["benchmark"], r["checkpoint"]) == (benchmark, checkpoint):
            return f"{100 * r['value']:.1f} [{100 * r['low']:.1f}, {100 * r['high']:.1f}]"
    return ""


def upload(folder: Path, repo_id: str, private: bool) -> str:
    """Make the repository and upload `folder` in one commit; returns its address. Raises ConfigError where the hub refuses."""
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Checkpoint, card and record from vcore")
    except (HfHubHTTPError, LocalTokenNotFoundError, httpx.HTTPError, OSError) as error:
        raise ConfigError(
            f"the hub did not take it: {type(error).__name__}: {str(error).splitlines()[0]}",
            fix="Log in with `hf auth login`, or set HF_TOKEN; the folder is kept, and the same command tries again.",
        ) from error
    return str(address)
