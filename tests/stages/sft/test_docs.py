"""The example of docs/methods.md, run as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import yaml

from stages import sft as package
from stages.harness.context import Context
from stages.sft.settings import SftSettings

PAGE = Path(package.__file__).parents[2] / "docs" / "methods.md"


def test_the_pages_own_method_trains(sft_context: Callable[..., Context[SftSettings]], tmp_path: Path) -> None:
    from stages.sft import run as sft

    text = PAGE.read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    [config] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    method = yaml.safe_load(config)["sft"]["method"]
    file = tmp_path / method["file"]
    file.write_text(code, encoding="utf-8")
    context = sft_context("run", method={**method, "file": str(file)})
    assert sft.run(context).proof["steps"] == 3
    curve = (context.record / "metrics.jsonl").read_text(encoding="utf-8")
    assert '"kl"' in curve, "its weights are described like any other's"
