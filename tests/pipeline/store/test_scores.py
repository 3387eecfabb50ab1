"""What became of each sample: the summary beside the scores says the same as they do, and is believed only then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.records import RecordError, Score, write_jsonl
from pipeline.core.errors import StoreError
from pipeline.store.documents import ManifestDraft, Preimage
from pipeline.store.scores import SUMMARY, load_outcomes, read_outcomes
from pipeline.store.store import Artifact, Store

ROWS = [
    Score("aime24", "a", 0, "correct", "1", "1"),
    Score("aime24", "a", 1, "wrong", "2", "1"),
    Score("aime24", "b", 0, "no_answer", None, "3"),
    Score("aime24", "b", 1, "correct", "3", "3"),
    Score("mbpp", "a", 0, "timeout", "while 1: pass", "", "it ran for 10 s"),
    Score("mbpp", "c", 0, "grader_error", "x", "", '"verdict": "correct"'),
]


def published(home: Path, rows: list[Score]) -> Artifact:
    store = Store(home)
    out = store.work("score", "k") / "out"
    out.mkdir(parents=True)
    write_jsonl(out / "scores.jsonl", rows)
    return store.publish("score", "k", ManifestDraft(stage="score", key="k", preimage=Preimage(), seconds=0.0))


def test_a_published_score_has_a_summary_that_says_what_its_scores_say(tmp_path: Path) -> None:
    artifact = published(tmp_path, ROWS)
    outcomes = load_outcomes(artifact)
    assert outcomes == read_outcomes(artifact.folder / "scores.jsonl")
    assert (outcomes["aime24"].problems, outcomes["aime24"].verdicts) == (("a", "b"), ("cw", "nc"))
    assert (outcomes["mbpp"].verdicts, outcomes["aime24"].shares()) == (("t", "e"), [0.5, 0.5])
    assert SUMMARY in {entry.path for entry in artifact.manifest.files}


def test_the_summary_is_what_is_read_where_it_is_of_these_scores(tmp_path: Path) -> None:
    artifact = published(tmp_path, ROWS)
    (artifact.folder / "scores.jsonl").write_text("")  # the store, asked again, would call it damaged
    assert load_outcomes(artifact)["aime24"].verdicts == ("cw", "nc")
    assert Store(tmp_path).find("score", "k").damage == "file scores.jsonl damaged"


def test_a_summary_of_other_scores_is_not_believed(tmp_path: Path) -> None:
    artifact = published(tmp_path, ROWS)
    file = artifact.folder / SUMMARY
    stale = json.loads(file.read_text())
    stale["scores"] = "0" * 64
    stale["benchmarks"]["aime24"]["verdicts"] = "cc cc"
    file.write_text(json.dumps(stale))
    assert load_outcomes(artifact)["aime24"].verdicts == ("cw", "nc")


@pytest.mark.parametrize("name", ['quoted "name"', "back\\slash", "Zürich", "half \ud83d"])
def test_names_that_json_escapes_are_read_too(tmp_path: Path, name: str) -> None:
    artifact = published(tmp_path, [*ROWS, Score("odd", name, 0, "correct", None, "")])
    assert load_outcomes(artifact)["odd"].problems == (name,)


def test_samples_in_another_order_are_put_in_theirs(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "scores.jsonl", [ROWS[1], ROWS[0]])
    assert read_outcomes(tmp_path / "scores.jsonl")["aime24"].verdicts == ("cw",)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('"sample": 0}', "missing"),
        ('"sample": 0, "verdict": "maybe", "extracted": null, "gold": ""}', "verdict"),
    ],
)
def test_a_row_that_is_no_score_is_refused(tmp_path: Path, line: str, said: str) -> None:
    write_jsonl(tmp_path / "scores.jsonl", ROWS[:1])
    with open(tmp_path / "scores.jsonl", "a", encoding="utf-8") as file:
        file.write('{"benchmark": "aime24", "problem_id": "z", ' + line + "\n")
    with pytest.raises(RecordError, match=said):
        read_outcomes(tmp_path / "scores.jsonl")


def test_a_sample_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "scores.jsonl", [ROWS[0], ROWS[0]])
    with pytest.raises(RecordError, match="occurs twice"):
        read_outcomes(tmp_path / "scores.jsonl")


def test_an_artifact_without_scores_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    out = store.work("score", "k") / "out"
    out.mkdir(parents=True)
    (out / "metrics.json").write_text("{}")
    draft = ManifestDraft(stage="score", key="k", preimage=Preimage(), seconds=0.0)
    with pytest.raises(StoreError, match=r"no scores\.jsonl"):
        load_outcomes(store.publish("score", "k", draft))
