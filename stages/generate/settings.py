"""Settings of the generate stage: which engine samples which benchmarks, and how."""

import datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, model_validator

from stages.harness.own_files import CustomProblems
from stages.harness.settings import StageSettings, TemplateDate, execution, identity


def _asked(value: Any) -> Any:
    """Check a value, or a window of values, that problems are chosen by; one error instead of one for each type."""
    if not isinstance(value, dict):
        if not isinstance(value, str | int):
            raise ValueError("give a text, a whole number, true or false, or a window {from: ..., to: ...}")
        return value
    if not value or value.keys() - {"from", "to"}:
        raise ValueError(f"a window has from, to or both, and not {', '.join(map(str, value)) or 'nothing'}")
    for end in value.values():
        if isinstance(end, bool) or not isinstance(end, str | int):
            raise ValueError(f"{end!r} is no end of a window: give a whole number, or a date such as 2025-01-31")
        if isinstance(end, str) and not _is_date(end):
            raise ValueError(f"{end!r} is no date, such as 2025-01-31; windows are of dates and of whole numbers")
    first, last = value.get("from"), value.get("to")
    if first is not None and last is not None:
        if type(first) is not type(last):
            raise ValueError(f"from {first} to {last}: one is a date, the other a number")
        if first > last:
            raise ValueError(f"from {first} to {last} holds nothing; it is the wrong way round")
    return value


def _is_date(text: str) -> bool:
    """Whether this is a date in the form whose order as a text is that of time."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


Asked = Annotated[str | int | bool | dict[Literal["from", "to"], str | int], BeforeValidator(_asked)]
"""A value, or a window of values {from: ..., to: ...}: both ends included, one may be left out."""
PROMPT_SETS = ("rl", "dev")
"""What can be sampled beside benchmarks: RL's prompts, and the problems its checkpoint is chosen by."""


COMPLETION_STOPS = ("\nif __name__", "\nprint(", "\nassert ", "\nclass ", '\n"""', "\n#", "\n```")
"""What a base model writes once a function is done (the usual ones, but for `def`, which may begin a helper)."""


DRAW = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""How a token is drawn: what both engines can do, and what a checkpoint's generation_config.json may say."""


class Example(StageSettings):
    """A worked example that is shown before each problem, as a turn of the conversation."""

    question: str = identity(min_length=1)
    answer: str = identity(min_length=1)


MOST_SAMPLES = 65_536
"""Of a problem: several times what studies of repeated sampling draw. More is a slip of the keyboard."""


