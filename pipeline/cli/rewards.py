"""`vcore doctor --rewards CONFIG`: completions that try to fool the rewards of a config, and what they got."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.table import Table

from pipeline.cli.common import plain_table
from pipeline.config.schema import load_config
from pipeline.core.errors import ConfigError, StageFailed
from stages.grpo.probes import probe
from stages.harness.context import StageError


def probe_rewards(config_file: Path) -> list[dict[str, Any]]:
    """Every probe with its verdict and reward, as plain values.

    Raises `ConfigError` where the config has no RL, `StageFailed` for a reward function that is none.
    """
    grpo = load_config(config_file).grpo
    if grpo is None:
        message = f"{config_file} has no RL whose rewards could be probed"
        raise ConfigError(message, where="grpo", fix="Add a `grpo:` section.")
    try:
        return [dataclasses.asdict(answer) for answer in probe(grpo)]
    except StageError as error:
        raise StageFailed("grpo", error.message, fix=error.fix) from error


def table_of(probes: list[dict[str, Any]]) -> Table:
    """One line a probe; what fooled the rewards is marked."""
    table = plain_table("", "task", "completion", "verdict", "reward", right="reward")
    for row in probes:
        mark = "[red]FAIL[/]" if row["fooled"] else "[green]ok[/]"
        table.add_row(mark, row["kind"], row["name"], row["verdict"], f"{row['reward']:.3f}")
    return table
