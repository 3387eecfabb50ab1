"""`vcore gate`: may this score pass? With exit codes for CI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from pipeline.cli.options import AsJson, Home, argument, option
from pipeline.cli.printing import print_json, print_verdicts
from pipeline.config.gate import BASELINE, CheckSettings, GateSettings
from pipeline.core.errors import EXIT_GATE_FAILED, EXIT_GATE_UNDECIDED, ConfigError
from pipeline.run.documents import GateVerdict

_A = "A run (its id, the beginning of it, or `latest`); with B scores in any form that `vcore compare` takes."
_B = "Scores that are held against A. Without B, the run A is held against its baseline."


def gate(
    before: Annotated[str, argument("A", _A)] = "latest",
    after: Annotated[str | None, argument("[B]", _B)] = None,
    max_drop: Annotated[float | None, option("--max-drop", "Points that a score may be lower.")] = None,
    max_change: Annotated[float | None, option("--max-change", "Points that it may be lower or higher.")] = None,
    must_exceed: Annotated[float | None, option("--must-exceed", "Points that it has to be higher by.")] = None,
    benchmarks: Annotated[
        list[str] | None, option("--benchmark", "Only this benchmark; may be repeated. Default: all that A has.")
    ] = None,
    level: Annotated[float | None, option("--level", "Rate of false PASS, and of false FAIL. Default: 0.05.")] = None,
    junit: Annotated[Path | None, option("--junit", "Write the verdicts as JUnit XML.", metavar="FILE")] = None,
    home: Home = Path(".vcore"),
    as_json: AsJson = False,
) -> None:
    """Say whether scores may pass: PASS (exit code 0), FAIL (3) or UNDECIDED (4), with what could have been seen.

    `vcore gate A B` holds B against A. `vcore gate RUN` judges the checks in the `gate:` section of the run's config
    against its baseline, or the margin that is given for every benchmark.
    """
    given = {"max_drop": max_drop, "max_change": max_change, "must_exceed": must_exceed}
    margins = {name: points for name, points in given.items() if points is not None}
    if len(margins) > 1:
        raise ConfigError("give one margin", where=" ".join(f"--{n.replace('_', '-')}" for n in margins))
    if level is not None and not 0 < level < 0.5:
        raise ConfigError(f"{level:g} is not between 0 and 0.5", where="--level")
    if after is not None:
        verdicts = _two(home, before, after, margins, benchmarks, level)
    else:
        before, verdicts = _run(home, before, margins, benchmarks, level)
    _report(before, after, verdicts, as_json, junit)


def _two(
    home: Path, before: str, after: str, margins: dict[str, float], only: list[str] | None, level: float | None
) -> list[GateVerdict]:
    """B against A. Raises `ConfigError` for what cannot be compared."""
    from evaluation.gates.levels import LEVEL
    from evaluation.gates.paired import pair
    from pipeline.cli.scores import score_path
    from pipeline.run.gates.baseline import ANY, file_scores
    from pipeline.run.gates.gate import Asked, judge_all

    if not margins:
        raise ConfigError("what may pass?", where="vcore gate A B", fix="For example: --max-drop 1 (points).")
    old, new = file_scores(score_path(home, before)), file_scores(score_path(home, after))
    wanted = only or list(dict.fromkeys(name for _, name in old))
    asked = []
    for name in wanted:
        for word, scores in ((before, old), (after, new)):
            if (ANY, name) not in scores:
                there = ", ".join(benchmark for _, benchmark in scores)
                raise ConfigError(f"{word} has no {name}; it has {there}", fix="Choose with --benchmark.")
        try:
            pair(old[ANY, name], new[ANY, name], any_samples=True)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}", where=f"{before} and {after}") from error
        rule = _check(name, margins).rule
        asked.append(Asked(name, "", before, new[ANY, name], old[ANY, name], rule))
    return judge_all(asked, level or LEVEL, level or LEVEL)


def _run(
    home: Path, name: str, margins: dict[str, float], only: list[str] | None, level: float | None
) -> tuple[str, list[GateVerdict]]:
    """A run against its baseline: its id, and the verdicts."""
    from pipeline.run.gates.assess import background, gate_verdicts
    from pipeline.run.record import find_run, load_run
    from pipeline.store.store import Store

    if ":" in name or Path(name).is_file():
        what = f"{name} names scores, and without B it is a run that is judged"
        fix = "Name the run alone, or give B and what may pass: --max-drop 1"
        raise ConfigError(what, where="vcore gate A", fix=fix)
    folder = find_run(home, name)
    settings, record = _settings(folder), load_run(folder)
    if level is not None:
        settings = settings.model_copy(update={"level": level})
    known = background(Store.existing(home), record, settings)
    checks = [check for check in settings.checks if not only or check.benchmark in only]
    if margins:
        measures = list(dict.fromkeys(benchmark for _, benchmark in known.scores))
        if known.scores and (lacking := [benchmark for benchmark in only or [] if benchmark not in measures]):
            raise ConfigError(f"run {record.id} has no {lacking[0]}; it has {', '.join(measures)}", where="--benchmark")
        last = known.measured[-1] if known.measured else ""
        measured = only or [benchmark for checkpoint, benchmark in known.scores if checkpoint == last] or measures
        checks = [_check(benchmark, margins) for benchmark in measured]
        settings = settings.model_copy(update={"more_samples": None})  # these checks have one look
    if not checks:
        what = f"the config of run {record.id} has no checks" + (f" of {', '.join(only)}" if only else "")
        raise ConfigError(what, fix="Add a gate: section (docs/gates.md), or say what may pass: --max-drop 1")
    if not known.scores:
        raise ConfigError(f"of run {record.id} no scores are left in the store", fix="Run it again.")
    if known.lost is not None and any(check.rule is not None and check.against == BASELINE for check in checks):
        raise known.lost
    return record.id, gate_verdicts(known, settings.model_copy(update={"checks": checks}), checks)


def _settings(run: Path) -> GateSettings:
    """The `gate:` section of a run; the default where its config has none."""
    import json

    try:
        return GateSettings.model_validate(json.loads((run / "config.json").read_bytes()).get("gate", {}))
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError("the config of this run cannot be read", where=str(run / "config.json")) from error


def _check(benchmark: str, margins: dict[str, float]) -> CheckSettings:
    try:
        return CheckSettings.model_validate({"benchmark": benchmark, **margins})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(first["msg"], where=f"--{str(first['loc'][0]).replace('_', '-')}") from error


def _report(before: str, after: str | None, verdicts: list[GateVerdict], as_json: bool, junit: Path | None) -> None:
    from pipeline.run.gates.gate import whole

    verdict = whole(verdicts)
    if junit is not None:
        _write_junit(junit, verdicts)
    if as_json:
        compared = {"before": before, "after": after} if after is not None else {"run": before}
        print_json({**compared, "verdict": verdict, "checks": [one.model_dump() for one in verdicts]})
    else:
        print_verdicts(f"{before} -> {after}" if after is not None else before, verdicts)
    if verdict != "PASS":
        raise typer.Exit(EXIT_GATE_FAILED if verdict == "FAIL" else EXIT_GATE_UNDECIDED)


def _write_junit(file: Path, verdicts: list[GateVerdict]) -> None:
    """A test case a check: a FAIL of a critical one is a failure; what is undecided or advisory is skipped."""
    from xml.etree import ElementTree

    from pipeline.run.gates.gate import line

    cases = []
    for one in verdicts:
        case = ElementTree.Element("testcase", classname=f"gate.{one.benchmark}", name=f"{one.checkpoint} {one.asked}")
        if one.verdict == "FAIL" and one.tier == "critical":
            ElementTree.SubElement(case, "failure", message=line(one))
        elif one.verdict != "PASS":
            ElementTree.SubElement(case, "skipped", message=f"{one.verdict}: {line(one)}")
        cases.append(case)
    counts = {name: str(sum(case.find(name) is not None for case in cases)) for name in ("failure", "skipped")}
    suite = ElementTree.Element(
        "testsuite", name="vcore gate", tests=str(len(cases)), failures=counts["failure"], skipped=counts["skipped"]
    )
    suite.extend(cases)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    try:
        ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror})", where="--junit") from error
