"""`vcore verify`: does a model's published number come back?"""

from __future__ import annotations

import dataclasses
import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from evaluation.published.reproduction import (
    INDEPENDENT,
    NOT_REPRODUCED,
    REPRODUCED,
    SAME_PROBLEMS,
    UNDECIDABLE,
    Reproduction,
)
from pipeline.cli.eval import eval_config, naming_arguments, write_config
from pipeline.cli.options import AsJson, Home, Overrides, argument, option
from pipeline.cli.printing import err, print_json, show
from pipeline.cli.scores import read_scores
from pipeline.core.errors import EXIT_STAGE_FAILED, EXIT_UNDECIDED, ConfigError, UserError
from pipeline.core.signals import stop_on_signals

if TYPE_CHECKING:
    from evaluation.comparison import Measured
    from evaluation.published.card import Claim
    from pipeline.share.verify import Verified

    Scores = tuple[Path, dict[str, Measured]]
    """A scores file or the folder of a score artifact, and what is in it by benchmark."""

_MODEL = "A checkpoint folder, GGUF file or hub id, which is evaluated; or scores, as `vcore compare` takes them."
_FEW_SHOT = "So many training problems as worked examples, or a YAML file of {question, answer}. Default: as published."


def verify(
    model: Annotated[str, argument("MODEL", _MODEL)],
    benchmark: Annotated[
        str | None, option("--benchmark", "What the number is of. Default: all that the card has.")
    ] = None,
    published: Annotated[
        str | None, option("--published", "The number, in per cent. Default: those in the model card's metadata.")
    ] = None,
    n_published: Annotated[
        int | None, option("--n-published", "Problems that it is of. Default: all of the benchmark.", min=1)
    ] = None,
    tolerance: Annotated[float, option("--tolerance", "Points that count as no difference.")] = 1.0,
    few_shot: Annotated[str | None, option("--few-shot", _FEW_SHOT)] = None,
    prompt: Annotated[str | None, option("--prompt", "chat (default) or completion.")] = None,
    samples: Annotated[int | None, option("--samples", "Completions per problem (default: 1).")] = None,
    temperature: Annotated[float | None, option("--temperature", "Default: 0, greedy.")] = None,
    max_new_tokens: Annotated[int | None, option("--max-new-tokens", "Limit of a completion (default: 8192).")] = None,
    problems: Annotated[int | None, option("--problems", "Only the first so many of each benchmark.")] = None,
    engine: Annotated[str | None, option("--engine", "vllm (default) or transformers.")] = None,
    data: Annotated[
        Path | None, option("--data", "Folder with local copies of the benchmarks.", envvar="VCORE_DATA_DIR")
    ] = None,
    overrides: Overrides = None,
    home: Home = Path(".vcore"),
    as_json: AsJson = False,
) -> None:
    """Say whether a model's published numbers come back. Exit code 0: they do; 1: one does not; 3: too few problems to
    tell."""
    from pipeline.share.verify import published_size
    from pipeline.share.verify import verify as verify_claim

    if not 0 < tolerance < 100:
        raise ConfigError(
            f"{tolerance:g} is no tolerance: a number of points above 0 and below 100", where="--tolerance"
        )
    asked = {"prompt": prompt, "samples": samples, "temperature": temperature, "problems": problems}
    asked = {name: value for name, value in (asked | {"max_new_tokens": max_new_tokens}).items() if value is not None}
    scores = _existing_scores(home, model)
    shown = few_shot is not None and not few_shot.isdecimal()  # a number also says what was published
    others = {"few_shot": shown, "engine": engine, "set": overrides}
    for name in [*asked, *(name for name, value in others.items() if value)] if scores is not None else []:
        where = f"--{name.replace('_', '-')}"
        raise ConfigError("nothing is sampled for scores that exist", where=where, fix="Leave it out.")
    claims, refused = _claims(model, benchmark, published, few_shot, scores)
    sizes = [published_size(claim, n_published) for claim in claims]
    if scores is None:
        for claim, size in zip(claims, sizes, strict=True):
            err.print(f"checking {claim.benchmark}: {_of(claim.value, size)} ({escape(claim.said)})", soft_wrap=True)
        scores = _measure(model, claims, sizes, few_shot, asked, engine or "vllm", data, overrides or [], home)
    path, measured = scores
    verified = [
        verify_claim(claim, size, tolerance / 100, measured[claim.benchmark], path)
        for claim, size in zip(claims, sizes, strict=True)
    ]
    verdicts = [one.result.verdict for one in verified]
    verdict = next(v for v in (NOT_REPRODUCED, UNDECIDABLE, REPRODUCED) if v in verdicts)
    if as_json:
        results = [dataclasses.asdict(one) for one in verified]
        print_json({"model": model, "verdict": verdict, "results": results, "not_comparable": refused})
    else:
        for one in verified:
            _print(one)
        for line in refused:
            show(f"[yellow]not comparable:[/] {escape(line)}")
    if verdict != REPRODUCED:
        raise typer.Exit(EXIT_STAGE_FAILED if verdict == NOT_REPRODUCED else EXIT_UNDECIDED)


def _existing_scores(home: Path, name: str) -> Scores | None:
    """The scores that the command's argument means; None where it means a model."""
    path = Path(name).expanduser()
    if path.exists():
        is_model = path.suffix == ".gguf" or (path.is_dir() and not (path / "scores.jsonl").is_file())
    else:
        is_model = "/" in name and not name.endswith((".jsonl", ".gz"))  # OWNER/NAME
    return None if is_model else read_scores(home, name, "checkpoint folder, .gguf file, hub id (OWNER/NAME), ")


