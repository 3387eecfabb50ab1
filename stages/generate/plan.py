"""Which samples a generate stage has to draw: problems, rendered prompts, and one seed for every sample."""

import dataclasses
import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from evaluation.chat import TEMPLATE_DATE, chat_template, date_in_template, messages_of, render, template_options
from evaluation.engines.base import UNKNOWN, SamplingRequest
from evaluation.records import Problem, RecordError, read_records
from stages.data.documents import problems_path
from stages.generate.settings import BenchmarkSettings, GenerateSettings
from stages.harness.context import StageError

SampleId = tuple[str, str, int]
"""(benchmark, problem id, sample number)."""


@dataclasses.dataclass(frozen=True)
class PlannedPrompt:
    """One problem of a benchmark with its rendered prompt."""

    benchmark: BenchmarkSettings
    problem: Problem
    text: str
    """As the model reads it; of a served model what is sent: the messages as JSON, or the beginning of a program."""
    token_ids: tuple[int, ...]
    """Empty for a served model, which renders its prompts itself."""
    first_draw: int = 0
    """How many samples of this prompt earlier problems of the benchmark have, which are other draws than these."""
    thinking_budget: int | None = None
    messages: tuple[tuple[str, str], ...] = ()
    enable_thinking: bool | None = None
    """This and `messages` are those of a served model."""

    def samples(self) -> Iterator[SampleId]:
        """The ids of the problem's samples, in order."""
        for sample in range(self.benchmark.samples):
            yield self.benchmark.name, self.problem.id, sample

    def seed(self, sample: int, seed: int) -> int | None:
        """The seed of one sample; None where decoding is greedy and draws nothing."""
        drawn = self.benchmark.temperature > 0
        asked = self.token_ids or tuple(self.text.encode())
        return sample_seed(seed, asked, self.first_draw + sample) if drawn else None

    def request(self, sample: int, seed: int) -> SamplingRequest:
        """What the engine is asked for."""
        return SamplingRequest(
            prompt_token_ids=self.token_ids,
            max_new_tokens=self.benchmark.max_new_tokens,
            seed=self.seed(sample, seed),
            temperature=self.benchmark.temperature,
            top_p=self.benchmark.top_p,
            top_k=self.benchmark.top_k,
            min_p=self.benchmark.min_p,
            repetition_penalty=self.benchmark.repetition_penalty,
            stop=tuple(self.benchmark.stop),
            thinking_budget=self.thinking_budget,
            messages=self.messages,
            text="" if self.token_ids or self.messages else self.text,
            template_options=tuple(template_options(self.enable_thinking).items()) if self.messages else (),
        )


def sample_seed(seed: int, token_ids: tuple[int, ...], draw: int) -> int:
    """A 32-bit seed that depends on the pipeline's seed, the prompt's tokens and the number of the draw alone.

    Neither order nor a resume changes it, and benchmarks that ask the same get the same.
    """
    asked = f"{seed}\0{draw}\0".encode() + array("q", token_ids).tobytes()
    return int.from_bytes(hashlib.sha256(asked).digest()[:4], "big")


def read_problems(folder: Path, benchmark: BenchmarkSettings) -> tuple[list[Problem], str]:
    """The problems of a benchmark and the sha256 of their lines.

    Raises:
        StageError: the file is missing, damaged, empty, shorter than the settings ask for, or holds an id twice.
    """
    path = problems_path(folder, benchmark.name)
    fix = "Run the data stage again with this benchmark in the config's `benchmarks:` list."
    try:
        problems = read_records(path, Problem)
    except FileNotFoundError:
        raise StageError(f"{path}: there are no problems of {benchmark.name}", fix) from None
    except RecordError as error:
        raise StageError(str(error), fix) from None
    n = benchmark.problems if benchmark.problems is not None else len(problems)
    if not problems or len(problems) < n:
        raise StageError(f"{path}: {len(problems)} problems, {n or 'at least one'} wanted", fix)
    problems = problems[:n]
    if len({problem.id for problem in problems}) < len(problems):
        raise StageError(f"{path}: a problem id stands there twice", fix)
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][:n]
    return problems, hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()


def plan_prompts(settings: GenerateSettings, problems: dict[str, list[Problem]], tokenizer: Any) -> list[PlannedPrompt]:
    """Render every problem of every benchmark, in the order in which the generations are written.

    Args:
        tokenizer: None where a server renders; prompts are then what it is sent.

    Raises:
        StageError: a problem cannot be asked so.
    """
    prompts = []
    for benchmark in settings.benchmarks:
        draws: Counter[str] = Counter()
        for problem in problems[benchmark.name]:
            if tokenizer is None:
                prompt = _served_prompt(settings, benchmark, problem)
            else:
                prompt = PlannedPrompt(benchmark, problem, *_prompt(settings, benchmark, problem, tokenizer))
            budget = settings.budget(benchmark)
            prompts.append(dataclasses.replace(prompt, first_draw=draws[prompt.text], thinking_budget=budget))
            draws[prompt.text] += benchmark.samples
    return prompts


