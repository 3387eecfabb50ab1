"""What the metadata of a model card says was measured, and which benchmark here each number is of."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from evaluation.benchmarks import Source, get, names

METRIC = re.compile(r"acc(uracy)?|exact_match|em|score|pass(@|_at_)1|(avg|mean)@\d+", re.IGNORECASE)
"""The names under which cards have the share of right answers."""
OTHER_METRICS = {
    "norm": "the likelihood of answers, normalised by their length, is not measured here",
    "strict": "strict matching counts only answers in the form of its own examples, which is not measured here",
}
"""Word in a metric's name -> why it is another one."""
SHOTS = re.compile(r"(\d+|zero)[- ]?shots?", re.IGNORECASE)
ASIDE = re.compile(r"\([^()]*(?:shot|cot|pass@|acc|exact|greedy|avg|test)[^()]*\)")
"""What a data set's name has in brackets about how it was measured; of others, `HumanEval (Java)`, it is part."""


class CardError(ValueError):
    """A model card that cannot be had or read, or that has no results."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A published number: the share of a benchmark's problems that a model is said to solve.

    Attributes:
        benchmark: its name here.
        value: in 0..1.
        said: the number and what it is of, as published.
        n: how many problems it is of, where that is said.
        few_shot: how many worked examples were shown, where that is said.
        differences: what is known to have been measured in another way.
    """

    benchmark: str
    value: float
    said: str
    n: int | None = None
    few_shot: int | None = None
    differences: tuple[str, ...] = ()


def per_cent(text: str) -> float:
    """The share that a number in per cent stands for: `61.6` and `61.6%` are 0.616.

    Raises:
        ValueError: it is no number from 0 to 100, or, without the sign, one above 0 and not above 1, which may be a
            share as well.
    """
    number = text.strip().removesuffix("%")
    try:
        value = float(number)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if not 0 <= value <= 100:
        raise ValueError(f"{text} is not between 0 and 100 per cent")
    if 0 < value <= 1 and "%" not in text:
        raise ValueError(f"{text} may be a share or per cent: write {100 * value:g} or {value:g}%")
    return value / 100


def read_card(model: str) -> tuple[list[Claim], list[str]]:
    """The numbers of a card that can be checked here, and in words those that cannot, each with the reason.

    Read are `model-index` in the metadata of README.md, and `.eval_results/*.yaml`. Tables in the text are not.

    Args:
        model: a checkpoint's folder, a GGUF file (beside which its card lies), or a hub id.

    Raises:
        CardError: no card, none that can be read, or one without results.
    """
    folder = _folder(model)
    card = folder / "README.md"
    if not card.is_file() and not (folder / ".eval_results").is_dir():
        raise CardError(f"{model} has no model card (README.md)")
    entries = [*_model_index(card), *_eval_results(folder)]
    if not entries:
        raise CardError(f"{card}: its metadata has no results (`model-index`); tables in its text are not read")
    numbers = [entry.number for entry in entries if entry.other_metric is None]
    shares = all(float(number[1]) <= 1 for number in numbers if number)
    claims, refused = [], []
    for entry in entries:
        try:
            claims.append(entry.claim(shares))
        except ValueError as error:
            refused.append(f"{entry.said}: {error}")
    return claims, refused


