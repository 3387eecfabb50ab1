"""What a pipeline takes on this machine's CPU: time and memory of each stage, and room on the disk.

The machine is measured (stages/training/speed.py, stages/generate/speed.py): seconds of a token trained on, read and
sampled, and what a token of a micro-batch keeps in memory. The rest is counting: steps, rows, samples, and their tokens
(pipeline/estimate/lengths.py). What is in the store costs nothing.
"""

import dataclasses
import math

import psutil

from evaluation.benchmarks import get
from evaluation.engines.vllm_internals import BATCHED_TOKENS, SHARED_PROMPT_TOKENS
from pipeline.config.schema import PipelineConfig
from pipeline.estimate.lengths import PROMPT_TOKENS, Counter, Texts
from pipeline.estimate.measure import Measure, Measured, Seconds
from pipeline.estimate.memory import Split, rows_at_once, training_state
from pipeline.estimate.shape import Shape
from pipeline.estimate.time import BYTES, extra_passes, scoring_passes
from pipeline.plan.planning import Planned
from stages.base.settings import MAKE, BaseSettings
from stages.generate.settings import GenerateSettings
from stages.grpo.settings import GrpoSettings
from stages.harness.json_files import read_json
from stages.sft.method_settings import CustomSettings
from stages.sft.settings import SftSettings

Training = SftSettings | GrpoSettings
TRAINS, SAMPLES = "stages.training.speed", "stages.generate.speed"
LIBRARIES_GIB = 1.0
"""Of a process that trains or samples: from experience, for the check that a measurement fits."""
HEAP = 2.0
"""What the heap of a training grows to over its steps, whose micro-batches differ in length, for what one of them
needs: from SFT and GRPO of a model of 135 million parameters (docs/gpu.md says how near it comes)."""
DOCUMENT_TOKENS = 90
"""Of a worked problem that a made model reads, on average (docs/results)."""
KEPT_CHECKPOINTS = 3
"""Of a training at once: two are kept, and the next is written before one of them goes."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one stage takes.

    Attributes:
        times: by part, such as `generate` and `train`; empty where the stage is cached, or was not estimated.
        at_most: whether texts were taken to be as long as they may become, so that the times are upper bounds.
        memory_gib: its largest process; None where that was not estimated.
        disk: bytes that it leaves in the store.
        scratch: bytes that it needs besides while it runs.
        note: what the numbers are made of.
    """

    planned: Planned
    times: dict[str, Seconds] = dataclasses.field(default_factory=dict)
    at_most: bool = False
    memory_gib: float | None = None
    disk: float = 0.0
    scratch: float = 0.0
    note: str = ""

    @property
    def total(self) -> Seconds:
        """All parts together."""
        return sum(self.times.values(), Seconds())


