"""Scores that move: against the anchor and the nights before, under the same protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.config.gate import GateSettings
from pipeline.core.errors import ConfigError
from pipeline.run.documents import RunRecordDocument
from pipeline.run.gates.assess import assess
from pipeline.run.gates.baseline import baselines, bless
from pipeline.run.gates.moved import alert_text
from pipeline.run.gc import collect, remove
from pipeline.run.record import load_run
from pipeline.store.store import Store
from tests.pipeline.history.nights import Night, make_nights, right

OTHER = {"sampling": {"temperature": 0.6}}


def sft(count: int, n: int = 200, **night: Any) -> Night:
    return Night({"sft": right(count, n)}, **night)


def assessed(home: Path, settings: GateSettings | None = None) -> list[RunRecordDocument]:
    """Every run's record, as it would have been written when the run ended."""
    records = []
    for file in sorted((home / "runs").glob("*/run.json")):
        record = load_run(file.parent)
        assess(Store(home), record, settings or GateSettings())
        record.write(file)
        records.append(record)
    return records


def test_a_slide_of_which_no_night_shows_anything_is_found_against_the_first_run(tmp_path: Path) -> None:
    """Three problems of 200 lost a night: 1.5 points, where the interval of one night is 6 points to either side."""
    make_nights(tmp_path, [sft(150 - 3 * lost) for lost in range(8)])
    records = assessed(tmp_path)
    assert [record.look for record in records] == [None, *range(1, 8)]
    against = [{m.against for m in record.moved or ()} for record in records]
    assert against[1] == set()
    assert "anchor" in against[7]
    first = next(night for night, found in enumerate(against) if found)
    assert 2 <= first <= 5
    (moved,) = [m for m in records[7].moved or () if m.against == "anchor"]
    assert [moved.before, moved.after] == pytest.approx([0.75, 0.645])
    assert moved.p_value <= moved.level == pytest.approx(0.05 / 56)


def test_what_stands_still_and_what_only_turns_a_little_has_not_moved(tmp_path: Path) -> None:
    make_nights(tmp_path, [sft(150), sft(149), sft(151), sft(148), sft(150)])
    assert [record.moved for record in assessed(tmp_path)] == [[]] * 5


def test_the_same_scores_again_are_the_same_look(tmp_path: Path) -> None:
    """A night that finds everything in the cache spends nothing."""
    make_nights(tmp_path, [sft(150), sft(149), sft(149), sft(149), sft(148)])
    assert [record.look for record in assessed(tmp_path)] == [None, 1, 1, 1, 2]


def test_a_sudden_jump_is_seen_against_the_nights_before_when_the_anchor_was_long_left(tmp_path: Path) -> None:
    """The anchor lies between the nights before and the jump: it alone sees nothing."""
    nights = [sft(150), *(sft(160 + turn) for turn in range(7)), sft(146)]
    make_nights(tmp_path, nights)
    last = assessed(tmp_path)[-1]
    assert [m.against for m in last.moved or ()] == ["window"]
    assert "below the mean of the last 7 runs" in alert_text("nightly", last)


def test_other_protocols_are_said_and_not_compared(tmp_path: Path) -> None:
    make_nights(tmp_path, [sft(150), sft(20, protocol=OTHER)])
    bless(tmp_path, "20260101", "ada")
    last = assessed(tmp_path)[-1]
    assert last.moved is not None
    (moved,) = last.moved
    assert moved.reason == "the protocols differ: sampling.temperature: 0.0 / 0.6"
    assert "nightly: scores moved" in alert_text("nightly", last)
    assert "not compared, the protocols differ" in alert_text("nightly", last)


def test_without_a_blessing_a_new_protocol_begins_anew(tmp_path: Path) -> None:
    make_nights(tmp_path, [sft(150), sft(20, protocol=OTHER), sft(21, protocol=OTHER)])
    records = assessed(tmp_path)
    assert [record.anchor for record in records] == [None, None, "20260102-020000-nightly"]
    assert [record.moved for record in records] == [[], [], []]


