"""A sweep's report: what is claimed of seeds and of problems, cells that failed, published scores, cost and lineage."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from evaluation.metrics.estimates import wilson_interval
from evaluation.statistics import mcnemar_exact
from pipeline.sweep.documents import SweepRecord
from pipeline.sweep.report import figures
from pipeline.sweep.report.cells import run_of_cell
from pipeline.sweep.report.collect import collect
from pipeline.sweep.report.figures import mean_curve
from pipeline.sweep.report.tables import summary
from pipeline.sweep.report.view import view
from tests.pipeline.sweep.report.fakes import (
    TOY,
    FakeCell,
    make_run,
    make_sweep,
    pages_of,
    report_of,
    right,
    scores,
    table,
)


def seeds(method: str, *counts: int, **changes: object) -> list[FakeCell]:
    """One cell a seed, with so many of 100 problems right after SFT and 10 more after RL."""
    cells = [FakeCell(method, str(seed), scores(right(count), right(count + 10))) for seed, count in enumerate(counts)]
    for cell in cells:
        vars(cell).update(changes)
    return cells


def test_means_over_seeds_and_differences_seed_by_seed(tmp_path: Path) -> None:
    folder = pages_of(tmp_path, seeds("sft", 40, 60, 50) + seeds("vcore", 51, 70, 61))
    rows = table(json.loads((folder / "report.json").read_text()), "sft")
    assert rows["sft"]["mean"]["mean"] == pytest.approx(0.5)
    assert rows["sft"]["mean"]["high"] - 0.5 == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    assert rows["sft"]["mean"]["over"] == "seeds"
    assert rows["sft"]["difference"] is None
    # Seeds differ much, the paired difference hardly at all.
    assert rows["vcore"]["difference"]["mean"] == pytest.approx(0.32 / 3)
    assert rows["vcore"]["verdict"] == "higher"
    page = (folder / "report.html").read_text()
    assert "+10.7 [+9.2, +12.1]" in page


def test_two_seeds_and_equal_differences_are_no_verdict(tmp_path: Path) -> None:
    report = report_of(tmp_path, seeds("sft", 50, 70) + seeds("vcore", 52, 72) + seeds("dft", 40, 61))
    rows = table(report, "sft")
    assert rows["vcore"]["verdict"] == "2 seeds: too few to tell"
    assert rows["vcore"]["difference"]["low"] is None
    assert rows["dft"]["verdict"] == "2 seeds: too few to tell"
    assert report["comparisons"] == 0, "nothing is claimed, so nothing can be claimed by chance"


def test_a_method_that_fails_at_rl_in_every_seed_keeps_its_place(tmp_path: Path) -> None:
    broken = [FakeCell("dft", seed, scores(right(1)), status="failed") for seed in ("0", "1", "2")]
    report = report_of(tmp_path, seeds("sft", 40, 60, 50) + broken)
    assert list(table(report, "sft")) == ["sft", "dft"]
    assert list(table(report, "grpo")) == ["sft"]
    assert len(report["failed"]) == 3


def test_a_first_cell_that_failed_takes_no_table_away(tmp_path: Path) -> None:
    cells = [FakeCell("dft", "0", scores(right(1)), status="failed"), *seeds("sft", 40, 60, 50)]
    report = report_of(tmp_path, cells)
    assert [t["checkpoint"] for t in report["tables"]] == ["base", "sft", "grpo"]
    assert [(step["before"], step["after"]) for step in report["steps"] if step["group"] == "sft"] == [
        ("base", "sft"),
        ("sft", "grpo"),
    ]


def test_scores_of_an_earlier_sweep_are_not_this_ones(tmp_path: Path) -> None:
    """A cell failed before any score; a run of the same name is there, of another command or of before."""
    folder = make_sweep(tmp_path, [*seeds("sft", 40, 60, 50), FakeCell("dft", "0", {}, status="failed")])
    record = SweepRecord.load(folder / "sweep.json")
    entry = record.cells[-1]
    stale = FakeCell("dft", "0", scores(right(99)), status="failed")
    other = make_run(tmp_path, f"20251231-000000-{entry.name}", entry.name, stale, "vcore run other.yaml")
    before = make_run(tmp_path, f"20251231-000001-{entry.name}", entry.name, stale, entry.command)
    own, entry.run, entry.earlier_runs = entry.run, None, [other, before]
    assert run_of_cell(tmp_path, entry) == own, "the first of its command that was not there"
    entry.earlier_runs = [other, before, own]
    assert run_of_cell(tmp_path, entry) is None
    record.save(tmp_path)
    assert collect(tmp_path, folder)[0].groups == ["sft"]


def test_one_seed_is_compared_problem_by_problem(tmp_path: Path) -> None:
    """8 of 100 problems better and none worse is a difference; 8 better and 6 worse is none."""
    cells = [
        FakeCell("sft", "42", scores(right(50))),
        FakeCell("vcore", "42", scores(right(58))),
        FakeCell("dft", "42", scores(right(52, start=6))),
    ]
    folder = pages_of(tmp_path, cells)
    report = json.loads((folder / "report.json").read_text())
    rows = table(report, "sft")
    low, high = wilson_interval(50, 100)
    assert (rows["sft"]["mean"]["low"], rows["sft"]["mean"]["high"], rows["sft"]["mean"]["over"]) == (
        low,
        high,
        "problems",
    )
    change = rows["vcore"]["difference"]
    assert (change["over"], change["improved"], change["worsened"]) == ("problems", 8, 0)
    assert change["p_value"] == pytest.approx(mcnemar_exact(0, 8))
    assert change["test"] == "exact McNemar"
    assert (rows["vcore"]["verdict"], rows["dft"]["verdict"]) == ("higher", "not distinguishable")
    assert {s["group"]: s["verdict"] for s in report["steps"]} == dict.fromkeys(("sft", "vcore", "dft"), "higher")
    page, markdown = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    for form in (page, markdown):
        assert "There is one seed: values are of its run, in per cent, with 95 % intervals over problems" in form
        assert "not distinguishable" in form
        assert f"[{100 * low:.1f}, {100 * high:.1f}]" in form
        assert "5 comparisons were made at the 5 % level, uncorrected" in form
    lines = list(csv.DictReader((folder / "report.csv").read_text().splitlines()))
    line = next(row for row in lines if row["method"] == "vcore" and row["checkpoint"] == "sft")
    assert (line["to_baseline_over"], line["to_baseline_verdict"]) == ("problems", "higher")
    latex = (folder / "report.tex").read_text()
    assert rf"$50.0\ [{100 * low:.1f}, {100 * high:.1f}]$" in latex
    assert r"]^{\uparrow}$ \\" in latex
    assert r"]^{\approx}$ \\" in latex
    assert "] over problems" in summary(collect(tmp_path, folder)[0])


def test_one_seed_without_its_scores_claims_nothing(tmp_path: Path) -> None:
    folder = make_sweep(
        tmp_path, [FakeCell("sft", "42", scores(right(50))), FakeCell("vcore", "42", scores(right(90)))]
    )
    for file in (tmp_path / "store" / "score").glob("*/scores.jsonl"):
        file.unlink()
    (row,) = [row for row in collect(tmp_path, folder)[0].tables[1].rows if row.group == "vcore"]
    assert row.verdict == "one seed, whose scores are no longer in the store: cannot be told"


def test_the_same_checkpoint_is_said_to_be_the_same(tmp_path: Path) -> None:
    folder = pages_of(tmp_path, seeds("sft", 40, 60, 50) + seeds("vcore", 51, 70, 61))
    markdown = (folder / "report.md").read_text()
    assert "the same checkpoint" in markdown
    assert "+0.0" not in markdown


def test_different_protocols_are_not_compared(tmp_path: Path) -> None:
    report = report_of(tmp_path, seeds("sft", 40, 60, 50) + seeds("vcore", 51, 70, 61, protocol="q"))
    assert table(report, "sft")["vcore"]["verdict"] == "different protocols"
    assert report["comparisons"] == 2, "what SFT changed in either group; RL gave each seed the same"


def published(**sft: float) -> dict[str, object]:
    return {"source": "a paper", "axis": "method", "base": {TOY: 4.0}, "sft": {TOY: sft}, "grpo": {}}


def test_a_published_score_is_one_run(tmp_path: Path) -> None:
    """72 lies outside the interval of our mean of five seeds, and where a sixth seed may well lie."""
    report = report_of(
        tmp_path, seeds("sft", 50, 60, 55, 65, 60) + seeds("vcore", 50, 51, 50, 51, 50), published(sft=72.0, vcore=60.0)
    )
    mean = table(report, "sft")["sft"]["mean"]
    beside = {row["label"]: row for row in report["published"]}
    assert mean["high"] < 0.72
    assert beside["sft"]["inside"] is True
    assert beside["vcore"]["inside"] is False
    assert (beside["sft"]["over"], beside["sft"]["seeds"]) == ("seeds", 5)
    assert (beside[""]["checkpoint"], beside[""]["group"], beside[""]["over"]) == ("base", "", "problems"), (
        "one base checkpoint, once"
    )


def test_with_one_seed_a_published_score_is_judged_over_problems(tmp_path: Path) -> None:
    report = report_of(tmp_path, [FakeCell("sft", "42", scores(right(50)))], published(sft=61.0))
    row = next(row for row in report["published"] if row["checkpoint"] == "sft")
    assert (row["low"], row["high"]) == wilson_interval(25, 50), "theirs is of 100 problems as well"
    assert row["high"] > wilson_interval(50, 100)[1]
    assert (row["over"], row["inside"]) == ("problems", True)


def test_published_scores_are_set_beside_each_group_by_itself(tmp_path: Path) -> None:
    """Another axis is no spread between seeds: 20 and 80 are not "50, give or take"."""
    cells = [
        cell
        for rate, counts in (("1e-3", (20, 21, 22)), ("2e-3", (80, 81, 82)))
        for cell in seeds("sft", *counts, labels={"sft.learning_rate": rate})
    ]
    report = report_of(tmp_path, cells, published(sft=50.0))
    rows = [row for row in report["published"] if row["checkpoint"] == "sft"]
    assert [row["ours"] for row in rows] == [pytest.approx(0.21), pytest.approx(0.81)]
    assert [row["inside"] for row in rows] == [False, False]
    assert len({row["group"] for row in rows}) == 2


def test_cost_in_gpu_hours_and_tokens(tmp_path: Path) -> None:
    hardware = {"cpu": "a CPU", "cores": 16, "memory_gib": 128.0, "gpu": ["a GPU", "a GPU"]}
    report = report_of(tmp_path, seeds("sft", 40, 60, 50) + seeds("vcore", 51, 70, 61, manifest={"hardware": hardware}))
    cost = report["cost"]["vcore"]
    assert cost["sft"] == {"seconds": 10.0, "gpu_hours": pytest.approx(2 * 10 / 3600), "trained": 1500, "sampled": 0}
    assert cost["grpo"]["trained"] == 6000
    assert cost["generate"] == {"seconds": 9.0, "gpu_hours": 0.0, "trained": 0, "sampled": 2700}
    assert report["cost"]["sft"]["sft"]["gpu_hours"] == 0.0
    # data, base and what was measured of it once; sft and grpo with their measurements in each of six cells
    assert report["computed_s"] == pytest.approx(4 + 14 + 6 * 2 * 14)
    assert report["saved_s"] == pytest.approx(5 * (4 + 14))
    shown = view(*collect(tmp_path, tmp_path / "sweeps" / "20260102-000000-s"))
    assert shown["spent"] == "0.033 GPU hours, 45.0 k tokens trained on, 11.7 k sampled for evaluation"
    titles = [column.title for column in shown["costs"].columns]
    named = ("", "GPU hours", "tokens, SFT", "tokens, RL")
    assert [[row[titles.index(title)] for title in named] for row in shown["costs"].rows] == [
        ["sft", "0", "1.5 k", "6.0 k"],
        ["vcore", "0.011", "1.5 k", "6.0 k"],
    ]


def test_cost_on_a_cpu_is_said_to_be_no_gpu_hours(tmp_path: Path) -> None:
    folder = pages_of(tmp_path, seeds("sft", 40, 60, 50))
    assert "no GPU hours (all of it on CPU)" in (folder / "report.html").read_text()


def test_curves_of_the_groups_lie_over_one_another(tmp_path: Path) -> None:
    folder = pages_of(tmp_path, seeds("sft", 40, 60, 50) + seeds("vcore", 51, 70, 61))
    page = (folder / "report.html").read_text()
    drawn = re.findall(r'aria-label="([^"]*)"', page)
    loss = "sft, uniform loss, nats per token over optimizer steps, mean over seeds"
    assert f"{loss}: sft from 2 to 0.667; vcore from 2 to 0.667" in drawn
    assert "SFT: bold is the mean over seeds, thin is each seed" in page
    assert sum(label.startswith(("sft, ", "grpo, ")) for label in drawn) == 6, (
        "loss, KL, effective share, alpha; reward, length"
    )
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids)), "several drawings on one page share no id"


def test_a_mean_curve_ends_where_a_run_ends() -> None:
    assert mean_curve([[(1, 0.0), (2, 1.0), (3, 9.0)], [(1, 1.0), (2, 2.0)]]) == [(1, 0.5), (2, 1.5)]


def test_numbers_lead_to_data_model_commit_and_machine(tmp_path: Path) -> None:
    folder = pages_of(tmp_path, seeds("sft", 40, 60, 50))
    cell = json.loads((folder / "report.json").read_text())["cells"][0]
    assert cell["keys"]["data"] == "data-data"
    assert cell["digests"]["sft"] == f"digest of {cell['keys']['sft']}"
    assert cell["outside"] == {
        "data": {"data.sft.0": {"hub": "owner/demos", "commit": "c" * 40}},
        "base": {"model": {"hub": "owner/model", "commit": "d" * 40}},
    }
    assert cell["commits"] == ["0123456789ab+"]
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text()
        assert "owner/demos at commit cccccccccccc" in text
        assert "owner/model at commit dddddddddddd" in text
        assert "0123456789ab+" in text
        assert "data data-dat base base-bas" in text
        assert "a CPU, 2 cores, 24.0 GiB" in text
        assert "torch" in text


def test_every_table_of_the_markdown_is_whole(tmp_path: Path) -> None:
    folder = pages_of(tmp_path, seeds("sft", 40, 60, 50) + seeds("vcore", 51, 70, 61), published(sft=72.0))
    lines = (folder / "report.md").read_text().splitlines()
    heads = [index for index, line in enumerate(lines) if re.fullmatch(r"(\|-+)+\|", line)]
    assert len(heads) == 3 + 5, "a table a checkpoint; steps, published, cost, lineage, from outside"
    for index in heads:
        rows = [line for line in lines[index + 1 : lines.index("", index)] if line]
        assert rows
        assert {row.count("|") for row in rows} == {lines[index - 1].count("|")} == {lines[index].count("|")}


def test_intervals_of_several_methods_hold_together(tmp_path: Path) -> None:
    cells = seeds("sft", 40, 60, 50, 45, 55) + seeds("vcore", 44, 62, 57, 47, 60) + seeds("dft", 39, 60, 52, 45, 57)
    folder = pages_of(tmp_path, cells)
    report = json.loads((folder / "report.json").read_text())
    rows = table(report, "sft")
    assert "together" not in rows["sft"]
    alone, at_once = rows["vcore"]["difference"], rows["vcore"]["together"]
    # Two differences, 4 degrees of freedom: 3.481 (a hair below Bonferroni's 3.495) instead of 2.776.
    ratio = (at_once["high"] - at_once["mean"]) / (alone["high"] - alone["mean"])
    assert ratio == pytest.approx(3.4814 / 2.7764, rel=1e-4)
    assert at_once["mean"] == alone["mean"]
    assert (alone["low"] > 0, at_once["low"] > 0) == (True, True)
    assert rows["dft"]["together"]["verdict"] == "not distinguishable"
    for page in ("report.md", "report.html"):
        assert "verdict, together" in (folder / page).read_text()


def test_one_comparison_has_nothing_to_hold_together(tmp_path: Path) -> None:
    folder = pages_of(tmp_path, seeds("sft", 40, 60, 50) + seeds("vcore", 51, 70, 61))
    assert all("together" not in row for row in table(json.loads((folder / "report.json").read_text()), "sft").values())
    assert "together" not in (folder / "report.md").read_text()


def test_no_two_groups_have_colour_and_line_in_common() -> None:
    groups = [f"method-{number}" for number in range(30)]
    assert len(set(figures._styles(groups).values())) == 30
