"""IMO-AnswerBench, in the form of its file: made here, since its problems are not shipped."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from evaluation.benchmarks.maths.imo_answerbench import BENCHMARK, BY_WORDS
from evaluation.grading import Grader
from evaluation.loading import load
from evaluation.records import RecordError

NAMES = ("Problem ID", "Problem", "Short Answer", "Category", "Subcategory", "Source")


def rows() -> list[list[str]]:
    """A complete set, the answers of which are numbers."""
    return [
        [f"imo-bench-{part}-{n:03}", f"Find {n}.\nAll of it, please.\n", f"${n}$ ", part, "Sum", "Made"]
        for part in ("algebra", "combinatorics", "geometry", "number_theory")
        for n in range(1, 101)
    ]


def written(folder: Path, of: list[list[str]]) -> Path:
    """A data folder with the set."""
    file = folder / "imo_answerbench" / "answerbench_v2.csv"
    file.parent.mkdir(exist_ok=True)
    with open(file, "w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([NAMES, *of])
    return folder


def test_the_published_form(tmp_path: Path) -> None:
    problems = load(BENCHMARK, "test", written(tmp_path, rows()))
    assert (problems[0].id, problems[399].id, problems[1].gold) == ("algebra-001", "number_theory-100", "$2$")
    assert "problem:\nFind 2.\nAll of it, please.\nPlease reason" in problems[1].prompt
    assert problems[250].meta == {"category": "geometry", "checkable": True}
    checkable = load(BENCHMARK, "test", tmp_path, where={"checkable": True})
    assert len(checkable) == 400 - len(BY_WORDS) == 355
    with Grader(1) as grader:
        right, wrong = grader.grade([(problems[1], r"\boxed{4/2}", "stop"), (problems[1], r"\boxed{3}", "stop")])
    assert (right.verdict, wrong.verdict) == ("correct", "wrong")


def test_an_answer_that_slipped_into_its_question_is_not_asked(tmp_path: Path) -> None:
    """As in one row of the published file, where a quotation mark is in the wrong place."""
    changed = rows()
    file = written(tmp_path, changed) / "imo_answerbench" / "answerbench_v2.csv"
    text = file.read_bytes().decode()
    good = '"Find 36.\nAll of it, please.\n",$36$ ,algebra,'
    bad = '"Find 36.\nAll of it, please.\n,"$36$ ",Algebra,'
    file.write_bytes(text.replace(good, bad, 1).encode())
    slipped = load(BENCHMARK, "test", tmp_path)[35]
    assert (slipped.id, slipped.gold) == ("algebra-036", "$36$")
    assert "problem:\nFind 36.\nAll of it, please.\nPlease reason" in slipped.prompt
    changed[35][2] = "Algebra"
    written(tmp_path, changed)
    with pytest.raises(RecordError, match="row 36: the answer is the name of a category"):
        load(BENCHMARK, "test", tmp_path)


def test_a_row_that_is_missing_shows(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="399 problems, the complete set has 400"):
        load(BENCHMARK, "test", written(tmp_path, rows()[1:]))


def test_a_missing_quotation_mark_names_its_row(tmp_path: Path) -> None:
    file = written(tmp_path, rows()) / "imo_answerbench" / "answerbench_v2.csv"
    broken = file.read_bytes().replace(b'Find 7.\nAll of it, please.\n"', b"Find 7.\nAll of it, please.\n", 1)
    file.write_bytes(broken)
    with pytest.raises(RecordError, match="row 7: column 'Short Answer' is empty"):
        load(BENCHMARK, "test", tmp_path)