def _folder(model: str) -> Path:
    """The folder that holds the card of a model; of a hub id, its copy in the hub's cache."""
    path = Path(model).expanduser()
    if path.exists():
        return path if path.is_dir() else path.parent
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=["README.md", ".eval_results/*.yaml"]))
    except HFValidationError as error:
        raise CardError(f"{model} is no file, folder or hub id") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        raise CardError(f"the model card of {model} cannot be had from the hub: {_line(error)}") from error


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One number of a card, as it stands there."""

    datasets: tuple[str, ...]
    metric: str
    value: Any
    config: str | None = None
    split: str | None = None
    how: str = ""
    """Whatever else may say how it was measured."""

    @property
    def said(self) -> str:
        """`GSM8K (5-shot): exact_match 1.4`"""
        return f"{self.datasets[-1]}: {self.metric} {self.value}"

    @property
    def number(self) -> re.Match[str] | None:
        """The number and its sign for per cent, if it is one: `61.6`, `0.616`, `20.0 ± 1.2`, `61.6 %`."""
        return re.fullmatch(r"\s*([+-]?\d+(?:\.\d*)?(?:e[+-]?\d+)?)\s*(%?)\s*((±|\+-).*)?", str(self.value))

    @property
    def other_metric(self) -> str | None:
        """Why the metric is none that is measured here; None where it is."""
        for word, why in OTHER_METRICS.items():
            if word in self.metric.lower():
                return why
        if METRIC.fullmatch(re.split("[, ]", self.metric)[0]):
            return None
        return "this metric is not measured here (accuracy, exact match and pass@1 are)"

    def claim(self, shares: bool) -> Claim:
        """The number as one that can be checked. `shares`: whether no number of the card is above 1.

        Raises:
            ValueError: why it cannot be.
        """
        if (why := self.other_metric) is not None:
            raise ValueError(why)
        benchmark = find_benchmark(self.datasets, self.config)
        if (number := self.number) is None:
            raise ValueError("this is no number")
        value = per_cent(f"{100 * float(number[1])}%" if shares and not number[2] else number[1] + number[2])
        differences = []
        if "flexible" in self.metric:
            differences.append("its answer is the last number of a text (flexible-extract), here the one in the box")
        test = get(benchmark).sources.get("test")
        if self.split not in (None, "test", test and test.hub_split):
            differences.append(f"it is of the split {self.split}, here of test")
        text = " ".join([*self.datasets, self.metric, self.how])
        shots, n = SHOTS.search(text), re.search(r"\bn=(\d+), protocol", text)
        return Claim(
            benchmark,
            value,
            self.said,
            n=int(n[1]) if n else None,
            few_shot=None if shots is None else int(shots[1]) if shots[1].isdigit() else 0,
            differences=tuple(differences),
        )


def _model_index(card: Path) -> list[_Entry]:
    """The results in the metadata of a README.md, if there is one."""
    if not card.is_file():
        return []
    from huggingface_hub.repocard import metadata_load
    from huggingface_hub.repocard_data import model_index_to_eval_results

    try:
        metadata = metadata_load(card) or {}
        _, results = model_index_to_eval_results(metadata.get("model-index") or [{"name": "", "results": []}])
        return [
            _Entry(
                (str(result.dataset_type), str(result.dataset_name)),
                _metric(str(result.metric_type), str(result.metric_name or "")),
                result.metric_value,
                result.dataset_config,
                result.dataset_split,
                " ".join(f"{number}-shot" for name, number in (result.dataset_args or {}).items() if "shot" in name),
            )
            for result in results
        ]
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CardError(f"{card}: the metadata cannot be read: {_line(error)}") from error
    except (KeyError, TypeError, AttributeError) as error:
        message = f"{card}: `model-index` is not of the hub's form: {type(error).__name__}: {error}"
        raise CardError(message) from error


def _metric(kind: str, name: str) -> str:
    """`acc (normalized accuracy)`, and the name alone where it begins with the type."""
    return name if name.startswith(kind) else f"{kind} ({name})" if name else kind


def _eval_results(folder: Path) -> list[_Entry]:
    """The results in `.eval_results/*.yaml`, the hub's newer form. It names no metric: a benchmark has its own."""
    from huggingface_hub import parse_eval_result_entries

    entries = []
    for file in sorted(folder.glob(".eval_results/*.yaml")):
        try:
            results = parse_eval_result_entries(yaml.safe_load(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise CardError(f"{file}: the results cannot be read: {_line(error)}") from error
        except (KeyError, TypeError, AttributeError) as error:
            message = f"{file}: the results are not of the hub's form: {type(error).__name__}: {error}"
            raise CardError(message) from error
        entries += [
            _Entry((str(result.task_id), str(result.dataset_id)), "score", result.value, how=str(result.notes or ""))
            for result in results
        ]
    return entries


def find_benchmark(datasets: Iterable[str], config: str | None = None) -> str:
    """The benchmark here that a card's data set is, by any of its names: `openai/gsm8k`, `GSM8K (5-shot)`, `AIME 2024`.

    A benchmark is found by its own name and by those of its data set on the hub, with or without the owner.

    Args:
        config: the data set's configuration, which tells benchmarks of one data set apart (`sanitized` of MBPP).

    Raises:
        ValueError: it is none of ours, or it may be several.
    """
    texts = {_plain(dataset) for dataset in datasets}
    found: dict[str, Source | None] = {}
    for name in names():
        source = get(name).sources.get("test")
        known = [name] if source is None else [name, source.hub, source.hub.split("/")[1]]
        if not texts.isdisjoint(map(_plain, known)):
            found[name] = source
    if not found:
        raise ValueError("this data set is no benchmark here")
    fitting = [
        n for n, source in found.items() if (source and source.hub_config == config if config else _plain(n) in texts)
    ]
    if len(found) > 1 and len(fitting) != 1:
        raise ValueError(f"this may be {' or '.join(found)}")
    return fitting[0] if len(found) > 1 else next(iter(found))


def _plain(name: str) -> str:
    """`HumanEval+ (0-shot)` -> `humanevalplus`, `AIME_2024` -> `aime24`"""
    text = SHOTS.sub("", ASIDE.sub("", name.lower())).replace("+", "plus")
    return re.sub(r"[^a-z0-9]", "", re.sub(r"20(\d\d)(?!\d)", r"\1", text))


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
