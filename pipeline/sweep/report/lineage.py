"""Where the numbers of a sweep come from: runs, artifacts, data and models from outside, commits, libraries, machines."""

from __future__ import annotations

from typing import Any

from pipeline.sweep.report.cells import Cell
from pipeline.sweep.report.collect import SweepReport
from stages.report.model import commit_of, joined, machine, origin

SHOWN = ("data", "base", "sft", "grpo")
"""Stages whose keys the pages show; the JSON has all."""


def commits(cell: Cell) -> list[str]:
    """Of the code that computed the cell's artifacts: `0123456789ab`, with a `+` where the work tree differed from it."""
    return list(dict.fromkeys(found for manifest in cell.manifests.values() if (found := commit_of(manifest["git"]))))


def as_json(report: SweepReport) -> list[dict[str, Any]]:
    """A row a cell: from its run to what it was made from. Digests and revisions in full."""
    return [
        {
            "labels": group.labels,
            "seed": cell.seed,
            "run": cell.run,
            "commits": commits(cell),
            "keys": {stage["name"]: stage["key"] for stage in cell.stages},
            "digests": {name: manifest["digest"] for name, manifest in cell.manifests.items()},
            "outside": {
                name: manifest["preimage"]["outside"]
                for name, manifest in cell.manifests.items()
                if manifest["preimage"]["outside"]
            },
        }
        for group in report.groups
        for cell in group.cells
    ]


def environment(report: SweepReport) -> dict[str, Any]:
    """Library -> versions, and the machines, of all artifacts."""
    manifests = _manifests(report)
    return {
        "versions": {library: ", ".join(found) for library, found in joined(m["versions"] for m in manifests).items()},
        "machines": list(dict.fromkeys(machine(m["hardware"]) for m in manifests)),
    }


def view(report: SweepReport) -> dict[str, Any]:
    """For the pages: cells, what was read from outside (once, with how many cells rest on it), environment."""
    cells = [cell for group in report.groups for cell in group.cells]
    used: dict[tuple[str, str], set[str]] = {}
    for cell in cells:
        for manifest in cell.manifests.values():
            for label, entry in manifest["preimage"]["outside"].items():
                used.setdefault((label, origin(entry)), set()).add(cell.run)
    return {
        "lineage": [
            {
                "group": group.name,
                "seed": cell.seed,
                "run": cell.run,
                "commit": " ".join(commits(cell)) or "unknown",
                "keys": " ".join(f"{s['name']} {s['key'][:8]}" for s in cell.stages if s["name"] in SHOWN),
            }
            for group in report.groups
            for cell in group.cells
        ],
        "outside": [
            {
                "what": what,
                "origin": where,
                "cells": "every cell" if len(runs) == len(cells) else f"{len(runs)} of {len(cells)} cells",
            }
            for (what, where), runs in used.items()
        ],
        **environment(report),
    }


def _manifests(report: SweepReport) -> list[dict[str, Any]]:
    return [manifest for group in report.groups for cell in group.cells for manifest in cell.manifests.values()]
