"""A model behind an OpenAI-compatible address as an `Engine`: vLLM, SGLang and llama.cpp servers, and hosted APIs."""

from evaluation.engines.served.engine import ServedEngine, ServedOptions
from evaluation.engines.served.server import ServerError, ServerFacts

__all__ = ["ServedEngine", "ServedOptions", "ServerError", "ServerFacts"]
