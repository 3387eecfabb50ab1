"""A problem's folder that is not as it should be, or lies in the hub's cache: read, refused by name, or an error."""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.code import dmoj_problem, ojbench
from evaluation.benchmarks.code.dmoj_problem import DmojProblem, NotGraded
from evaluation.loading import load
from evaluation.records import RecordError
from tests.evaluation.benchmarks.contests.ojbench_set import add_problem, write_settings
from tests.tiny import write_jsonl

LISTED = [{"in": "data1.in", "out": "data1.out"}]


def folder(tmp_path: Path, archive: str | None = "tests.zip", **settings: object) -> Path:
    add_problem(tmp_path / "set", 7, archive=archive, **settings)
    return tmp_path / "set/NOI/loj-7"


def as_in_the_hubs_cache(snapshot: Path, blobs: Path) -> None:
    """Make each file a link to one that lies elsewhere and is named by its content."""
    blobs.mkdir()
    for number, file in enumerate(sorted(path for path in snapshot.rglob("*") if path.is_file())):
        blob = blobs / f"{number:064x}"
        file.rename(blob)
        file.symlink_to(os.path.relpath(blob, file.parent))


@pytest.mark.parametrize("archive", [None, "tests.zip"])
def test_files_may_be_links_as_in_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: str | None
) -> None:
    monkeypatch.setattr(ojbench, "SIZE", 1)
    add_problem(tmp_path / "ojbench", 7, archive=archive)
    as_in_the_hubs_cache(tmp_path / "ojbench", tmp_path / "blobs")
    [problem] = load(ojbench.CPP, "test", tmp_path)
    assert problem.meta["graded"] is True
    assert problem.tests["packed"]["cases"] == 2


@pytest.mark.parametrize("name", ["../outer.zip", "ABSOLUTE/outer.zip", "x/../../outer.zip", ".", ["outer.zip"], 5])
def test_an_archive_lies_in_the_problems_folder(tmp_path: Path, name: Any) -> None:
    place = folder(tmp_path)
    with zipfile.ZipFile(place.parent / "outer.zip", "w") as outer:
        for file in ("data1.in", "data1.out"):
            outer.writestr(file, "1")
    name = name.replace("ABSOLUTE", str(place.parent)) if isinstance(name, str) else name
    write_settings(place, {"archive": name, "test_cases": LISTED})
    with pytest.raises(RecordError, match=r"loj-7: archive: .* lies outside the folder|not the name of a file"):
        DmojProblem(place)


@pytest.mark.parametrize("which", ["in", "out"])
@pytest.mark.parametrize("name", ["../other", "/etc/passwd", "x/../../other", "..", ["data1.in"], 1, "a\0b"])
def test_a_case_lies_in_the_problems_folder(tmp_path: Path, which: str, name: Any) -> None:
    place = folder(tmp_path, test_cases=[LISTED[0] | {which: name}])
    (place.parent / "other").write_text("1")
    with pytest.raises(RecordError, match=f"loj-7: {which}.* (lies outside the folder|not the name of a file)"):
        list(DmojProblem(place).cases())


@pytest.mark.parametrize("name", ["data1.in/below", "n" * 5000])
def test_a_name_that_cannot_be_a_file_is_named(tmp_path: Path, name: str) -> None:
    place = folder(tmp_path, archive=None, test_cases=[LISTED[0] | {"in": name}])
    with pytest.raises(RecordError, match=f"loj-7: .*{name}"):
        list(DmojProblem(place).cases())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_cases": ["1.in", "2.in"]}, "test_cases, case 1 is '1.in', not a mapping"),
        ({"test_cases": [*LISTED, None]}, "test_cases, case 2 is None"),
        ({"test_cases": "all"}, "test_cases is 'all', not a list"),
        ({"pretest_test_cases": "all"}, "pretest_test_cases is 'all', not a list"),
        ({"pretest_test_cases": ["1.in"]}, "pretest_test_cases, case 1 is '1.in'"),
        ({"checker": {"name": "floats", "args": ["precision"]}}, "args are ['precision'], not a mapping"),
    ],
)
def test_settings_of_another_form_are_errors(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=f"loj-7/init.yml: .*{re.escape(message)}"):
        DmojProblem(folder(tmp_path, **settings))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"pretest_test_cases": {"input_format": ".*in"}}, "found by their names (pretest_test_cases"),
        ({"test_cases": [{"points": 1}]}, "case 1 has neither in nor out"),
        ({"checker": {"name": "floats", "args": {"error_mode": ["absolute"]}}}, "not supported: floats with"),
        *(
            ({"checker": {"name": "floats", "args": {"precision": precision}}}, "precision")
            for precision in (float("inf"), float("nan"), 400, -400, 10**30, -(10**9), "x", [6])
        ),
    ],
)
def test_what_cannot_be_judged_is_said(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotGraded, match=re.escape(reason)):
        list(DmojProblem(folder(tmp_path, **settings)).cases())


@pytest.mark.parametrize("content", ["day: 2020-13-45", "[" * 5000, "a: b: c", "\xff"])
def test_settings_that_are_no_yaml_are_named(tmp_path: Path, content: str) -> None:
    place = folder(tmp_path)
    (place / "init.yml").write_text(content, encoding="latin-1")
    with pytest.raises(RecordError, match=r"loj-7/init.yml: no YAML"):
        DmojProblem(place)
    (place / "init.yml").unlink()
    (place / "init.yml").mkdir()
    with pytest.raises(RecordError, match=r"loj-7/init.yml cannot be read"):
        DmojProblem(place)


def test_a_damaged_member_of_an_archive_is_named(tmp_path: Path) -> None:
    place = folder(tmp_path, cases=[("1 2\n" * 1000, "3")])
    file = place / "tests.zip"
    data = bytearray(file.read_bytes())
    start = data.index(b"data1.in") + len(b"data1.in")
    data[start : start + 4] = b"\xff\xff\xff\xff"
    file.write_bytes(bytes(data))
    with pytest.raises(RecordError, match=r"loj-7: data1.in cannot be read from the archive"):
        list(DmojProblem(place).cases())


@pytest.mark.parametrize("archive", [None, "tests.zip"])
def test_what_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: str | None) -> None:
    place = folder(tmp_path, archive=archive, cases=[("1" * 100, "3")])
    monkeypatch.setattr(dmoj_problem, "LONGEST_CASE", 99)
    read: list[object] = []
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name: read.append(name))
    with pytest.raises(NotGraded, match=r"case 1 is too long: 100 bytes \(data1.in\)"):
        list(DmojProblem(place).cases())
    assert not read


@pytest.mark.parametrize("changed", [{"dataset": ".."}, {"dataset": "."}, {"id": ".."}, {"id": "."}, {"id": "a/b"}])
def test_a_row_that_leads_out_of_the_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str]
) -> None:
    monkeypatch.setattr(ojbench, "SIZE", 1)
    add_problem(tmp_path / "ojbench", "nwerc2023_A")
    file = tmp_path / "ojbench/prompts/full.jsonl"
    row = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
    write_jsonl(file, [row | changed])
    with pytest.raises(RecordError, match=r"row 1: .* is no name of a folder"):
        load(ojbench.CPP, "test", tmp_path)
