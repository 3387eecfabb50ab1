"""Weights of rows: read from a column, kept in sft.jsonl, and refused by the row's number where they are none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stages.data.settings import Columns, DataSettings, SourceSettings
from tests.stages.data.test_data import COLUMNS, ROWS, jsonl, made, refused

WEIGHTED = {**COLUMNS, "weight": "trust"}


def demonstrations(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "sft.jsonl").read_text().splitlines()]


def test_weights_stand_beside_their_rows_and_other_sources_have_none(tmp_path: Path) -> None:
    rows = [{**row, "trust": weight} for row, weight in zip(ROWS, (0, 1, 0.25, 2.5, 3), strict=True)]
    weighted = {"file": jsonl(tmp_path / "weighted.jsonl", rows), "columns": WEIGHTED}
    plain = {"file": jsonl(tmp_path / "plain.jsonl", rows), "columns": COLUMNS}
    found = demonstrations(made(tmp_path, sft=[weighted, plain]))
    assert [row.get("weight") for row in found] == [0.0, 1.0, 0.25, 2.5, 3.0, *5 * [None]]
    assert found[0]["id"] == "weighted.jsonl:1"


def test_each_answer_of_a_conversation_has_the_weight_of_its_row(tmp_path: Path) -> None:
    turns = [{"role": role, "content": role} for role in 2 * ("user", "assistant")]
    source = {"file": jsonl(tmp_path / "talks.jsonl", [{"messages": turns, "meta": {"score": 0.5}}])}
    found = demonstrations(made(tmp_path, sft=[{**source, "columns": {"weight": "meta.score"}}]))
    assert [(row["id"], row["weight"]) for row in found] == [("talks.jsonl:1.1", 0.5), ("talks.jsonl:1.2", 0.5)]


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "0.5", None, True, [1], 1e7])
def test_what_is_no_weight_is_refused_with_the_number_of_its_row(tmp_path: Path, bad: Any) -> None:
    rows = [{**row, "trust": 1} for row in ROWS[:2]] + [{**ROWS[2], "trust": bad}]
    error = refused(tmp_path, sft=[{"file": jsonl(tmp_path / "rows.jsonl", rows), "columns": WEIGHTED}])
    assert f"data.sft.0: row 3: column 'trust' is {bad!r}, expected a weight" in error.message


def test_a_row_without_the_column_and_weights_that_are_all_zero_are_refused(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "trust": 1}, ROWS[1]]
    error = refused(tmp_path, sft=[{"file": jsonl(tmp_path / "rows.jsonl", rows), "columns": WEIGHTED}])
    assert "data.sft.0: row 2 has no column 'trust'" in error.message
    rows = [{**row, "trust": 0} for row in ROWS]
    error = refused(tmp_path / "zero", sft=[{"file": jsonl(tmp_path / "zero.jsonl", rows), "columns": WEIGHTED}])
    assert "data.sft.0: all 5 weights in the column 'trust' are 0" in error.message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sft": [{"task": "word_problems", "columns": {"weight": "w"}}]}, "columns.weight: is of a file"),
        ({"rl": [{"file": "a.jsonl", "columns": WEIGHTED}]}, "rl.0.columns.weight: is for demonstrations"),
    ],
)
def test_weights_are_of_demonstrations_in_files(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSettings.model_validate(settings)


def test_the_column_enters_the_key_only_where_it_is_set() -> None:
    plain, weighted = (SourceSettings(file="a.jsonl", columns=Columns(weight=weight)) for weight in (None, "trust"))
    assert "weight" not in plain.identity_settings()["columns"]
    assert weighted.identity_settings()["columns"] == {**plain.identity_settings()["columns"], "weight": "trust"}
