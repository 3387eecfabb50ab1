"""Records are read strictly, and what is computed can always be written."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation import records
from evaluation.records import Generation, Problem, RecordError, Score, read_records, write_jsonl

GENERATION = Generation("aime24", "a", 0, "?", "\\boxed{1}", "stop", 3, 4, None)
SCORE = Score("aime24", "a", 0, "correct", None, "1")
PROBLEM = Problem("a", "aime24", "maths", "?", "1")


@pytest.mark.parametrize("record", [GENERATION, SCORE, PROBLEM])
def test_what_is_written_is_read(tmp_path: Path, record: Any) -> None:
    path = tmp_path / "rows.jsonl"
    assert write_jsonl(path, [record, record]) == 2
    assert read_records(path, type(record)) == [record, record]


@pytest.mark.parametrize(
    ("record", "change", "message"),
    [
        (GENERATION, {"completion": None}, "completion is None, not text"),
        (GENERATION, {"problem_id": ["a"]}, r"problem_id is \['a'\], not text"),
        (GENERATION, {"sample": "0"}, "sample is '0', not a whole number from 0 up"),
        (GENERATION, {"sample": True}, "sample is True, not a whole number"),
        (GENERATION, {"completion_tokens": -1}, "completion_tokens is -1, not a whole number from 0 up"),
        (GENERATION, {"seed": "1"}, "seed is '1', not a whole number or null"),
        (GENERATION, {"finish_reason": None}, "finish_reason is None, not text"),
        (SCORE, {"verdict": "right"}, "verdict is 'right', not one of correct, wrong"),
        (SCORE, {"extracted": 1}, "extracted is 1, not text or null"),
        (PROBLEM, {"kind": []}, r"kind is \[\], not one of maths, code, choice"),
        (PROBLEM, {"tests": []}, r"tests is \[\], not an object"),
        (PROBLEM, {"color": 1}, r"not a Problem: unknown \['color'\]"),
    ],
)
def test_a_field_of_another_type_is_named_with_its_line(
    tmp_path: Path, record: Any, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [record, dataclasses.asdict(record) | change])
    with pytest.raises(RecordError, match=f"rows.jsonl:2: {message}"):
        read_records(path, type(record))


def test_missing_and_unknown_fields_are_named_together(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = dataclasses.asdict(SCORE) | {"color": 1, "verdict": "right"}
    del row["gold"], row["sample"]
    write_jsonl(path, [row])
    with pytest.raises(
        RecordError, match=r"rows.jsonl:1: not a Score: missing \['gold', 'sample'\], unknown \['color'\]"
    ):
        read_records(path, Score)


def test_every_type_of_a_field_has_words_for_a_message() -> None:
    types = {str(field.type) for record in (Problem, Generation, Score) for field in dataclasses.fields(record)}
    assert types == records._EXPECTED.keys()


def test_a_number_of_thousands_of_digits_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": ' + "9" * 5000 + "}\n")
    with pytest.raises(RecordError, match=r"rows.jsonl:1: not a JSON object"):
        read_records(path, Score)


def test_half_a_surrogate_pair_is_written_as_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    record = dataclasses.replace(GENERATION, completion=json.loads('"\\ud83d \u00fc"'))
    write_jsonl(path, [record, GENERATION])
    assert read_records(path, Generation) == [record, GENERATION]
    write_jsonl(path, [dataclasses.replace(GENERATION, completion="\u00fc")])
    assert "\u00fc" in path.read_text(encoding="utf-8")  # anything else stays readable
