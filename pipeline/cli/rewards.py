"""`vcore doctor --rewards CONFIG`: completions that try to fool the rewards of a config, and what they got."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.table import Table

from pipeline.config.schema import load_config
from pipeline.core.errors import ConfigError, StageFailed


def probe_rewards(config_file: Path) -> list[dict[str, Any]]:
    """Every probe with its verdict and reward, as plain values. Raises ConfigError where the config has no RL, StageFailed for a
    reward function that is none."""
    config = load_config(config_file)
    if config.grpo is None:
        raise ConfigError(
            f"{config_file} has no RL whose rewards could be probed", where="grpo", fix="Add a `grpo:` section."
        )
    from stages.grpo.probes import probe
    from stages.harness.context import StageError

    try:
        return [dataclasses.asdict(found) for found in probe(config.grpo)]
    except StageError as error:
        raise StageFailed("grpo", error.message, fix=error.fix) from error


def table_of(probes: list[dict[str, Any]]) -> Table:
    """One line a probe; what fooled the rewards is marked."""
    table = Table(box=None, pad_edge=False)
    for column in ("", "task", "completion", "verdict", "reward"):
        table.add_column(column, justify="right" if column == "reward" else "left")
    for found in probes:
        mark = "[red]FAIL[/]" if found["fooled"] else "[green]ok[/]"
        table.add_row(mark, found["kind"], found["name"], found["verdict"], f"{found['reward']:.3f}")
    return table
