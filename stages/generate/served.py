"""Sampling of a model that a server has: who the server is, what it says of its samples, and what they cost."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

from evaluation.engines import Sampled
from evaluation.engines.base import UNKNOWN
from evaluation.engines.served import ServedEngine, ServedOptions, ServerError
from evaluation.engines.served.engine import PROMPT_TOO_LONG, differences
from evaluation.engines.served.server import ServerFacts
from evaluation.records import write_jsonl
from stages.generate.plan import SampleId
from stages.generate.settings import GenerateSettings, ServerSettings
from stages.harness.context import Context, StageError
from stages.harness.json_files import write_json

TOKENS = ("prompt_token_ids", "token_ids", "logprobs")
"""What tokens.jsonl has of a sample, as far as the server gives it."""


def connect(ctx: Context[GenerateSettings]) -> ServedEngine:
    """The server's engine.

    Raises:
        StageError: the key is not in the environment, nobody answers, or it is another server than the one that drew
            the samples which are kept.
    """
    settings, server = ctx.settings, ctx.settings.server
    assert server is not None
    options = ServedOptions(
        api_key=_key(server),
        max_concurrent=settings.max_concurrent,
        patience_s=server.patience_s,
        silence_s=server.silence_s,
        logprobs=server.logprobs,
        max_model_len=settings.max_model_len,
    )
    try:
        engine = ServedEngine(server.url, server.model, options)
    except ServerError as error:
        raise StageError(error.message, error.fix) from error
    _check_same(ctx.state / "server.json", engine)
    facts = engine.facts
    if facts.kind == UNKNOWN:
        ctx.note(
            f"{server.url} does not say what it runs: its version and chat template are unknown, and where the config "
            "leaves a way to draw at its default, the server may have another"
        )
    elif facts.template_sha256 == UNKNOWN:
        ctx.note(f"{facts.name} does not show its chat template: it stands in the protocol as unknown")
    return engine


def _key(server: ServerSettings) -> str | None:
    if server.api_key_env is None:
        return None
    key = os.environ.get(server.api_key_env, "").strip()
    if not key:
        raise StageError(
            f"generate.server.api_key_env: the environment has no {server.api_key_env}", "Set it where the run starts."
        )
    return key


def _check_same(path: Path, engine: ServedEngine) -> None:
    """Samples that are kept and those to come are of one server; which one stands in `path`."""
    if path.exists():
        before = ServerFacts(**json.loads(path.read_text(encoding="utf-8")))
        if before != engine.facts:
            raise StageError(
                f"the server is another one than that of the samples which are kept: "
                f"{differences(before, engine.facts)}",
                "Start the former one again; or draw all samples anew, with --force generate.",
            )
        return
    write_json(path, dataclasses.asdict(engine.facts))


def write_what_it_said(
    ctx: Context[GenerateSettings], engine: ServedEngine, samples: Mapping[SampleId, Sampled]
) -> dict[str, int]:
    """Write server.json (who sampled, at what cost) and, where the server gave tokens, tokens.jsonl.

    Returns the cost of all samples in tokens, those of earlier attempts at the stage too, as metrics.
    """
    assert ctx.settings.server is not None
    told = [sampled.served or {} for sampled in samples.values()]
    reasoning = [row["reasoning_tokens"] for row in told if "reasoning_tokens" in row]
    cost = {
        "prompt_tokens": sum(row.get("prompt_tokens", 0) for row in told),
        "completion_tokens": sum(sampled.tokens for sampled in samples.values()),
    }
    said = {
        "model": ctx.settings.server.model,
        **dataclasses.asdict(engine.facts),
        "fingerprints": sorted({row["fingerprint"] for row in told if "fingerprint" in row}),
        **cost,
        "reasoning_tokens": sum(reasoning) if reasoning else UNKNOWN,
    }
    write_json(ctx.output / "server.json", said)
    if otherwise := sum(s.finish_reason not in ("stop", "length", PROMPT_TOO_LONG) for s in samples.values()):
        ctx.note(
            f"{otherwise} of {len(samples)} completions ended neither by themselves nor at the limit: a filter, say"
        )
    _write_tokens(ctx.output / "tokens.jsonl", samples)
    return cost


def _write_tokens(path: Path, samples: Mapping[SampleId, Sampled]) -> None:
    """Token ids and log-probabilities, one sample a line."""
    rows = []
    for (benchmark, problem, number), sampled in sorted(samples.items()):
        told = sampled.served or {}
        given = {name: told[name] for name in TOKENS if name in told}
        if given:
            rows.append({"benchmark": benchmark, "problem_id": problem, "sample": number, **given})
    if rows:
        write_jsonl(path, rows)
