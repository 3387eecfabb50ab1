"""The generate stage: loads one checkpoint once, samples every benchmark with it, keeps each sample as it comes."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evaluation.chat import TEMPLATE_DATE, date_in_template
from evaluation.engines import Engine, EngineLost, EngineOptions, EngineUnavailable, Sampled, open_engine
from evaluation.engines.base import load_tokenizer
from evaluation.engines.served import ServedEngine, ServerError
from evaluation.harness.pace import Pace
from evaluation.records import Generation, read_records, write_jsonl
from evaluation.thinking import thinking_tokens
from stages.generate import served
from stages.generate.earlier import depends_on_length, take_over
from stages.generate.finished import Finished
from stages.generate.generation_config import with_generation_config
from stages.generate.plan import (
    PlannedPrompt,
    drawn_as,
    plan_prompts,
    prompts_digest,
    protocol,
    read_problems,
)
from stages.generate.settings import GenerateSettings
from stages.harness.context import Context, Result, StageError
from stages.harness.json_files import write_json

PROMPT_TOO_LONG = "prompt_too_long"
_MODEL_FIX = (
    "Point `model:` at a complete Hugging Face checkpoint (config.json, safetensors, tokenizer, chat template)."
)


def run(ctx: Context[GenerateSettings]) -> Result:
    """Sample `inputs["model"]/model`, or what a server has, on `inputs["data"]/benchmarks`.

    Writes generations.jsonl and summary.json, and of a served model server.json and, where it gives tokens,
    tokens.jsonl.
    """
    settings = ctx.settings
    if not settings.benchmarks:
        raise StageError("there is no benchmark to sample", "Name at least one in the config's `benchmarks:` list.")
    read = {benchmark.name: read_problems(ctx.inputs["data"], benchmark) for benchmark in settings.benchmarks}
    started = time.monotonic()
    folder = ctx.inputs.get("model", ctx.output) / "model"
    server: ServedEngine | None = None
    if settings.server is not None:
        ctx.progress(0, None, "asking the server")
        server = served.connect(ctx)
        tokenizer, limit, model = None, server.max_model_len, {"server": server.version}
    else:
        settings = with_generation_config(settings, folder)
        ctx.progress(0, None, "loading the engine")
        tokenizer, limit, model = _open_files(folder, settings)
    prompts = plan_prompts(settings, {name: problems for name, (problems, _) in read.items()}, tokenizer)
    fitting = [prompt for prompt in prompts if len(prompt.token_ids) < limit]
    _note_lengths(ctx, prompts, fitting, limit)
    if tokenizer is not None and date_in_template(tokenizer):
        ctx.note(f"the chat template asks for the date: it gets {settings.template_date or TEMPLATE_DATE}")

    source = drawn_as(fitting, ctx.seed)
    planned = set(source.values())
    if shared := len(source) - len(planned):
        ctx.note(f"{shared} of {len(source)} samples ask for just what an earlier one asks, and share its completion")
    with Finished(ctx.state / "samples.jsonl", planned) as finished:
        resumed = len(finished.samples)
        if resumed:
            ctx.note(f"resuming: {resumed} samples are kept, {finished.missing} are missing")
        there = ctx.details.get("earlier_samples", ()) if server is None and not depends_on_length(folder) else ()
        earlier = take_over(there, fitting, ctx.settings.benchmarks, finished, ctx.seed)
        if earlier:
            ctx.note(f"{earlier} samples are those of earlier artifacts of this model, {finished.missing} are missing")
        engine: Engine = server or _open(ctx, folder, fitting, limit)
        loaded = time.monotonic()
        tokens = _sample_missing(ctx, engine, fitting, finished)
        seconds = time.monotonic() - loaded
        version = engine.version
        engine.close()

    generations = [
        _generation(prompt, sample[2], ctx.seed, finished.samples.get(source.get(sample, sample)))
        for prompt in prompts
        for sample in prompt.samples()
    ]
    write_jsonl(ctx.output / "generations.jsonl", generations)
    summary: dict[str, Any] = {name: _summary(name, generations) for name in read}
    summary["protocol"] = {}
    for benchmark in settings.benchmarks:
        problems, digest = read[benchmark.name]
        asked = prompts_digest(prompt for prompt in prompts if prompt.benchmark.name == benchmark.name)
        context, template = (limit, None) if server is None else (server.context, server.facts.template_sha256)
        facts = (len(problems), digest, asked, tokenizer, context, version, template)
        summary["protocol"][benchmark.name] = protocol(settings, benchmark, *facts)
    write_json(ctx.output / "summary.json", summary)
    cost = {} if server is None else served.write_what_it_said(ctx, server, finished.samples)
    drawn = len(finished.planned) - resumed - earlier
    truncated = sum(summary[name]["truncated"] for name in read)
    return Result(
        proof={
            **_proof(ctx.output / "generations.jsonl", prompts),
            **model,
        },
        metrics={
            "load_s": round(loaded - started, 3),
            "generate_s": round(seconds, 3),
            "output_tokens": tokens,
            "output_tokens_per_s": round(tokens / seconds, 1) if drawn else 0.0,
            "samples_per_s": round(drawn / seconds, 2) if drawn else 0.0,
            "samples": len(generations),
            "resumed_samples": resumed,
            "earlier_samples": earlier,
            "truncated_share": truncated / len(generations),
            **cost,
        },
    )


def _open_files(folder: Path, settings: GenerateSettings) -> tuple[Any, int, dict[str, Any]]:
    """The tokenizer, the context length in tokens (the settings' or the model's own), and for the proof the contract
    that the checkpoint keeps."""
    from safetensors import SafetensorError
    from transformers import AutoConfig

    from stages.training.contract import check_files

    if not (folder / "config.json").is_file():
        raise StageError(f"{folder}: no model here (config.json is missing)", _MODEL_FIX)
    try:
        positions = int(AutoConfig.from_pretrained(folder).get_text_config().max_position_embeddings)
        chat = any(benchmark.prompt == "chat" for benchmark in settings.benchmarks)
        tokenizer = load_tokenizer(str(folder), chat, settings.template_date)
        contract = check_files(folder, tokenizer)
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise StageError(f"{folder}: the model does not load: {error}", _MODEL_FIX) from error
    if settings.max_model_len is not None and settings.max_model_len > positions:
        raise StageError(
            f"max_model_len: {settings.max_model_len} is more than the model's {positions} positions",
            "Lower it, or leave it out.",
        )
    if settings.thinking_budget is not None:
        try:
            thinking_tokens(tokenizer)
        except ValueError as error:
            raise StageError(f"thinking_budget: {error}", "Leave generate.thinking_budget out.") from error
    return tokenizer, settings.max_model_len or positions, {"contract": contract}


def _note_lengths(
    ctx: Context[GenerateSettings], prompts: list[PlannedPrompt], fitting: list[PlannedPrompt], limit: int
) -> None:
    if len(fitting) < len(prompts):
        longer = (
            f"{len(prompts) - len(fitting)} of {len(prompts)} prompts are longer than the context of {limit} tokens"
        )
        ctx.note(f"{longer} and are not sampled")
    short = sum(len(prompt.token_ids) + prompt.benchmark.max_new_tokens > limit for prompt in fitting)
    if short:
        ctx.note(
            f"{short} of {len(prompts)} prompts leave less room than max_new_tokens in the context of {limit} tokens"
        )


def _open(ctx: Context[GenerateSettings], folder: Path, prompts: list[PlannedPrompt], limit: int) -> Engine:
    from safetensors import SafetensorError

    settings = ctx.settings
    assert settings.engine != "openai"
    needed = max((len(prompt.token_ids) + prompt.benchmark.max_new_tokens for prompt in prompts), default=limit)
    options = EngineOptions(
        device=ctx.machine.device,
        dtype=settings.dtype,
        max_model_len=min(limit, needed),  # more would only reserve memory
        threads=ctx.machine.threads,
        max_concurrent=settings.max_concurrent,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        tensor_parallel=settings.tensor_parallel,
        data_parallel=settings.data_parallel,
        cpu_kv_cache_gib=settings.cpu_kv_cache_gib,
        cpu_compile=settings.cpu_compile,
        thinking=settings.thinking_budget is not None,
    )
    try:
        return open_engine(settings.engine, folder, options)
    except EngineUnavailable as error:
        raise StageError(str(error), "Install it, or choose another `generate.engine`.") from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        memory = "cpu_kv_cache_gib" if ctx.machine.device == "cpu" else "gpu_memory_utilization"
        short = f" Where memory is short, lower generate.{memory}." if settings.engine == "vllm" else ""
        raise StageError(
            f"{folder}: {settings.engine} cannot load the model: {error}", f"{_MODEL_FIX} See the log.{short}"
        ) from error


def _sample_missing(
    ctx: Context[GenerateSettings], engine: Engine, prompts: list[PlannedPrompt], finished: Finished
) -> int:
    """Submit every missing sample at once, those that may become longest first. Returns the completion tokens drawn."""
    left = finished.planned - finished.samples.keys()
    missing = [(prompt, sample) for prompt in prompts for sample in prompt.samples() if sample in left]
    missing.sort(key=lambda item: (-item[0].benchmark.max_new_tokens, -len(item[0].token_ids)))
    limits = [min(p.benchmark.max_new_tokens, engine.max_model_len - len(p.token_ids)) for p, _ in missing]
    before = len(finished.samples)

    def show(done: int, figures: dict[str, int | str]) -> None:
        ctx.progress(before + done, len(finished.planned), "sampling", **figures)

    def keep(index: int, sampled: Sampled) -> None:
        finished.add(missing[index][1], sampled)
        pace.add(index, sampled)

    with Pace(show, engine, limits) as pace:
        try:
            engine.generate([prompt.request(sample[2], ctx.seed) for prompt, sample in missing], keep)
        except EngineLost as error:
            memory = "Where its messages say that memory was short, lower generate.gpu_memory_utilization or"
            fix = f"Run again: samples that were drawn are kept. {memory} generate.max_concurrent."
            raise StageError(str(error), fix) from error
        except ServerError as error:
            kept = f" {len(finished.samples)} samples are kept." if finished.samples else ""
            raise StageError(error.message, f"{error.fix}{kept}") from error
    return pace.tokens


def _generation(prompt: PlannedPrompt, sample: int, seed: int, sampled: Sampled | None) -> Generation:
    sampled = sampled or Sampled("", 0, PROMPT_TOO_LONG)
    return Generation(
        benchmark=prompt.benchmark.name,
        problem_id=prompt.problem.id,
        sample=sample,
        prompt=prompt.text,
        completion=sampled.text,
        finish_reason=sampled.finish_reason,
        prompt_tokens=(sampled.served or {}).get("prompt_tokens", len(prompt.token_ids)),
        completion_tokens=sampled.tokens,
        seed=prompt.seed(sample, seed),
        thinking=sampled.thinking,
    )


def _summary(benchmark: str, generations: Iterable[Generation]) -> dict[str, Any]:
    rows = [row for row in generations if row.benchmark == benchmark]
    return {
        "problems": len({row.problem_id for row in rows}),
        "samples": len(rows),
        "truncated": sum(row.finish_reason == "length" for row in rows),
        "prompt_too_long": sum(row.finish_reason == PROMPT_TOO_LONG for row in rows),
        "completion_tokens_mean": sum(row.completion_tokens for row in rows) / len(rows),
    }


def _proof(path: Path, prompts: list[PlannedPrompt]) -> dict[str, Any]:
    """Read the written file back: every expected sample is there exactly once."""
    expected = [sample for prompt in prompts for sample in prompt.samples()]
    written = [(row.benchmark, row.problem_id, row.sample) for row in read_records(path, Generation)]
    if written != expected:
        raise StageError(
            f"{path}: {len(written)} samples are written, {len(expected)} were planned",
            "This is an error in the stage.",
        )
    return {
        "samples_expected": len(expected),
        "samples_written": len(written),
        "every_id_once": len(set(written)) == len(written),
    }
