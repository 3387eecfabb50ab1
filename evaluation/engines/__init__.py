"""Sampling engines behind one interface: vLLM, and plain `transformers` generation where vLLM is absent.

Which one runs is the caller's choice and never changes silently: an engine that cannot run raises `EngineUnavailable`.
"""

from pathlib import Path
from typing import Literal

from evaluation.engines.base import (
    Engine,
    EngineLost,
    EngineOptions,
    EngineUnavailable,
    InFlight,
    OnDone,
    Sampled,
    SamplingRequest,
)

EngineName = Literal["vllm", "transformers"]

__all__ = [
    "Engine",
    "EngineLost",
    "EngineName",
    "EngineOptions",
    "EngineUnavailable",
    "InFlight",
    "OnDone",
    "Sampled",
    "SamplingRequest",
    "open_engine",
]


def open_engine(name: EngineName, model: str | Path, options: EngineOptions) -> Engine:
    """Load the checkpoint folder `model` into the named engine, which takes seconds and imports heavy libraries.

    Raises:
        EngineUnavailable: the engine is not installed or cannot run here.
    """
    if options.data_parallel > 1:
        from evaluation.harness.replicas import ReplicatedEngine

        return ReplicatedEngine(name, str(model), options)
    if name == "vllm":
        from evaluation.engines.vllm_engine import VLLMEngine

        return VLLMEngine(str(model), options)
    from evaluation.engines.transformers_engine import TransformersEngine

    return TransformersEngine(str(model), options)