def _claims(
    model: str, benchmark: str | None, published: str | None, few_shot: str | None, scores: Scores | None
) -> tuple[list[Claim], list[str]]:
    """The numbers to check, and in words those of a card that cannot be. Raises `ConfigError` where there is none."""
    from evaluation.benchmarks import get
    from evaluation.published.card import Claim, per_cent, read_card

    by_hand = "Give the number yourself: --benchmark NAME --published PER_CENT."
    scored = [] if scores is None else list(scores[1])
    where = "--benchmark"
    try:
        if benchmark is None and len(scored) == 1:
            (benchmark,) = scored
        if scores is not None and benchmark not in scored:
            raise ValueError(f"{benchmark or 'which one?'}: {model} has {', '.join(scored)}")
        if scores is None and benchmark is not None:
            get(benchmark)
        where = "--published"
        if published is not None:
            if benchmark is None:
                raise ValueError(f"{published} of which benchmark? Say --benchmark NAME")
            shots = int(few_shot) if few_shot is not None and few_shot.isdecimal() else None
            return [Claim(benchmark, per_cent(published), f"--published {published}", few_shot=shots)], []
        if scores is not None:
            raise ValueError("scores have no model card: give the published number")
    except ValueError as error:
        raise ConfigError(str(error), where=where) from error
    try:
        claims, refused = read_card(model)
    except ValueError as error:
        raise ConfigError(str(error), fix=by_hand) from error
    wanted = [claim for claim in claims if benchmark in (None, claim.benchmark)]
    if not wanted:
        others = "".join(f"\n  {line}" for line in [*(claim.said for claim in claims), *refused])
        what = f" for {benchmark}" if benchmark else ""
        raise ConfigError(f"the card of {model} has no number that can be checked{what}:{others}", fix=by_hand)
    return wanted, refused


def _measure(
    model: str,
    claims: list[Claim],
    sizes: list[int],
    few_shot: str | None,
    asked: dict[str, Any],
    engine: str,
    data: Path | None,
    overrides: list[str],
    home: Path,
) -> Scores:
    """Evaluate a model on the claims' benchmarks, by the published protocol as far as it is known."""
    from evaluation.benchmarks import get
    from pipeline.plan.decide import Options
    from pipeline.prefect_.run import run
    from pipeline.run.session import Session
    from pipeline.run.view import View
    from pipeline.share.verify import examples

    benchmarks: dict[str, dict[str, Any]] = {}
    for claim, size in zip(claims, sizes, strict=True):
        entry: dict[str, Any] = {"name": claim.benchmark, "max_new_tokens": 8192}
        if get(claim.benchmark).size is None:  # problems are made, as many as are wanted
            entry["problems"] = size
        entry |= asked
        if few_shot is not None or asked.get("prompt") != "completion":
            entry |= {"few_shot": shown} if (shown := examples(claim, few_shot, data)) else {}
        if benchmarks.setdefault(claim.benchmark, entry) != entry:
            message = f"the card has {claim.benchmark} with different numbers of worked examples"
            raise ConfigError(message, where="--few-shot", fix="Say with how many of them it is to be checked.")
    path = write_config(eval_config(model, list(benchmarks.values()), engine, 0, home, data), home)
    with naming_arguments(path):
        stop_on_signals()
        try:
            with View() as view:
                session = Session.prepare(path, overrides, Options(), view)
                run(session)
        except UserError as error:
            if error.continue_with:  # `vcore run` would go on as well, and compare nothing
                error.continue_with = shlex.join(["vcore", *sys.argv[1:]])
            raise
    return read_scores(home, str(session.executor.outcomes["score.base"].artifact.folder))


def _of(share: float, n: int) -> str:
    """`61.6 % of 164`"""
    return f"{100 * share:.4g} % of {n:,}"


def _print(v: Verified) -> None:
    r = v.result
    verdict = r.verdict.upper().replace("THIS N", "THIS n")
    show(f"[bold]{v.claim.benchmark}: {verdict}[/] (tolerance: {100 * r.tolerance:g} points)")
    sampled = f", {r.k} samples each" if r.k > 1 else ""
    show(escape(f"  published {_of(r.published, r.n_published)} ({v.claim.said})"))
    show(f"  here      {_of(r.measured, r.n)}{sampled}: {v.here}")
    narrow = ", too wide rather than too narrow" if r.basis == INDEPENDENT else ""
    show(
        escape(
            f"  difference {100 * r.difference:+.1f} points, 95 % [{100 * r.low:+.1f}, {100 * r.high:+.1f}], "
            f"90 % [{100 * r.low_90:+.1f}, {100 * r.high_90:+.1f}]: of {r.basis}{narrow}"
        )
    )
    if r.verdict == UNDECIDABLE:
        for line in _what_would_decide(r):
            show(f"  {line}")
    if v.differences:
        show(escape(f"  known to differ: {'; '.join(v.differences)}"))
    show(escape(f"  not known of the published number: {', '.join(v.unknown)}"))


def _what_would_decide(r: Reproduction) -> Iterator[str]:
    """What would decide, a line each."""
    if r.basis == SAME_PROBLEMS:
        if r.samples_needed is not None:
            yield f"{r.samples_needed:,} samples a problem would decide (--samples)"
        else:
            yield "no number of samples here would decide: the published number has an error of its own"
    elif r.problems_needed is not None:
        yield f"{r.problems_needed:,} problems here would decide"
    else:
        both = "" if r.problems_needed_both is None else f"; {r.problems_needed_both:,} problems of each would"
        yield f"no number of problems here would decide, the published number having an error of its own{both}"
    if r.if_agreeing is not None:
        verdict, most = r.if_agreeing
        yield f"it would be {verdict} if at most {most} of the {r.n} problems were solved by one of the two runs alone"
    yield f"it would be reproduced from --tolerance {math.ceil(1000 * r.smallest_tolerance) / 10:g} on"