def drawn_as(prompts: Iterable[PlannedPrompt], seed: int) -> dict[SampleId, SampleId]:
    """Each sample -> the first one that asks the engine for just the same (prompt, limits, way to draw, seed).

    Benchmarks share prompts, as HumanEval and HumanEval+ do: such a completion is sampled once and is that of both.
    """
    first: dict[SamplingRequest, SampleId] = {}
    return {
        sample: first.setdefault(prompt.request(sample[2], seed), sample)
        for prompt in prompts
        for sample in prompt.samples()
    }


def prompts_digest(prompts: Iterable[PlannedPrompt]) -> str:
    """sha256 of the texts of prompts in their order."""
    return hashlib.sha256(json.dumps([prompt.text for prompt in prompts]).encode()).hexdigest()


def _prompt(
    settings: GenerateSettings, benchmark: BenchmarkSettings, problem: Problem, tokenizer: Any
) -> tuple[str, tuple[int, ...]]:
    """Text and token ids of one prompt."""
    if benchmark.prompt == "chat":
        try:
            return render(tokenizer, problem.prompt, **settings.prompting(benchmark), context=problem.context)
        except ValueError as error:
            fix = "Leave out what the model's chat template does not take (system_prompt, few_shot), or correct it."
            raise StageError(f"{benchmark.name} {problem.id}: {error}", fix) from error
    beginning = _beginning(benchmark, problem)
    # With the token that begins a text, where the model has one.
    return beginning, tuple(tokenizer(beginning)["input_ids"])


def _served_prompt(settings: GenerateSettings, benchmark: BenchmarkSettings, problem: Problem) -> PlannedPrompt:
    if benchmark.prompt == "completion":
        return PlannedPrompt(benchmark, problem, _beginning(benchmark, problem), ())
    asked = settings.prompting(benchmark)
    try:
        messages = messages_of(problem.prompt, asked["system_prompt"], asked["few_shot"], problem.context)
    except ValueError as error:
        raise StageError(f"{benchmark.name} {problem.id}: {error}", "Leave out system_prompt.") from error
    pairs = tuple((message["role"], message["content"]) for message in messages)
    text = json.dumps(messages, ensure_ascii=False)
    return PlannedPrompt(benchmark, problem, text, (), messages=pairs, enable_thinking=asked["enable_thinking"])


def _beginning(benchmark: BenchmarkSettings, problem: Problem) -> str:
    """The beginning of a program that a completion prompt sends."""
    beginning = problem.meta.get("completion")
    if not isinstance(beginning, str):
        raise StageError(
            f"{benchmark.name} {problem.id} has no beginning of a program to go on with",
            "Use prompt: chat, or a benchmark of code.",
        )
    return beginning


def protocol(
    settings: GenerateSettings,
    benchmark: BenchmarkSettings,
    problems: int,
    problems_sha256: str,
    prompts_sha256: str,
    tokenizer: Any,
    max_model_len: int | None,
    engine_version: str,
    template_sha256: str | None = None,
) -> dict[str, Any]:
    """Everything that defines how a benchmark was sampled. Scores compare only where this is equal.

    The seed is not part of it: two seeds are two draws under one protocol. The prompts' digest catches what else goes
    into a prompt: a template that draws lots, say. Of a served model, "unknown" stands for what its server does not
    say, and `tokenizer` is None; its name is no part either, since models are what is compared.

    Args:
        template_sha256: of a served model's chat template.
    """
    usual = {"own": None, "prompt": "chat", "from_generation_config": False, "min_p": 0.0, "repetition_penalty": 1.0}
    asked = {
        name: value
        for name, value in benchmark.identity_settings().items()
        if name not in usual or value != usual[name]
    }
    rendered = benchmark.prompt == "chat" and tokenizer is not None
    template = (chat_template(tokenizer) or "") if rendered else ""
    dated = rendered and date_in_template(tokenizer)
    digest = hashlib.sha256(template.encode()).hexdigest()
    if benchmark.prompt == "chat" and template_sha256 is not None:
        digest = template_sha256
    return {
        **asked,
        "problems": problems,
        "problems_sha256": problems_sha256,
        **settings.prompting(benchmark),
        **({} if (budget := settings.budget(benchmark)) is None else {"thinking_budget": budget}),
        "chat_template_sha256": digest,
        **({"template_date": settings.template_date or TEMPLATE_DATE} if dated else {}),
        "prompts_sha256": prompts_sha256,
        "max_model_len": UNKNOWN if max_model_len is None else max_model_len,
        "engine": settings.engine,
        "engine_version": engine_version,
        "dtype": settings.dtype if tokenizer is not None else UNKNOWN,
        **({"cpu_compile": True} if settings.cpu_compile else {}),
    }
