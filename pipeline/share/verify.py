"""A published number beside a score: of how many problems each is, and in what their protocols are known to differ."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml

from evaluation.benchmarks import get, names
from evaluation.comparison import Measured
from evaluation.loading import load
from evaluation.published.card import Claim
from evaluation.published.reproduction import Reproduction, reproduction
from pipeline.core.errors import ConfigError

UNROUNDED = ("F32", "F16", "BF16", "F64")
"""Types of a GGUF's tensors that are no quantisation."""


@dataclasses.dataclass(frozen=True)
class Verified:
    """What became of a claim.

    Attributes:
        claim: what was published.
        result: the statistics.
        here: how this run measured, in words.
        differences: what is known to be different.
        unknown: what is not known of the published number.
    """

    claim: Claim
    result: Reproduction
    here: str
    differences: tuple[str, ...]
    unknown: tuple[str, ...]


def published_size(claim: Claim, given: int | None) -> int:
    """How many problems a published number is of: as given, as the card says, or all of the benchmark."""
    known = get(claim.benchmark).size if claim.benchmark in names() else None
    size = given or claim.n or known
    if size is None:
        message = f"{claim.benchmark} has no size of its own: say of how many problems the published number is"
        raise ConfigError(message, where="--n-published")
    return size


def examples(claim: Claim, asked: str | None, data: Path | None) -> list[dict[str, str]]:
    """The worked examples that are shown before each problem.

    Args:
        asked: a number, for so many of the first training problems with their solutions; or a YAML file with a list of
            {question, answer}; None: as many as the published number is said to have had, where there are any to take.

    Raises:
        ConfigError: the benchmark has none to draw from, or the file cannot be read.
    """
    found = get(claim.benchmark)
    can = found.demonstrate is not None and "train" in found.splits
    if asked is None:
        count = (claim.few_shot or 0) if can else 0
    elif asked.isdecimal():
        count = int(asked)
    else:
        try:
            listed = yaml.safe_load(Path(asked).expanduser().read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            message = f"neither a number nor a file of examples: {error}"
            raise ConfigError(message, where=f"--few-shot {asked}") from error
        fields = {"question", "answer"}
        if not isinstance(listed, list) or not all(isinstance(e, dict) and e.keys() == fields for e in listed):
            message = "the file has to hold a list of {question: ..., answer: ...}"
            raise ConfigError(message, where=f"--few-shot {asked}")
        return listed
    if count == 0:
        return []
    if not can or found.demonstrate is None:
        message = f"{claim.benchmark} has no training problems to take examples from"
        raise ConfigError(message, where="--few-shot", fix="Name a YAML file with a list of {question, answer}.")
    try:
        problems = load(found, "train", data, limit=count)
        answers = found.demonstrate(problems, 0)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the examples cannot be read: {error}", where="--few-shot") from error
    if len(problems) < count:
        message = f"{claim.benchmark} has {len(problems):,} training problems, {count:,} are asked for"
        raise ConfigError(message, where="--few-shot", fix="Ask for fewer.")
    return [{"question": p.prompt, "answer": answer} for p, answer in zip(problems, answers, strict=True)]


def verify(claim: Claim, n_published: int, tolerance: float, measured: Measured, scores: Path) -> Verified:
    """Compare a claim with a score of the same benchmark.

    Args:
        tolerance: share of the problems that counts as no difference.
        scores: the scores' file, or the folder of the artifact, which says how they were made.

    Raises:
        ConfigError: the problems do not have equally many samples.
    """
    problems: dict[str, list[float]] = {}
    for score in measured.scores:
        problems.setdefault(score.problem_id, []).append(float(score.verdict == "correct"))
    n = len(problems)
    sampling = measured.details.get("sampling")
    split = sampling["split"] if sampling is not None else "test"
    same_problems = n == n_published and split == "test"
    try:
        result = reproduction(claim.value, n_published, list(problems.values()), tolerance, same_problems)
    except ValueError as error:
        raise ConfigError(f"{scores}: {error}") from error
    differences = list(claim.differences)
    if n != n_published:
        differences.append(f"{n} problems here, {n_published} there")
    if split != "test":
        differences.append(f"problems of the {split} split here")
    unknown = ["the wording of the prompt", "how it was sampled", "the limit of tokens", "the number format"]
    if claim.few_shot is None:
        unknown.append("how many worked examples were shown")
    if sampling is None:
        return Verified(claim, result, "not known, a scores file tells no protocol", tuple(differences), tuple(unknown))
    shown = len(sampling["few_shot"])
    if claim.few_shot not in (None, shown):
        differences.append(f"{shown}-shot here, {claim.few_shot}-shot there")
    elif shown and claim.few_shot is not None:
        unknown.append("which worked examples were shown")
    differences += _weights(scores, sampling["dtype"])
    entry = json.loads((scores / "metrics.json").read_text(encoding="utf-8"))[claim.benchmark]
    if cut := entry.get("truncated"):
        samples = len(measured.scores)
        differences.append(f"{cut} of {samples} completions were cut at {sampling['max_new_tokens']} tokens here")
    if failed := entry.get("verdicts", {}).get("grader_error"):
        differences.append(f"{failed} completions could not be graded here, and count as wrong")
    return Verified(claim, result, _here(sampling, shown), tuple(differences), tuple(unknown))


def _here(sampling: dict[str, Any], shown: int) -> str:
    """`5-shot chat prompt, greedy, at most 512 tokens, vllm in float32`"""
    draw = "greedy" if sampling["temperature"] == 0 else f"temperature {sampling['temperature']:g}"
    drawn = f"{draw}, {sampling['samples']} samples a problem" if sampling["samples"] > 1 else draw
    asked = f"{shown}-shot {sampling.get('prompt', 'chat')} prompt"
    return f"{asked}, {drawn}, at most {sampling['max_new_tokens']} tokens, {sampling['engine']} in {sampling['dtype']}"


def _weights(scores: Path, dtype: str) -> list[str]:
    """In what the weights that made a score are known to differ from those that a model card is about."""
    sampled = _input(scores, "generations")
    artifact = sampled and _input(sampled, "model")
    if artifact is None:
        return []
    differences = []
    config = _read(artifact / "model" / "config.json")
    if types := _quantised(artifact):
        differences.append(f"the weights here are of a GGUF file that has them in {types}")
    if quantisation := config.get("quantization_config"):
        differences.append(f"the weights here are quantised ({quantisation.get('quant_method', 'by their config')})")
    stored = config.get("dtype") or config.get("torch_dtype")
    if stored is not None and stored != dtype:
        differences.append(f"computed in {dtype} here, the weights are stored in {stored}")
    return differences


def _quantised(artifact: Path) -> str:
    """The types that the tensors of a base checkpoint had in a GGUF file, also where it was copied from one that was
    made of it; empty if it never was one."""
    proof = _read(artifact / "manifest.json").get("proof", {})
    if "quantization" in proof:
        return ", ".join(kind for kind in proof["quantization"] if kind not in UNROUNDED)
    source = Path(proof.get("source", "")).expanduser()
    return _quantised(source.parent) if source.name == "model" and source.is_dir() else ""


def _input(artifact: Path, name: str) -> Path | None:
    """The artifact of the same store that served as an input of another; None where it is not known."""
    entry = _read(artifact / "manifest.json").get("inputs", {}).get(name)
    return artifact.parents[1] / entry["stage"].partition(".")[0] / entry["key"] if entry else None


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