def test_another_seed_is_another_draw_and_has_its_own_anchor(tmp_path: Path) -> None:
    make_nights(tmp_path, [sft(150), sft(60, seed=1), sft(61, seed=1)])
    assert [record.anchor for record in assessed(tmp_path)] == [None, None, "20260102-020000-nightly"]


def test_a_blessed_run_is_the_anchor_and_says_who_chose_it(tmp_path: Path) -> None:
    make_nights(tmp_path, [sft(150), sft(100), sft(101)])
    blessing = bless(tmp_path, "20260102", "ada")
    assert (blessing.run, blessing.seed, blessing.by) == ("20260102-020000-nightly", 0, "ada")
    assert baselines(tmp_path, "nightly").blessed == [blessing]
    last = assessed(tmp_path)[-1]
    assert (last.anchor, last.anchor_blessed, last.moved) == (blessing.run, True, [])


def test_gc_keeps_a_blessed_run_and_what_stood_before_it_goes(tmp_path: Path) -> None:
    runs = make_nights(tmp_path, [sft(150), sft(120), sft(90), sft(60)])
    bless(tmp_path, runs[1])
    store = Store(tmp_path)
    remove(store, collect(store, keep_last=0, keep_named=(), max_bytes=None))
    kept = load_run(tmp_path / "runs" / runs[1])
    assert [key for _, key, _ in store.artifacts()] == [stage.key for stage in kept.stages]


def test_gc_stops_where_what_a_blessed_run_made_is_not_known(tmp_path: Path) -> None:
    runs = make_nights(tmp_path, [sft(150), sft(120), sft(90)])
    bless(tmp_path, runs[0])
    gc = ["store", "gc", "--yes", "--home", str(tmp_path)]
    store, file = Store(tmp_path), tmp_path / "runs" / runs[0] / "run.json"
    before, record = list(store.artifacts()), file.read_text()
    for damage in (lambda: file.write_text(record[:60]), file.unlink):
        damage()
        refused = CliRunner().invoke(app, gc).exception
        assert isinstance(refused, ConfigError)
        assert str(refused).startswith(f"{file}: run {runs[0]} was blessed and its record cannot be read\n")
        assert list(store.artifacts()) == before
    file.write_text(record)
    blessings = tmp_path / "baselines" / "nightly.json"
    whole = blessings.read_text()
    blessings.write_text("{}")
    refused = CliRunner().invoke(app, gc).exception
    assert str(refused).startswith(f"{blessings}: what was blessed cannot be read")
    blessings.write_text(whole)
    file.parent.rename(tmp_path / "elsewhere")
    done = CliRunner().invoke(app, gc)
    assert f"run {runs[0]} was blessed and is gone; what it made is not kept" in done.output
    assert done.exit_code == 0
    kept = {load_run(tmp_path / "runs" / run).stages[0].key for run in runs[1:]}
    assert {key for _, key, _ in store.artifacts()} == kept


def test_gc_refuses_a_pattern_that_matches_no_pipeline(tmp_path: Path) -> None:
    make_nights(tmp_path, [sft(150), sft(120, name="paper-1")])
    for pattern in ("[", "papr-*", ""):
        refused = CliRunner().invoke(app, ["store", "gc", "--keep-named", pattern, "--home", str(tmp_path)]).exception
        assert isinstance(refused, ConfigError)
        said = f"--keep-named: {pattern!r} matches no pipeline that has run\nThere are runs of nightly, paper-1."
        assert str(refused) == said
    store = Store(tmp_path)
    assert len(collect(store, keep_last=0, keep_named=("paper-*",), max_bytes=None)) == 1


