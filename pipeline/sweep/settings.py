"""The sweep file.

config: demo.yaml                 # the pipeline that every cell starts from
name: methods
matrix:
  method:                         # named variants, each with the settings it changes
    uniform: {sft.method: {name: uniform}}
    vcore: {sft.method: {name: vcore}}
  sft.learning_rate: [1e-3, 2e-3] # or a setting and its values
  seed: [0, 1, 2]                 # `seed` is averaged over in the report
baseline: {method: uniform}       # what the others are compared with, seed by seed
"""

from __future__ import annotations

import itertools
import json
from typing import Any

from pydantic import field_validator, model_validator

from stages.harness.settings import StageSettings, execution

REPLICATES = "seed"
"""The axis that the report averages over."""
Labels = dict[str, str]
"""Axis -> label of a value on it."""


class PublishedSettings(StageSettings):
    """Scores that somebody published, in per cent: benchmark -> value, or benchmark -> label of `axis` -> value.

    `aime24+aime25` stands for the problems of both together.
    """

    source: str = execution(min_length=1)
    axis: str = execution()
    base: dict[str, float] = execution({})
    """Of the model before any training."""
    sft: dict[str, dict[str, float]] = execution({})
    grpo: dict[str, dict[str, float]] = execution({})

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks that are named, each once, also of those that stand together."""
        named = (name for table in (self.base, self.sft, self.grpo) for name in table)
        return list(dict.fromkeys(part for name in named for part in name.split("+")))

    @property
    def trained(self) -> list[tuple[str, str, str, float]]:
        """Checkpoint, benchmark, label and value of each score after training."""
        tables = {"sft": self.sft, "grpo": self.grpo}
        return [(c, b, label, v) for c, table in tables.items() for b, of in table.items() for label, v in of.items()]


class SweepSettings(StageSettings):
    """What a sweep file says."""

    config: str = execution()
    """The pipeline's file, relative to this one."""
    name: str = execution(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=40)
    matrix: dict[str, Any] = execution(min_length=1)
    """Axis -> values of the setting it is named after, or named variants -> the settings that each one changes."""
    baseline: dict[str, Any] | None = execution(None)
    """Axis -> label of what the report compares the others with; axes that are not named keep their own."""
    published: PublishedSettings | None = execution(None)
    """What the report sets beside our scores."""

    @property
    def axes(self) -> dict[str, list[str]]:
        """Axis -> labels of its values."""
        return {axis: [label_of(value) for value in values] for axis, values in self.matrix.items()}

    @field_validator("matrix")
    @classmethod
    def _variants_of_each_axis(cls, matrix: dict[str, Any]) -> dict[str, Any]:
        for axis, values in matrix.items():
            if isinstance(values, dict):
                if not values or not all(isinstance(settings, dict) for settings in values.values()):
                    example = "uniform: {sft.method: {name: uniform}}"
                    raise ValueError(f"{axis}: each variant is a mapping of settings: {example}")
                for name, settings in values.items():
                    _check_order(axis, name, [str(key) for key in settings])
            elif not isinstance(values, list) or not values:
                raise ValueError(f"{axis}: takes a list of values, or named variants")
            if len({label_of(value) for value in values}) < len(values):
                raise ValueError(f"{axis}: a value stands in it twice")
        return matrix

    @model_validator(mode="after")
    def _known_published(self) -> SweepSettings:
        if self.published is None:
            return self
        published = self.published
        base = [("base", benchmark, "", value) for benchmark, value in published.base.items()]
        for checkpoint, benchmark, label, value in [*base, *published.trained]:
            if not 0 <= value <= 100:
                place = ".".join(filter(None, ("published", checkpoint, benchmark, label)))
                raise ValueError(f"{place}: {value:g} is no score in per cent, from 0 to 100")
        axis = self.published.axis
        if axis not in self.matrix:
            raise ValueError(f"published.axis: {axis!r} is no axis; there is {', '.join(self.matrix)}")
        known = self.axes[axis]
        for checkpoint, benchmark, label, _ in self.published.trained:
            if label not in known:
                raise ValueError(f"published.{checkpoint}.{benchmark}: {label!r} is none of {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _known_baseline(self) -> SweepSettings:
        for axis, label in (self.baseline or {}).items():
            place = f"baseline.{axis}"
            if axis not in self.matrix or axis == REPLICATES:
                raise ValueError(f"{place}: is no axis that could have a baseline; there is {', '.join(self.matrix)}")
            if label_of(label) not in self.axes[axis]:
                raise ValueError(f"{place}: {label!r} is none of {', '.join(self.axes[axis])}")
        return self


def _check_order(axis: str, variant: str, keys: list[str]) -> None:
    """Settings are applied one after the other, so that a section after a part of it would undo the part."""
    for part, section in itertools.combinations(keys, 2):
        if part.startswith(f"{section}."):
            raise ValueError(f"{axis}: {variant} sets {part} and then all of {section}; write {section} first")


def label_of(value: Any) -> str:
    """What a value of an axis is called: a variant by its name, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
