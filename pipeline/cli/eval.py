"""Commands of `vcore` about scores: `eval`, `score` and `compare`. They need no pipeline config."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from pipeline.cli.common import AsJson, Home, Overrides, interval, out, print_json, print_run
from pipeline.core.errors import ConfigError, StageFailed
from pipeline.core.signals import stop_on_signals

if TYPE_CHECKING:
    from evaluation.comparison import Comparison, Measured

_SCORES = "A scores file, the folder or key of a score artifact, or a run (latest:sft is the SFT checkpoint of the latest run)."


def evaluate(
    model: Annotated[str, typer.Argument(help="A checkpoint folder or a hub id.", show_default=False)],
    benchmarks: Annotated[
        str, typer.Option("--benchmarks", help="Names with commas: aime24,math500.", show_default=False)
    ],
    data: Annotated[
        Path | None, typer.Option("--data", envvar="VCORE_DATA_DIR", help="Folder with local copies of the benchmarks.")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="vllm or transformers.")] = "vllm",
    problems: Annotated[
        int | None, typer.Option("--problems", help="Only the first so many of each benchmark.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="Completions per problem; several need a temperature.")] = 1,
    temperature: Annotated[float, typer.Option("--temperature", help="0 is greedy.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="Limit of each completion.")] = 8192,
    seed: Annotated[int, typer.Option("--seed", help="Every sample's own seed is made from it.")] = 0,
    overrides: Overrides = None,
    show_prompt: Annotated[
        int, typer.Option("--show-prompt", metavar="N", help="Print N prompts of each benchmark, and run nothing.")
    ] = 0,
    home: Home = Path(".vcore"),
    as_json: AsJson = False,
) -> None:
    """Evaluate a checkpoint without a pipeline: the same stages, the same store, nothing twice."""
    from pipeline.cli.eval_config import eval_config, shown_prompts, write_config
    from pipeline.config.schema import load_config
    from pipeline.plan.decide import Options
    from pipeline.prefect_.run import run as run_session
    from pipeline.run.session import Session
    from pipeline.run.view import View

    sampling = {"samples": samples, "temperature": temperature, "max_new_tokens": max_new_tokens}
    asked = [{"name": name.strip(), "problems": problems, **sampling} for name in benchmarks.split(",")]
    path = write_config(eval_config(model, asked, engine, seed, home, data), home)
    if show_prompt:
        from evaluation.loading import LoadError
        from evaluation.records import RecordError

        try:
            prompts = shown_prompts(load_config(path, overrides or []), show_prompt)
        except (LoadError, RecordError, OSError, ValueError) as error:
            raise ConfigError(str(error)) from error
        if as_json:
            print_json(prompts)
            return
        for prompt in prompts:
            out.print(
                f"[bold]{prompt['benchmark']} {escape(prompt['problem_id'])}[/], {len(prompt['token_ids'])} tokens"
            )
            sys.stdout.write(f"{prompt['text']}\n{prompt['token_ids']}\n{prompt['tokens']}\n\n")
        return
    stop_on_signals()
    with View() as view:
        session = Session.prepare(path, overrides or [], Options(), view)
        run_session(session)
    print_run(session, as_json)


def compare(
    before: Annotated[str, typer.Argument(metavar="A", help=_SCORES, show_default=False)],
    after: Annotated[
        str, typer.Argument(metavar="B", help="What is compared with A, in the same forms.", show_default=False)
    ],
    home: Home = Path(".vcore"),
    as_json: AsJson = False,
) -> None:
    """Compare two scores on the same problems: the difference B - A, its 95 % interval, and whether there is one."""
    from evaluation.comparison import compare as compare_measured

    old, new = read_scores(home, before), read_scores(home, after)
    common = [name for name in old if name in new]
    if not common:
        raise ConfigError(f"no benchmark in common: {before} has {', '.join(old)}; {after} has {', '.join(new)}")
    try:
        found = [compare_measured(name, before, after, old[name], new[name]) for name in common]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    unknown = [name for name in common if old[name].protocol is None or new[name].protocol is None]
    alone = sorted(old.keys() ^ new.keys())
    if as_json:
        rows = [_as_json(c) | {"protocol_known": c.benchmark not in unknown} for c in found]
        print_json({"before": before, "after": after, "comparisons": rows, "not_compared": alone})
        return
    for c in found:
        out.print(escape(_line(c)), soft_wrap=True)
        for difference in c.protocols:
            out.print(f"    {escape(difference)}", soft_wrap=True)
    if unknown:
        out.print(
            f"[yellow]Sampled how is not known for {', '.join(unknown)}: a scores file tells no protocol.[/]",
            soft_wrap=True,
        )
    if alone:
        out.print(f"Not compared, on one side only: {', '.join(alone)}")


def score(
    benchmark: Annotated[
        str,
        typer.Argument(help="A benchmark's name, for example aime24; or maths, for rows that bring their own gold."),
    ],
    generations: Annotated[
        Path,
        typer.Argument(
            metavar="GENERATIONS.jsonl",
            help="Full records, {problem_id, completion}, or {task_id, solution or completion}.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", envvar="VCORE_DATA_DIR", help="The benchmark's local file, or a folder with local copies."
        ),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Score a file that leaves problems out.")] = False,
    out_file: Annotated[Path | None, typer.Option("--out", help="Write one verdict a line to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Grade generations from anywhere; needs no model and no GPU."""
    from evaluation.loading import LoadError
    from evaluation.records import RecordError, write_jsonl
    from stages.harness.context import StageError
    from stages.score.files import score_file

    if out_file is not None:
        _check_writable(out_file, [path for path in (generations, data) if path is not None])
    try:
        metrics, scores = score_file(benchmark, generations, data, partial)
    except StageError as error:
        raise StageFailed("score", error.message, fix=error.fix) from error
    except (RecordError, LoadError, OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    _print_metrics(benchmark, metrics, as_json)
    if out_file is not None:
        try:
            write_jsonl(out_file, scores)
        except OSError as error:  # a disk that is full, say: the numbers are printed by now
            raise ConfigError(f"the scores cannot be written: {error}", where="--out") from error


def _check_writable(path: Path, read: list[Path]) -> None:
    """Before grading, which may take hours: `ConfigError` where the file is one of those read, or cannot be written."""
    if any(path.exists() and one.exists() and path.samefile(one) for one in read):
        raise ConfigError(
            f"{path} is the file that is scored or read; it would be lost", where="--out", fix="Name another file."
        )
    new = not path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror})",
            where="--out",
            fix="Name a file in a folder that exists and is yours.",
        ) from error
    if new:
        path.unlink()


