"""No key holds the version or the commit of this project: a key holds the files that compute, and what does not compute
may change between two versions."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.config.schema import load_config
from pipeline.core.shipped import DISTRIBUTION
from pipeline.plan.graph import build_graph
from pipeline.plan.keys import KeyMaker
from pipeline.store.store import Store
from tests.pipeline.plan.test_keys import CONFIG

METHOD = """
import evaluation.statistics
from pipeline.core import version
from stages.sft.reweighting.base import Method


def make(settings, context):
    return Method()
"""


def test_no_key_holds_this_projects_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does that of a custom file that imports this project."""
    (tmp_path / "method.py").write_text(METHOD)
    text = CONFIG.replace("- {name: aime24}\n", "").replace("{task: gsm8k,", "{task: word_problems,")
    method = f"sft: {{method: {{name: custom, file: {tmp_path / 'method.py'}}}}}"
    (tmp_path / "keys.yaml").write_text(text.replace("sft: {}", method))
    config = load_config(tmp_path / "keys.yaml")
    upstream = cast(Any, SimpleNamespace(content_digest=lambda select: "0" * 64))

    def keys() -> dict[str, str]:
        graph = build_graph(config)
        maker = KeyMaker(config, graph, Store(tmp_path / "home"))
        made = {stage.name: maker.preimage(stage, dict.fromkeys(stage.inputs, upstream)) for stage in graph}
        assert not any(DISTRIBUTION in preimage.versions for preimage in made.values())
        return {name: preimage.key for name, preimage in made.items()}

    before = keys()
    assert {"data", "base", "sft", "grpo", "report"} <= before.keys()
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9.9" if name == DISTRIBUTION else real(name))
    assert keys() == before
