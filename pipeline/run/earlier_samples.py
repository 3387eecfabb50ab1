"""Samples that the store has already: of the same model, drawn in the same way, for a benchmark that is sampled more
often now or beside other benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.store.documents import Manifest, Preimage
from pipeline.store.store import Store

GENERATE = "generate"
LOOKED_AT = 2000
"""Latest artifacts that are looked at."""


def earlier_samples(store: Store, key: str, preimage: Preimage, versions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Artifacts of the generate stage whose samples serve for one that is to be made, latest first, each as its
    `folder` and the settings of its `benchmarks`.

    All that their samples depend on is equal but the benchmarks, and with them the data; what is asked of the model is
    compared by the stage, sample by sample (stages/generate/earlier.py). A served model's samples never serve: nobody
    here knows whether it is still the same.

    Args:
        versions: of the stage's libraries with their build tags, which keys leave out: another build samples otherwise.
    """
    if "model" not in preimage.inputs:
        return []
    wanted = _apart(preimage)
    files = sorted((store.home / "store" / GENERATE).glob("*/manifest.json"), key=_time, reverse=True)
    found = []
    for file in files[:LOOKED_AT]:
        manifest = Manifest.read(file)
        if manifest is None or manifest.key == key or _apart(manifest.preimage) != wanted:
            continue
        if any(manifest.versions.get(library) != version for library, version in versions.items()):
            continue
        artifact = store.find(GENERATE, manifest.key).artifact
        if artifact is not None:
            benchmarks = manifest.preimage.settings.get("benchmarks", [])
            found.append({"folder": str(artifact.folder), "benchmarks": benchmarks})
    return found


def _apart(preimage: Preimage) -> dict[str, Any]:
    """A pre-image without its benchmarks and the data they come from."""
    whole = preimage.to_json()
    settings = {name: value for name, value in whole["settings"].items() if name != "benchmarks"}
    inputs = {name: value for name, value in whole["inputs"].items() if name != "data"}
    return whole | {"settings": settings, "inputs": inputs}


def _time(file: Any) -> int:
    try:
        return int(file.stat().st_mtime_ns)
    except OSError:  # removed meanwhile
        return 0