def _print_metrics(benchmark: str, metrics: dict[str, Any], as_json: bool) -> None:
    """What `score` found: everything as JSON, or the lines that one reads."""
    if as_json:
        print_json(metrics)
        return
    out.print(f"{benchmark}: {metrics['metric']} {interval(metrics)}  n={metrics['n']}  k={metrics['k']}")
    for tries, value in metrics.get("pass_at", {}).items():
        out.print(f"  pass@{tries} {interval(value)}")
    if "majority" in metrics:
        out.print(f"  maj@{metrics['k']} {interval(metrics['majority'])}")
    out.print(f"  problems {metrics['problems_digest']}, protocol {metrics['protocol']}")
    if metrics["pinned_digest"] not in (None, metrics["problems_digest"]):
        out.print(
            f"  [yellow]these are not the problems this project was checked against ({metrics['pinned_digest']})[/]"
        )
    missing = f"; {metrics['missing']} problems of the benchmark are not in the file" if metrics["missing"] else ""
    out.print("  " + ", ".join(f"{verdict} {count}" for verdict, count in metrics["verdicts"].items()) + missing)
    unknown = f", not known of {metrics['finish_unknown']}" if metrics["finish_unknown"] else ""
    out.print(
        f"  cut at the token limit: {metrics['truncated']}{unknown}; prompt too long to be sampled: {metrics['prompt_too_long']}"
    )
    if metrics["sandbox_level"] is not None:
        out.print(f"  programs ran at isolation level {metrics['sandbox_level']}")
        for gap in metrics["sandbox_unprotected"]:
            out.print(f"  [yellow]not protected: {escape(gap)}[/]", soft_wrap=True)
    if metrics["ignored_fields"]:
        out.print(f"  fields that were not looked at: {escape(', '.join(metrics['ignored_fields']))}", soft_wrap=True)


def read_scores(home: Path, name: str) -> dict[str, Measured]:
    """The scores that a word on the command line means; `ConfigError` where it means none."""
    from evaluation.comparison import read_measured

    path = Path(name).expanduser()
    try:
        return read_measured(path if path.exists() else _score_folder(home, name))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: the scores cannot be read: {error}") from error


def _score_folder(home: Path, name: str) -> Path:
    """The artifact of a score stage, by its key or the beginning of it, or of a run, by default that of its last checkpoint."""
    from pipeline.run.record import find_run, load_run
    from pipeline.store.store import Store

    if name.endswith((".jsonl", ".gz")) or "/" in name:
        raise ConfigError(f"there is no file or folder {name}")
    if len(name) >= 4:
        artifacts = [
            folder
            for program, key, folder in Store.existing(home).artifacts()
            if program == "score" and key.startswith(name)
        ]
        if len(artifacts) == 1:
            return artifacts[0]
    run, _, checkpoint = name.partition(":")
    record = load_run(find_run(home, run))
    stages = {stage.name.partition(".")[2]: stage for stage in record.stages if stage.name.startswith("score.")}
    if not stages or (checkpoint and checkpoint not in stages):
        raise ConfigError(
            f"run {record.id} has no scores{' of ' + checkpoint if checkpoint else ''}; it has {', '.join(stages) or 'none'}"
        )
    return Path(stages[checkpoint or list(stages)[-1]].folder)


def _line(c: Comparison) -> str:
    d = c.difference
    if d is None:
        return f"{c.benchmark}: different protocols, not compared"
    return (
        f"{c.benchmark}: {100 * d.difference:+.1f} points [{100 * d.low:+.1f}, {100 * d.high:+.1f}], {d.improved} better and {d.worsened} "
        f"worse of {d.n}, p = {d.p_value:.2g} ({d.test}): {c.verdict}"
    )


def _as_json(c: Comparison) -> dict[str, Any]:
    values = {} if c.difference is None else {"exact": c.exact, **dataclasses.asdict(c.difference)}
    return {"benchmark": c.benchmark, "verdict": c.verdict, **values, "protocols_differ_in": list(c.protocols)}
