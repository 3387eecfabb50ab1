"""`python -m stages.generate.speed SPEC.json`: how fast this machine samples from a model of a given shape, in what
memory.

Started by `vcore plan CONFIG --estimate` on a CPU. The weights are random, so that hardly a completion ends before its
limit, and the engine is the one that the generate stage opens.
"""

import random
from typing import Literal

from evaluation.engines import EngineOptions, SamplingRequest, open_engine
from evaluation.engines.vllm_engine import require_vllm
from evaluation.engines.vllm_internals import prepare_environment
from stages.harness.context import Context, Result
from stages.harness.process import peak_memory_gib, run_stage
from stages.harness.settings import StageSettings, execution
from stages.harness.stopwatch import Stopwatch

BUDGET_S = 6.0
"""Seconds that reading the measured prompts may take on a quiet machine, as far as one of them tells."""
MOST = 128
"""Completions at once; beyond it the speed of a CPU hardly grows."""
NEW_TOKENS = 17


class SamplingSpeed(StageSettings):
    """What samples, and what it is asked."""

    engine: Literal["vllm", "transformers"] = execution("vllm")
    dtype: Literal["float32", "bfloat16", "float16"] = execution("float32")
    cpu_compile: bool = execution(False)
    prompt_tokens: int = execution(gt=0)
    at_once: int = execution(gt=0)
    """Completions at once; at most `MOST` are tried."""


def run(ctx: Context[SamplingSpeed]) -> Result:
    """Measure a model of `inputs["model"]/config.json`. The metrics are:

    - `load_s`: seconds until the engine is ready;
    - `prompt_s`, `token_s`: seconds of a prompt's token, and of a new token, while `at_once` completions are drawn; all
      as `Stopwatch.each` gives them;
    - `others`: share of the cores that other processes took meanwhile;
    - `libraries_gib`: resident memory before the engine is there, and `engine_gib`: what the engine adds, having read
      one prompt;
    - `read_gib`: what each further token of the prompts that are read in one pass adds, with its place in the cache.
    """
    settings = ctx.settings
    if settings.engine == "vllm":
        require_vllm("cpu")
        prepare_environment(ctx.machine.threads, settings.cpu_compile)
    folder = ctx.output / "model"
    vocabulary = _write_checkpoint(ctx, folder)
    before, length = peak_memory_gib(), settings.prompt_tokens + NEW_TOKENS + 1
    with Stopwatch(ctx.machine.threads) as load:
        options = EngineOptions(
            device="cpu",
            dtype=settings.dtype,
            max_model_len=length,
            threads=ctx.machine.threads,
            max_concurrent=MOST,
            cpu_compile=settings.cpu_compile,
        )
        engine = open_engine(settings.engine, folder, options)
    draw = random.Random(0)

    def sample(requests: int, new: int) -> tuple[Stopwatch, int]:
        prompts = [tuple(draw.choices(range(vocabulary), k=settings.prompt_tokens)) for _ in range(requests)]
        asked = [SamplingRequest(prompt, new, seed=index, temperature=1.0) for index, prompt in enumerate(prompts)]
        with Stopwatch(ctx.machine.threads) as watch:
            done = engine.generate(asked)
        return watch, sum(sampled.tokens for sampled in done)

    sample(1, 2)  # sets everything up
    at_once = max(1, min(settings.at_once, MOST, int(BUDGET_S / sample(1, 1)[0].each()[1])))
    alone = peak_memory_gib()
    prefill, first = sample(at_once, 1)
    reading = peak_memory_gib()
    whole, tokens = sample(at_once, NEW_TOKENS)
    engine.close()
    pairs = zip(whole.each(), prefill.each(), strict=True)
    metrics = {
        "load_s": load.each(),
        "prompt_s": prefill.each(at_once * settings.prompt_tokens),
        # Reading the prompts took as long in both; on a busy machine one of them may have been held up.
        "token_s": [max(both - read, 0.1 * both) / (tokens - first) for both, read in pairs],
        "at_once": at_once,
        "others": whole.others,
        "libraries_gib": before,
        "engine_gib": alone - before,
        "read_gib": (reading - alone) / ((at_once - 1) * settings.prompt_tokens) if at_once > 1 else 0.0,
    }
    return Result({"tokens": tokens}, metrics)


def _write_checkpoint(ctx: Context[SamplingSpeed], folder: object) -> int:
    """A random checkpoint, and a tokenizer that is never asked; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from stages.training.speed import random_model

    model = random_model(ctx.inputs["model"], ctx.settings.dtype)
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    model.save_pretrained(folder)
    vocabulary = model.config.get_text_config().vocab_size
    words = Tokenizer(models.WordLevel({f"t{index}": index for index in range(vocabulary)}, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="t0").save_pretrained(folder)
    return int(vocabulary)


if __name__ == "__main__":
    run_stage(SamplingSpeed, run)
