"""Plain SFT."""

from __future__ import annotations

from stages.sft.reweighting.base import Method


class Uniform(Method):
    """Every supervised token has the same weight: the trainer's loss stays as TRL computes it."""
