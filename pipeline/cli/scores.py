"""`vcore score` and `vcore compare`: generations and scores from anywhere. They need no pipeline."""

import dataclasses
import glob
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from evaluation.comparison import Comparison, Measured, read_measured, right_shares
from evaluation.comparison import compare as compare_measured
from evaluation.gates.margin import FEWEST, detectable_difference, differences, problems_needed
from evaluation.records import write_jsonl
from pipeline.cli.options import AsJson, Home, argument, option
from pipeline.cli.printing import count, interval, out, print_json, show
from pipeline.core.errors import ConfigError, StageFailed

_SCORES = (
    "A scores file, the folder or key of a score artifact, or a run "
    "(latest:sft is the SFT checkpoint of the latest run)."
)

MOST_ROWS = 20
"""Disagreements with a second opinion that are printed."""


def compare(
    before: Annotated[str, argument("A", _SCORES)],
    after: Annotated[str, argument("B", "What is compared with A, in the same forms.")],
    home: Home = Path(".vcore"),
    as_json: AsJson = False,
) -> None:
    """Compare two scores on the same problems: the difference B - A, its 95 % interval, and whether there is one."""
    old, new = read_scores(home, before)[1], read_scores(home, after)[1]
    common = [name for name in old if name in new]
    if not common:
        raise ConfigError(f"no benchmark in common: {before} has {', '.join(old)}; {after} has {', '.join(new)}")
    try:
        comparisons = [compare_measured(name, before, after, old[name], new[name]) for name in common]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    powers = {name: _power(old[name], new[name]) for name in common if comparisons[common.index(name)].difference}
    unknown = [name for name in common if old[name].protocol is None or new[name].protocol is None]
    alone = sorted(old.keys() ^ new.keys())
    if as_json:
        known = [{"protocol_known": c.benchmark not in unknown, **powers.get(c.benchmark, {})} for c in comparisons]
        rows = [_as_json(c) | more for c, more in zip(comparisons, known, strict=True)]
        print_json({"before": before, "after": after, "comparisons": rows, "not_compared": alone})
        return
    for c in comparisons:
        show(escape(_line(c)))
        if (power := powers.get(c.benchmark)) and (effect := power["detectable"]) is not None:
            text = f"    found 4 times of 5: a difference of {100 * effect:.1f} points"
            if c.verdict == "not distinguishable" and power["problems_needed"] is not None:
                text += f"; one as seen, from about {power['problems_needed']:,} problems on"
            show(text)
        for difference in c.protocols:
            show(f"    {escape(difference)}")
        if c.unknown:
            show(f"    [yellow]A server did not say, so it may differ: {escape(', '.join(c.unknown))}[/]")
    if unknown:
        show(f"[yellow]Sampled how is not known for {escape(', '.join(unknown))}: a scores file tells no protocol.[/]")
    if alone:
        show(f"Not compared, on one side only: {escape(', '.join(alone))}")