def test_a_run_that_is_not_done_is_blessed_only_where_one_insists(tmp_path: Path) -> None:
    runs = make_nights(tmp_path, [sft(150), sft(120, status="failed"), sft(110, status="interrupted")])
    file = tmp_path / "runs" / runs[1] / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"error": "gate before grpo: FAIL"}))
    with pytest.raises(ConfigError, match=f"run {runs[1]} failed: gate before grpo: FAIL"):
        bless(tmp_path, runs[1])
    with pytest.raises(ConfigError, match=f"run {runs[2]} was interrupted"):
        bless(tmp_path, runs[2])
    for name in ("", " "):
        with pytest.raises(ConfigError, match="a blessing has a name"):
            bless(tmp_path, runs[0], name)
    assert not (tmp_path / "baselines").exists()
    result = CliRunner().invoke(app, ["bless", runs[1], "--even-failed", "--home", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert baselines(tmp_path, "nightly").blessed[-1].run == runs[1]


def test_where_the_scores_of_a_blessed_run_were_removed_the_first_run_stands_in(tmp_path: Path) -> None:
    runs = make_nights(tmp_path, [sft(150), sft(151), sft(120)])
    bless(tmp_path, runs[1])
    key = load_run(tmp_path / "runs" / runs[1]).stages[0].key
    (tmp_path / "store" / "score" / key).rename(tmp_path / "elsewhere")
    record = load_run(tmp_path / "runs" / runs[2])
    lost = assess(Store(tmp_path), record, GateSettings()).lost
    assert str(lost).startswith(
        f"{tmp_path / 'runs' / runs[1]}: run {runs[1]} cannot be compared with: its scores of sft are gone"
    )
    assert (record.anchor, record.anchor_blessed) == (runs[0], False)
    assert [(one.against, one.reference) for one in record.moved or ()] == [("anchor", runs[0])]
    assert "the first run of its kind; no blessed run is there" in alert_text("nightly", record)
    with pytest.raises(ConfigError, match="cannot be a baseline"):
        bless(tmp_path, runs[1])


def test_a_run_whose_id_only_begins_as_that_of_a_blessed_one_that_is_gone_is_not_taken_for_it(tmp_path: Path) -> None:
    runs = make_nights(tmp_path, [sft(150), sft(149), sft(148)])
    bless(tmp_path, runs[0])
    (tmp_path / "runs" / runs[0]).rename(tmp_path / "runs" / f"{runs[0]}-2")
    lost = assess(Store(tmp_path), load_run(tmp_path / "runs" / runs[2]), GateSettings()).lost
    assert str(lost).startswith(f"{tmp_path / 'runs' / runs[0]}: run {runs[0]} was blessed and is gone")


def test_a_scores_file_as_the_baseline_stands_for_the_last_checkpoint_alone(tmp_path: Path) -> None:
    make_nights(tmp_path, [Night({"base": right(20, 200), "sft": right(150, 200)})])
    file = next((tmp_path / "store" / "score").glob("*/scores.jsonl"))
    for scores in (tmp_path / "store" / "score").glob("*/scores.jsonl"):
        if scores.read_text().count('"correct"') == 150:
            file = scores
    make_nights(tmp_path / "other", [Night({"base": right(20, 200), "sft": right(120, 200)})])
    (record,) = assessed(tmp_path / "other", GateSettings(baseline=str(file)))
    assert (record.anchor, record.look) == (str(file), 1)
    assert [(m.checkpoint, m.against) for m in record.moved or ()] == [("sft", "anchor")]


def test_benchmarks_of_nine_problems_never_alarm(tmp_path: Path) -> None:
    make_nights(tmp_path, [sft(9, 9), sft(0, 9)])
    assert assessed(tmp_path)[-1].moved == []


def test_records_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    runs = make_nights(tmp_path, [sft(150), sft(149), sft(20)])
    (tmp_path / "runs" / runs[0] / "run.json").write_text("[")
    record = load_run(tmp_path / "runs" / runs[2])
    assess(Store(tmp_path), record, GateSettings())
    assert record.anchor == runs[1]


def test_a_baseline_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    runs = make_nights(tmp_path, [sft(150), sft(149)])
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "nightly.json").write_text(json.dumps({"blessed": 1}))
    with pytest.raises(ConfigError, match=r"nightly\.json: what was blessed cannot be read"):
        raise_whole(tmp_path, runs[1])


def raise_whole(home: Path, run: str) -> None:
    """Assess; an error has its place in front, as it is shown."""
    try:
        assess(Store(home), load_run(home / "runs" / run), GateSettings())
    except ConfigError as error:
        raise ConfigError(str(error)) from error