class CpuEstimate:
    """The costs of a plan. `costs` measures, which takes up to a minute or two, and raises `StageFailed` where that
    fails."""

    def __init__(self, config: PipelineConfig, plan: list[Planned], shape: Shape, measure: Measure) -> None:
        self.config, self.plan, self.shape, self.measure = config, plan, shape, measure
        made = {planned.stage.name: planned.artifact for planned in plan if planned.state == "HIT"}
        self.counter = Counter(made.get("data"), made.get("base"))
        self.ended: dict[str, float] = {}
        """Benchmark -> mean tokens of a completion, by the last checkpoint that was sampled."""
        for name, artifact in made.items():
            if name.startswith("generate.") and artifact is not None:
                summary = read_json(artifact.folder / "summary.json")
                self.ended |= {b: s["completion_tokens_mean"] for b, s in summary.items() if b != "protocol"}
        self.measured: dict[str, Measured] = {}
        """What was measured, by the kind of work."""

    def costs(self) -> list[Cost]:
        """In the order of the plan."""
        return [self._cost(planned) for planned in self.plan]

    def _cost(self, planned: Planned) -> Cost:
        settings = planned.stage.settings
        if planned.state == "HIT":
            return Cost(planned, note="cached")
        if isinstance(settings, SftSettings | GrpoSettings | GenerateSettings):
            needed, memory = self._least_memory(settings), psutil.virtual_memory()
            if needed > memory.available / 2**30:
                of = f"of {memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} are free now"
                return Cost(planned, memory_gib=needed, note=f"at least {needed:.1f} GiB of memory; {of}: not measured")
        if isinstance(settings, SftSettings):
            return self._sft(planned, settings)
        if isinstance(settings, GrpoSettings):
            return self._grpo(planned, settings)
        if isinstance(settings, GenerateSettings):
            return self._generate(planned, settings)
        if isinstance(settings, BaseSettings):
            return self._base(planned, settings)
        return Cost(planned, note="not estimated: usually seconds")

    def _least_memory(self, settings: Training | GenerateSettings) -> float:
        width, engine = BYTES[settings.dtype] * self.shape.parameters / 2**30, 0.0
        if isinstance(settings, GenerateSettings):
            return LIBRARIES_GIB + width + settings.cpu_kv_cache_gib
        if isinstance(settings, GrpoSettings) and settings.rollout == "vllm":
            engine = width + settings.cpu_kv_cache_gib
        parts, trained = training_state(self.shape, settings.lora, settings.dtype, Split())
        return LIBRARIES_GIB + (sum(parts.values()) + 4 * trained) / 2**30 + engine  # with gradients

    def _base(self, planned: Planned, settings: BaseSettings) -> Cost:
        size = 4.0 * self.shape.parameters
        if settings.source != MAKE:
            return Cost(planned, disk=size, note="not estimated: download or conversion")
        speed = self._training(SftSettings(), settings.batch_size, DOCUMENT_TOKENS, 1.0)
        step = speed.times["step_s"] * (settings.batch_size * DOCUMENT_TOKENS) + speed.times["optimizer_s"]
        note = f"{settings.steps} steps of {settings.batch_size} documents of about {DOCUMENT_TOKENS} tokens"
        return Cost(planned, {"train": step * settings.steps}, disk=size, note=note)

    def _sft(self, planned: Planned, sft: SftSettings) -> Cost:
        texts = self.counter.texts("sft.jsonl")
        length = float(sft.max_length) if texts is None else min(sft.max_length, texts.prompt + texts.completion)
        rows = _rows(texts, [source.rows for source in self.config.data.sft])
        if sft.max_steps is None and rows is None:
            return Cost(planned, note="not estimated: the number of rows is known when the data stage has run")
        steps = sft.max_steps or math.ceil((sft.epochs or 1) * math.ceil((rows or 1) / sft.batch_size))
        trained = steps * sft.batch_size if sft.max_steps or rows is None else (sft.epochs or 1) * rows
        scored = texts.completion / (texts.prompt + texts.completion) if texts and sft.completion_only_loss else 1.0
        at_once = rows_at_once(sft, sft.batch_size, length)
        speed = self._training(sft, at_once, length, scored)
        forwards, probes = extra_passes(sft)
        token = speed.times["step_s"] * (1 + probes) + speed.times["forward_s"] * forwards
        time = token * (trained * length) + speed.times["optimizer_s"] * steps
        known = "rows" if texts else "rows at most"
        note = f"{steps} steps of {sft.batch_size} {known} of {length:.0f} tokens, method {sft.method.name}"
        if isinstance(sft.method, CustomSettings):
            note += " (counted as plain SFT)"
        longest = min(sft.max_length, texts.longest) if texts else sft.max_length
        probing = 8 * self._trained(sft) if sft.method.name == "vcore" else 0
        peak = self._peak(speed, rows_at_once(sft, sft.batch_size, longest) * longest, probing)
        if sft.method.name == "asft" and sft.lora is None:
            peak += 4 * self.shape.parameters / 2**30  # the model that training starts from
        return Cost(planned, {"train": time}, texts is None, peak, *self._disk(sft, steps), note)

    def _grpo(self, planned: Planned, grpo: GrpoSettings) -> Cost:
        texts = self.counter.texts("rl.jsonl")
        prompt = texts.prompt if texts else PROMPT_TOKENS
        ended = self._ended()
        completion = min(ended or math.inf, grpo.max_completion_length)
        samples, rollouts = grpo.prompts_per_step * grpo.num_generations, grpo.steps // grpo.steps_per_rollout
        together = 1  # completions in a row of the model's input
        if grpo.share_prompts:
            together = min(grpo.num_generations, grpo.micro_batch_size or grpo.num_generations)
        length = prompt + together * completion
        at_once = max(1, rows_at_once(grpo, grpo.completions_per_step, length) // together)
        speed = self._training(grpo, at_once, length, together * completion / length)
        passes = speed.times["step_s"] * grpo.num_iterations + speed.times["forward_s"] * scoring_passes(grpo)
        train = passes * (samples / together * length * rollouts) + speed.times["optimizer_s"] * grpo.steps
        peak = self._peak(speed, at_once * length, 0)
        times, at_most = {"train": train}, ended is None
        if grpo.rollout != "vllm_server":
            engine = self._sampling(grpo.rollout, grpo.dtype, prompt, samples)
            read = _prompt_tokens(grpo.rollout, prompt, grpo.num_generations) / grpo.num_generations
            rollout = engine.times["prompt_s"] * read + engine.times["token_s"] * completion
            times = {"generate": rollout * (samples * rollouts), **times}
            peak += self._engine_memory(engine, grpo, samples, prompt, completion) if grpo.rollout == "vllm" else 0.0
        bound = "at most " if at_most else ""
        note = (
            f"{rollouts} rollouts of {samples} completions of {bound}{completion:.0f} tokens, prompts of {prompt:.0f}"
        )
        return Cost(planned, times, at_most, peak, *self._disk(grpo, grpo.steps), note)

    def _ended(self) -> float | None:
        """Mean tokens of a completion of RL's prompts by the last checkpoint that was sampled: on these prompts, or
        else on the benchmarks of the same names as RL's sources; None where there are none."""
        names = ["rl", *(source.task for source in self.config.data.rl if source.task)]
        known = [self.ended[name] for name in names if name in self.ended]
        return None if not known else known[0] if names[0] in self.ended else sum(known) / len(known)

    def _generate(self, planned: Planned, settings: GenerateSettings) -> Cost:
        asked = read = new = samples = 0.0  # tokens of prompts, of those that are computed, and of completions
        unknown, at_most = [], False
        for benchmark in settings.benchmarks:
            prompt_set = benchmark.name in ("rl", "dev")
            texts = self.counter.texts(
                f"{benchmark.name}.jsonl" if prompt_set else f"benchmarks/{benchmark.name}.jsonl"
            )
            ours = not prompt_set and benchmark.own is None
            number = texts.number if texts else benchmark.problems or (get(benchmark.name).size if ours else None)
            if number is None:
                unknown.append(benchmark.name)
                continue
            ended = self.ended.get(benchmark.name)
            at_most |= ended is None
            samples += number * benchmark.samples
            length = texts.prompt if texts else PROMPT_TOKENS
            asked += number * benchmark.samples * length
            read += number * _prompt_tokens(settings.engine, length, benchmark.samples)
            new += number * benchmark.samples * min(ended or math.inf, benchmark.max_new_tokens)
        if not samples:
            return Cost(planned, note="not estimated: the number of problems is known when the data stage has run")
        at_once = min(samples, settings.max_concurrent)
        speed = self._sampling(settings.engine, settings.dtype, asked / samples, int(at_once), settings.cpu_compile)
        memory = speed.numbers["libraries_gib"]
        memory += self._engine_memory(speed, settings, int(at_once), asked / samples, new / samples)
        time = speed.times["load_s"] + speed.times["prompt_s"] * read + speed.times["token_s"] * new
        bound = "at most " if at_most else ""
        note = f"{samples:,.0f} samples of {bound}{new / samples:.0f} tokens, prompts of {asked / samples:.0f}"
        note += f" (without {', '.join(unknown)}, whose size is not known yet)" if unknown else ""
        return Cost(planned, {"generate": time}, at_most, memory, note=note)

    def _training(self, settings: Training, rows: int, length: float, scored: float) -> Measured:
        found = self.measure(
            TRAINS,
            {
                "dtype": settings.dtype,
                "lora": settings.lora.model_dump() if settings.lora else None,
                "gradient_checkpointing": settings.gradient_checkpointing,
            },
            {"rows": rows, "length": max(2, round(length)), "scored": max(0.01, scored)},
        )
        self.measured[f"training in {settings.dtype}"] = found
        return found

    def _sampling(self, engine: str, dtype: str, prompt: float, at_once: int, compiled: bool = False) -> Measured:
        kind = {"engine": engine, "dtype": dtype, "cpu_compile": compiled}
        found = self.measure(SAMPLES, kind, {"prompt_tokens": max(1, round(prompt)), "at_once": at_once})
        self.measured[f"sampling in {dtype}{', compiled' if compiled else ''}"] = found
        return found

    def _engine_memory(
        self, speed: Measured, settings: GrpoSettings | GenerateSettings, at_once: int, prompt: float, new: float
    ) -> float:
        """GiB of an engine that draws `at_once` completions: itself, a pass over prompts, and the cache as far as it is
        filled (on a CPU, untouched memory takes none)."""
        place = self.shape.kv_bytes / 2 * BYTES[settings.dtype] / 2**30
        read, filled = at_once * prompt, place * at_once * (prompt + new)
        if not isinstance(settings, GenerateSettings) or settings.engine == "vllm":
            read, filled = min(read, max(BATCHED_TOKENS, prompt)), min(filled, settings.cpu_kv_cache_gib)
        return speed.numbers["engine_gib"] + max(0.0, speed.numbers["read_gib"] - place) * read + filled

    def _trained(self, settings: Training) -> int:
        return training_state(self.shape, settings.lora, settings.dtype, Split())[1]

    def _peak(self, speed: Measured, tokens: float, beside: float) -> float:
        """GiB while activations are kept, or while a method keeps `beside` bytes and no activations."""
        return speed.numbers["rest_gib"] + max(HEAP * speed.numbers["token_gib"] * tokens, beside / 2**30)

    def _disk(self, settings: Training, steps: int) -> tuple[float, float]:
        """Bytes of the checkpoint that stays, and of those that a resume would need."""
        kept = BYTES[settings.dtype] * self.shape.parameters
        saved = min(KEPT_CHECKPOINTS, steps // settings.checkpoint_steps + 1)
        return float(kept), 12.0 * self._trained(settings) * saved


def _prompt_tokens(engine: str, length: float, samples: int) -> float:
    """Tokens of a prompt that are computed for all its samples: vLLM computes whole blocks of it once."""
    again = (length - 1) % SHARED_PROMPT_TOKENS + 1 if engine == "vllm" else length
    return length + (samples - 1) * min(length, again)


def _rows(texts: Texts | None, sources: list[int | None]) -> int | None:
    if texts is not None:
        return texts.number
    return None if None in sources else sum(rows for rows in sources if rows is not None)