def score(
    benchmark: Annotated[
        str,
        typer.Argument(help="A benchmark's name, for example aime24; or maths, for rows that bring their own gold."),
    ],
    generations: Annotated[
        Path,
        argument("GENERATIONS.jsonl", "Full records, {problem_id, completion}, or {task_id, solution or completion}."),
    ],
    data: Annotated[
        Path | None,
        option("--data", "The benchmark's local file, or a folder with local copies.", envvar="VCORE_DATA_DIR"),
    ] = None,
    problems: Annotated[
        int | None, option("--problems", "Only the first so many; of a benchmark that is generated, how many.", min=1)
    ] = None,
    problem_seed: Annotated[
        int | None, option("--problem-seed", "Of a benchmark that is generated: the seed (default: 0).", min=0)
    ] = None,
    partial: Annotated[bool, option("--partial", "Score a file that leaves problems out.")] = False,
    second: Annotated[
        bool, option("--second-opinion", "Say where math-verify alone disagrees; scores do not change. Maths only.")
    ] = False,
    package: Annotated[
        list[str] | None, option("--package", "A package that programs may import, such as numpy; may be repeated.")
    ] = None,
    out_file: Annotated[Path | None, option("--out", "Write one verdict a line to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Grade generations from anywhere; needs no model and no GPU."""
    from stages.harness.context import StageError
    from stages.score.files import score_file
    from stages.score.settings import ScoreSettings

    if not generations.is_file():  # before a benchmark is asked for, maybe of the hub
        what = "is a folder" if generations.is_dir() else "does not exist"
        raise ConfigError(f"{generations} {what}", where="GENERATIONS.jsonl", fix="Name a file of generations.")
    if out_file is not None:
        _check_writable(out_file, [path for path in (generations, data) if path is not None])
    try:
        settings = ScoreSettings(packages=package or [])
        chosen = {"count": problems, "seed": problem_seed}
        metrics, scores = score_file(benchmark, generations, data, partial, settings, second, **chosen)
    except StageError as error:
        raise StageFailed("score", error.message, fix=error.fix) from error
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    try:
        if out_file is not None:
            write_jsonl(out_file, scores)
            if second and (rows := metrics["second_opinion"]["rows"]):
                write_jsonl(_second_file(out_file), rows)
            elif second:  # none disagrees, and what lies there is of an earlier call
                _second_file(out_file).unlink(missing_ok=True)
    except OSError as error:  # a disk that is full, say
        raise ConfigError(f"the scores cannot be written: {error}", where="--out") from error
    finally:  # the numbers are not lost with the file
        print_json(metrics) if as_json else _print_metrics(benchmark, metrics)


def _second_file(scores: Path) -> Path:
    """Where the rows go that a second opinion disagrees on: scores.jsonl -> scores.second-opinion.jsonl."""
    return scores.with_name(f"{scores.name.removesuffix('.jsonl')}.second-opinion.jsonl")


def _check_writable(path: Path, read: list[Path]) -> None:
    """Before grading, which may take hours: `ConfigError` where the file is one of those read, or cannot be written."""
    if any(path.exists() and one.exists() and path.samefile(one) for one in read):
        message = f"{path} is the file that is scored or read; it would be lost"
        raise ConfigError(message, where="--out", fix="Name another file.")
    new = not path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        fix = "Name a file in a folder that exists and is yours."
        raise ConfigError(f"{path} cannot be written ({error.strerror})", where="--out", fix=fix) from error
    if new:
        path.unlink()


def _print_metrics(benchmark: str, metrics: dict[str, Any]) -> None:
    """What `score` measured, as the lines that one reads."""
    out.print(f"{benchmark}: {metrics['metric']} {interval(metrics)}  n={metrics['n']}  k={metrics['k']}")
    for tries, value in metrics.get("pass_at", {}).items():
        out.print(f"  pass@{tries} {interval(value)}")
    if "majority" in metrics:
        out.print(f"  maj@{metrics['k']} {interval(metrics['majority'])}")
    out.print(f"  problems {metrics['problems_digest']}, protocol {metrics['protocol']}")
    if metrics["pinned_digest"] not in (None, metrics["problems_digest"]):
        pinned = f"these are not the problems this project was checked against ({metrics['pinned_digest']})"
        out.print(f"  [yellow]{pinned}[/]")
    missing = f"; {metrics['missing']} problems of the benchmark are not in the file" if metrics["missing"] else ""
    out.print("  " + ", ".join(f"{verdict} {n}" for verdict, n in metrics["verdicts"].items()) + missing)
    if refused := metrics.get("not_graded"):
        show(f"  not graded, and so not right: {count(len(refused), 'problem')} ({escape(', '.join(refused))})")
    unknown = f", not known of {metrics['finish_unknown']}" if metrics["finish_unknown"] else ""
    too_long = f"prompt too long to be sampled: {metrics['prompt_too_long']}"
    out.print(f"  cut at the token limit: {metrics['truncated']}{unknown}; {too_long}")
    if metrics["sandbox_level"] is not None:
        out.print(f"  programs ran at isolation level {metrics['sandbox_level']}")
        for gap in metrics["sandbox_unprotected"]:
            show(f"  [yellow]not protected: {escape(gap)}[/]")
    if (second := metrics.get("second_opinion")) is not None:
        rate = f" ({interval(second)})" if second["n"] else ""
        of = f"{second['disagreements']} of {second['n']}{rate}; no opinion on {second['without_opinion']}"
        out.print(f"  second opinion, {second['by']} alone: disagrees on {of}")
        for row in second["rows"][:MOST_ROWS]:
            answers = f"gold {row['gold']!r:.80}, extracted {row['extracted']!r:.80}"
            verdicts = f"{row['verdict']}, second opinion {row['second_verdict']}"
            show(escape(f"    {row['problem_id']} (sample {row['sample']}): {answers}: {verdicts}"))
        if (more := len(second["rows"]) - MOST_ROWS) > 0:
            out.print(f"    and {more} more, with --out or --json")
    if metrics["left_out"]:
        out.print(f"  rows left out, whose prompts {benchmark} does not have: {metrics['left_out']}")
    if metrics["ignored_fields"]:
        show(f"  fields that were not looked at: {escape(', '.join(metrics['ignored_fields']))}")


def read_scores(home: Path, name: str, kinds: str = "") -> tuple[Path, dict[str, Measured]]:
    """The file or folder that a word on the command line means, and its scores; `ConfigError` where it means none.

    Args:
        kinds: what else than scores the word might have meant, for that error: `folder, `.
    """
    path = score_path(home, name, kinds)
    try:
        return path, read_measured(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: the scores cannot be read: {error}") from error


def score_path(home: Path, name: str, kinds: str = "") -> Path:
    """The file or folder of scores that a word on the command line means; `ConfigError` where it means none."""
    path = Path(name).expanduser()
    return path if path.exists() else _score_folder(home, name, kinds)


def _score_folder(home: Path, name: str, kinds: str) -> Path:
    """The artifact of a score stage, by its key or the beginning of it, or of a run, by default that of its last
    checkpoint."""
    from pipeline.run.gc import SHORTEST_KEY
    from pipeline.run.record import another_with, continue_command, find_run, load_run
    from pipeline.store.store import Store

    if name.endswith((".jsonl", ".gz")) or "/" in name:
        raise ConfigError(f"there is no file or folder {name}")
    run, _, checkpoint = name.partition(":")
    message = f"{name} is no {kinds}scores file, key or run"
    if not (home / "store").is_dir():
        fix = "Name the home folder of earlier runs: --home FOLDER."
        raise ConfigError(f"{message}; and there is no store in {home}", fix=fix)
    if len(name) >= SHORTEST_KEY:
        artifacts = Store.existing(home).artifacts()
        named = [folder for program, key, folder in artifacts if program == "score" and key.startswith(name)]
        if len(named) == 1:
            return named[0]
    if run != "latest" and not any((home / "runs").glob(f"{glob.escape(run)}*/run.json")):
        raise ConfigError(f"{message} of {home}", fix="Keys: vcore store ls. Runs: vcore runs.")
    record = load_run(find_run(home, run))
    keys = {s.name.partition(".")[2]: s.key for s in record.stages if s.name.startswith("score.")}
    if not keys or (checkpoint and checkpoint not in keys):
        of = f" of {checkpoint}" if checkpoint else ""
        has = f"; it has {', '.join(keys)}" if keys else ""
        to_come = {stage.removeprefix("score.") for stage in record.left if stage.startswith("score.")}
        if to_come and record.status != "done" and (not checkpoint or checkpoint in to_come):
            said = {"running": "is running and has not come to them", "failed": "failed before it came to them"}
            how = said.get(record.status, f"was {record.status} before it came to them")
            fix = "" if record.status == "running" else f"Continue it with: {continue_command(record)}"
            raise ConfigError(f"run {record.id} has no scores{of}: it {how}{has}", fix=fix)
        stage = f"score.{checkpoint}".removesuffix(".")
        fix = another_with(home, stage) if run == "latest" else ""
        raise ConfigError(f"run {record.id} has no scores{of}{has}", fix=fix)
    # By key and not by the path in the record: the home may have moved, and what is damaged is noticed.
    checkpoint = checkpoint or list(keys)[-1]
    found = Store.existing(home).find("score", keys[checkpoint])
    if found.artifact is None:
        what = f"cannot be read ({found.damage})" if found.damage else "are gone from the store"
        raise ConfigError(f"the scores of {checkpoint} of run {record.id} {what}", fix="Run it again.")
    return found.artifact.folder


def _line(c: Comparison) -> str:
    d = c.difference
    if d is None:
        return f"{c.benchmark}: different protocols, not compared"
    return (
        f"{c.benchmark}: {100 * d.difference:+.1f} points [{100 * d.low:+.1f}, {100 * d.high:+.1f}], "
        f"{d.improved} better and {d.worsened} worse of {d.n}, p = {d.p_value:.2g} ({d.test}): {c.verdict}"
    )


def _power(old: Measured, new: Measured) -> dict[str, float | int | None]:
    """The minimum detectable effect at 80 % power, as a share, and the problems that the difference seen would need;
    None for fewer problems than a gate takes."""
    before, after = right_shares(old.scores), right_shares(new.scores)
    if len(before) < FEWEST:
        return {"detectable": None, "problems_needed": None}
    seen = differences([before[problem] for problem in after], list(after.values()))
    effect = detectable_difference(seen)
    return {"detectable": effect, "problems_needed": problems_needed(seen.n, effect, seen.mean)}


def _as_json(c: Comparison) -> dict[str, Any]:
    values = {} if c.difference is None else {"exact": c.exact, **dataclasses.asdict(c.difference)}
    said = {"protocols_differ_in": list(c.protocols), "protocol_unknown": list(c.unknown)}
    return {"benchmark": c.benchmark, "verdict": c.verdict, **values, **said}