class BenchmarkSettings(StageSettings):
    """One benchmark of an evaluation: which problems, how many samples of each, drawn how."""

    name: str = identity()
    own: CustomProblems | None = identity(None)
    """Where the problems are, for a name that is no benchmark of ours."""
    split: Literal["test", "dev"] = identity("test")
    where: dict[str, Asked] = identity({})
    """Only problems of which the benchmark notes these values (`meta` in its module): {level: 1} of math500; or values
    from one to another, {contest_date: {from: 2024-08-01, to: 2025-01-31}} of livecodebench_v6."""
    problems: int | None = identity(None, gt=0)
    """How many problems (the first ones; how many to make for a generated benchmark). None: all."""
    problem_seed: int = identity(0, ge=0)
    """Seed that generated problems are made from."""
    samples: int = identity(1, gt=0, le=MOST_SAMPLES)
    """Completions per problem."""
    temperature: float = identity(0.0, ge=0)
    """0 is greedy decoding."""
    top_p: float = identity(1.0, gt=0, le=1)
    top_k: int = identity(0, ge=0)
    """Number of candidate tokens; 0 switches it off."""
    min_p: float = identity(0.0, ge=0, le=1)
    """Least probability of a candidate, as a share of the likeliest token's; 0 switches it off."""
    repetition_penalty: float = identity(1.0, gt=0)
    """Above 1, tokens that occurred already, in the prompt too, become less likely, also in greedy decoding; 1 switches
    it off."""
    from_generation_config: bool = identity(False)
    """Take the five above from the checkpoint's generation_config.json instead, as far as it has them; what it gave
    stands in the protocol. A file that asks for what not every engine does (beams, no_repeat_ngram_size, ...) is
    refused."""
    max_new_tokens: int = identity(512, gt=0)
    prompt: Literal["chat", "completion"] = identity("chat")
    """chat: the user message in the model's chat template. completion: the beginning of a program that the model goes
    on with, as base models are asked; for benchmarks of code."""
    stop: list[str] = identity([])
    """Strings that end a completion, beside the model's own end tokens. Long reasoning is easily cut by one. With
    prompt completion, where
    nothing else is said: what begins something after the function (COMPLETION_STOPS)."""
    system_prompt: str | None = identity(None)
    """None: that of `generate`."""
    enable_thinking: bool | None = identity(None)
    """None: that of `generate`."""
    few_shot: list[Example] = identity([])

    @model_validator(mode="before")
    @classmethod
    def _columns_are_of_a_file(cls, values: Any) -> Any:
        if isinstance(values, dict) and "columns" in values:
            raise ValueError("own.columns: columns are those of a file of yours, own: {file: ..., columns: {...}}")
        return values

    @model_validator(mode="before")
    @classmethod
    def _fill_stops(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("prompt") == "completion" and "stop" not in values:
            return {**values, "stop": list(COMPLETION_STOPS)}
        return values

    @model_validator(mode="after")
    def _a_completion_is_no_conversation(self) -> Self:
        if self.prompt == "completion" and (
            self.system_prompt is not None or self.enable_thinking is not None or self.few_shot
        ):
            raise ValueError(
                "prompt: a completion has no conversation; leave out system_prompt, enable_thinking and few_shot"
            )
        return self

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        said = [name for name in DRAW if getattr(self, name) != BenchmarkSettings.model_fields[name].default]
        if self.from_generation_config and said:
            raise ValueError(f"from_generation_config: the checkpoint says how to sample; leave out {', '.join(said)}")
        if self.temperature == 0 and self.samples > 1 and not self.from_generation_config:
            raise ValueError(
                f"samples: {self.samples} greedy samples of a problem would all be the same; set a temperature"
            )
        if self.temperature == 0 and (self.top_p < 1 or self.top_k > 0 or self.min_p > 0):
            raise ValueError(
                "temperature: greedy decoding ignores top_p, top_k and min_p; set a temperature or leave them out"
            )
        if any(not string for string in self.stop):
            raise ValueError("stop: an empty string would end every completion at once")
        return self


class ServerSettings(StageSettings):
    """A model that a server samples from, behind the OpenAI-compatible address that the pipeline's `model` is."""

    model: str = identity(min_length=1)
    """The name that the server knows the model by, and has to answer with."""
    url: str = identity("")
    """Filled from the pipeline's top-level `model`; write it there."""
    logprobs: bool = identity(False)
    """Keep the log-probability of each token; a server that gives none is refused."""
    api_key_env: str | None = execution(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable that holds the server's key, which is sent to it and written nowhere. None: no key."""
    patience_s: float = execution(600.0, gt=0)
    """How long a sample is asked for again, in seconds, while the server is away, overloaded, or breaks answers off."""
    silence_s: float = execution(600.0, gt=0)
    """Seconds without a byte after which an answer counts as broken off; a sample may wait so long for its turn."""


CHECKPOINT_ONLY = (
    "dtype",
    "gpu_memory_utilization",
    "tensor_parallel",
    "data_parallel",
    "cpu_kv_cache_gib",
    "cpu_compile",
)
"""Settings of an engine that loads a checkpoint; a server was started with its own."""


def is_address(model: str) -> bool:
    """Whether a model's name is the address of a server."""
    return model.startswith(("http://", "https://"))


def server_url(address: str) -> str:
    """The address that requests go to; `/v1` is added where there is no path.

    Raises:
        ValueError: it is none, or holds what a record may not hold.
    """
    parts = urlsplit(address)
    if not parts.hostname or any(map(str.isspace, address)):
        raise ValueError(f"{parts.scheme}:// names no host, or one with white space in it")
    _ = parts.port  # raises for one that is no number, or out of range
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        why = "an address stands in records; a key goes into an environment variable (generate.server.api_key_env)"
        raise ValueError(f"the address of a server has no user, password or query in it: {why}")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


class GenerateSettings(StageSettings):
    """How a checkpoint is sampled. `benchmarks` comes from the pipeline's top level and is not written by hand."""

    benchmarks: list[BenchmarkSettings] = identity([])
    engine: Literal["vllm", "transformers", "openai"] = identity("vllm")
    """`transformers` is for machines without vLLM; nothing switches to it by itself. `openai` asks a server."""
    server: ServerSettings | None = identity(None)
    """Which model of which server, for the engine openai."""
    dtype: Literal["float32", "bfloat16", "float16"] = identity("float32")
    max_model_len: int | None = identity(None, gt=1)
    """Context in tokens, prompt and completion together. None: the model's own."""
    system_prompt: str | None = identity(None)
    """For the benchmarks that have none of their own."""
    enable_thinking: bool | None = identity(None)
    """Passed to the chat template where set (Qwen3). None leaves the template's default."""
    thinking_budget: int | None = identity(None, ge=0)
    """Tokens after which vLLM ends a thought (`<think>` ... `</think>`) for the model, which then answers; chat prompts
    only. None lets it think."""
    template_date: TemplateDate = identity(None)
    """Filled from the pipeline's top-level `template_date`; write it there."""
    max_concurrent: int = execution(256, gt=0)
    """Samples in flight at once."""
    gpu_memory_utilization: float = execution(0.9, gt=0, le=1)
    """Share of the GPU's memory that vLLM takes (cuda)."""
    tensor_parallel: int = execution(1, gt=0)
    """GPUs that share one model in vLLM (cuda)."""
    data_parallel: int = execution(1, gt=0)
    """Engines that share the samples, each a process with `tensor_parallel` GPUs, or on a CPU with its part of the
    threads."""
    cpu_kv_cache_gib: int = execution(1, gt=0)
    """Memory for vLLM's key-value cache (cpu), in GiB."""
    cpu_compile: bool = identity(False)
    """Have vLLM compile the model (cpu), which takes a C++ compiler and a minute or more at each load, samples faster
    in large batches, and rounds otherwise. On a GPU vLLM compiles anyway."""

    def budget(self, benchmark: BenchmarkSettings) -> int | None:
        """The thinking budget of a benchmark's samples, in tokens."""
        return self.thinking_budget if benchmark.prompt == "chat" else None

    def prompting(self, benchmark: BenchmarkSettings) -> dict[str, Any]:
        """What a benchmark's problems are asked with: its own settings, or these where it has none."""
        own_system, own_thinking = benchmark.system_prompt, benchmark.enable_thinking
        return {
            "system_prompt": self.system_prompt if own_system is None else own_system,
            "enable_thinking": self.enable_thinking if own_thinking is None else own_thinking,
            "few_shot": [(example.question, example.answer) for example in benchmark.few_shot],
        }

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [benchmark.name for benchmark in self.benchmarks]
        if len(set(names)) < len(names):
            raise ValueError("benchmarks: a benchmark is listed twice")
        return self

    @model_validator(mode="after")
    def _served_or_loaded(self) -> Self:
        if self.engine != "openai":
            if self.server is not None:
                raise ValueError(f"server: is for the engine openai, not {self.engine}")
            return self
        if self.server is None:
            raise ValueError("server: the engine openai needs a section that names the model (server: {model: NAME})")
        for name in CHECKPOINT_ONLY:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: is for engines that load a checkpoint; this server was started with its own")
        for index, benchmark in enumerate(self.benchmarks):
            if benchmark.from_generation_config:
                why = "a server shows no generation_config.json; say how to sample"
                raise ValueError(f"benchmarks.{index}.from_generation_config: {why}")
        return self

    @model_validator(mode="after")
    def _vllm_compiles(self) -> Self:
        if self.cpu_compile and self.engine == "transformers":
            raise ValueError("cpu_compile: is for the engine vllm, not transformers")
        return self

    @model_validator(mode="after")
    def _thinking_can_be_ended(self) -> Self:
        if self.thinking_budget is not None and self.engine != "vllm":
            raise ValueError(f"thinking_budget: only the engine vllm can end a thought, not {self.engine}")
        if self.thinking_budget is not None and self.enable_thinking is False:
            raise ValueError("thinking_budget: enable_thinking is false, so there is no thought to limit")
        return self
