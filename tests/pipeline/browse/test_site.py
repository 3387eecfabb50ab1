"""The site of a store: runs, scores, samples and artifacts are in its data, and what a model wrote is text alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.browse.samples import CHUNK_ROWS
from pipeline.browse.site import PAGE, SCRIPTS, build_site
from pipeline.cli.app import app
from pipeline.core.errors import ConfigError, StoreError
from tests.pipeline.history.nights import GSM, Night, make_nights, right

HOSTILE = "<script>alert('x')</script></script><img src=x onerror=alert(1)>\u2028& \\boxed{3}"


def value(site: Path, name: str) -> Any:
    """What a data file hands over."""
    text = (site / "data" / f"{name}.js").read_text(encoding="ascii")
    match = re.fullmatch(rf'vcore\.take\("{name}",(.*)\);\n', text)
    assert match is not None
    return json.loads(match[1])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs; the older has a hostile answer."""
    home = tmp_path_factory.mktemp("home")
    older = Night({"base": right(10), "sft": right(50)}, answers={("sft", 3, 0): HOSTILE})
    make_nights(home, [older, Night({"base": right(10), "sft": right(40)}, seed=1)], samples=True)
    (home / "runs/20260101-020000-nightly/report.html").write_text("the report")
    built = build_site(home, home / "site")
    assert (built.runs, built.artifacts, built.samples, built.left_out, built.trouble) == (2, 13, 400, 0, [])
    return home / "site"


def score_of(site: Path, run: str, checkpoint: str) -> int:
    """The number of a run's score in the site."""
    overview = value(site, "site")
    (shown,) = (one for one in overview["runs"] if one["id"].startswith(run))
    artifacts = [stage[1] for stage in shown["stages"]]
    scores = enumerate(overview["scores"])
    return next(n for n, s in scores if s["artifact"] in artifacts and s["checkpoint"] == checkpoint)


def test_runs_are_listed_newest_first_with_their_artifacts_and_report(site: Path) -> None:
    newer, older = value(site, "site")["runs"]
    assert (newer["id"], newer["seed"], newer["report"]) == ("20260102-020000-nightly", 1, None)
    assert older["report"] == "../runs/20260101-020000-nightly/report.html"
    names = [value(site, "site")["artifacts"][stage[1]][0] for stage in older["stages"]]
    assert names == ["data", "base", "generate.base", "score.base", "sft", "generate.sft", "score.sft"]


def test_a_run_shows_what_its_gate_said(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_nights(home, [Night({"base": right(10)}), Night({"base": right(40)}, seed=1)], samples=True)
    file = home / "runs/20260101-020000-nightly/run.json"
    check = {
        "benchmark": GSM,
        "checkpoint": "base",
        "tier": "critical",
        "asked": "may drop by 1 points",
        "against": "x",
    }
    seen = {"difference": -0.2, "low": -0.3, "high": -0.1, "n": 100, "p_pass": 1.0, "p_fail": 0.001, "detectable": 0.05}
    record = json.loads(file.read_text()) | {"gate": [{**check, **seen, "verdict": "FAIL"}]}
    file.write_text(json.dumps(record))
    build_site(home, home / "site")
    newer, older = value(home / "site", "site")["runs"]
    assert (newer["gate"], newer["overall"]) == ([], None)
    said = "may drop by 1 points against x; -20.0 points [-30.0, -10.0] of 100; p(pass) = 1, p(fail) = 0.001, "
    assert older["gate"] == [["FAIL", "critical", GSM, "base", f"{said}detectable 5.0 points"]]
    assert older["overall"] == "FAIL"


def test_an_artifact_names_what_it_was_made_from(site: Path) -> None:
    artifacts = value(site, "site")["artifacts"]
    score = next(artifact for artifact in artifacts if artifact[0] == "score.sft")
    assert {name: artifacts[number][0] for name, number, *_ in score[6]} == {
        "generations": "generate.sft",
        "data": "data",
    }


def test_a_score_leads_to_its_samples_and_their_texts(site: Path) -> None:
    number = score_of(site, "20260101", "sft")
    assert value(site, "site")["scores"][number] | {"low": 0, "high": 0, "artifact": 0, "protocol": ""} == {
        **{"metric": "accuracy", "value": 0.5, "low": 0, "high": 0, "n": 100, "k": 1, "protocol": "", "artifact": 0},
        **{"benchmark": GSM, "checkpoint": "sft", "samples": 100},
    }
    columns = value(site, f"c{number}")
    assert columns["verdict"] == "c" * 50 + "w" * 50
    assert columns["problems"][3] == ["gsm8k/3", "question 3?", "3"]
    assert (columns["ending"][0], columns["tokens"][0], columns["starts"]) == ("s", 9, [0])
    texts = value(site, f"t{number}-0")
    question, prompt, completion, extracted, gold, detail = texts["rows"][3]
    shared = [texts["texts"][place] for place in (question, prompt, gold)]
    assert (shared, completion, extracted, detail) == (["question 3?", "<|user|>question 3?", "3"], HOSTILE, "3", "")


def test_no_text_can_end_a_script_or_begin_markup(site: Path) -> None:
    for file in (site / "data").glob("*.js"):
        text = file.read_bytes()
        assert b"<" not in text
        assert text.isascii()
        assert text.count(b"\n") == 1
    for name in SCRIPTS:
        script = (PAGE / name).read_text()
        assert (
            re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|Function\(|srcdoc", script) == []
        )
    page = (site / "index.html").read_text()
    assert "default-src 'none'" in page
    assert re.findall(r"<script(?! src=\"[a-z_]+\.js\">)", page) == []


def test_samples_are_cut_into_chunks_of_which_one_is_loaded(tmp_path: Path) -> None:
    verdicts = [["correct", "wrong"]] * CHUNK_ROWS
    answers = {("base", i, j): "x" * 100_000 for i in range(3) for j in range(2)}
    make_nights(tmp_path, [Night({"base": verdicts}, answers=answers)], samples=True)
    build_site(tmp_path, tmp_path / "site")
    starts = value(tmp_path / "site", "c0")["starts"]
    assert starts == [0, 3, 6, 206]
    rows = [value(tmp_path / "site", f"t0-{chunk}")["rows"] for chunk in range(4)]
    assert [len(chunk) for chunk in rows] == [3, 3, 200, 194]
    assert "[... 60,000 characters left out ...]" in rows[0][0][2]


def test_the_samples_of_newer_runs_come_first_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    make_nights(tmp_path, [Night({"sft": right(50 + i)}) for i in range(3)], samples=True)
    built = build_site(tmp_path, tmp_path / "site", most_samples=250)
    assert (built.samples, built.left_out) == (200, 1)
    assert [s["samples"] for s in value(tmp_path / "site", "site")["scores"]] == [100, 100, 0]
    said = CliRunner().invoke(app, ["browse", "--home", str(tmp_path), "--samples", "99"]).output
    assert "0 samples; 3 scores without samples, which do not fit into --samples 99" in said
    assert score_of(tmp_path / "site", "20260101", "sft") == 2


def test_a_score_whose_generations_are_gone_keeps_its_verdicts(tmp_path: Path) -> None:
    make_nights(tmp_path, [Night({"sft": right(50)})], samples=True)
    shutil.rmtree(tmp_path / "store" / "generate")
    assert build_site(tmp_path, tmp_path / "site").samples == 100
    assert value(tmp_path / "site", "c0")["verdict"].count("c") == 50
    assert value(tmp_path / "site", "t0-0")["rows"][0][1:3] == [None, None]


def test_what_is_damaged_is_said_and_not_shown(tmp_path: Path) -> None:
    make_nights(tmp_path, [Night({"base": right(3), "sft": right(50)})], samples=True)
    file = next(
        f
        for f in tmp_path.glob("store/score/*/scores.jsonl")
        if '"score.sft"' in (f.parent / "manifest.json").read_text()
    )
    file.write_text(file.read_text().replace("wrong", "correct"))
    built = build_site(tmp_path, tmp_path / "site")
    assert built.trouble == [f"score.sft {file.parent.name[:12]}: file scores.jsonl damaged"]
    assert [s["checkpoint"] for s in value(tmp_path / "site", "site")["scores"]] == ["base"]


def test_scores_over_time_are_the_pages_of_the_history(site: Path) -> None:
    assert value(site, "site")["histories"] == [["nightly", 2, "history/0.html"]]
    text = (site / "history/0.html").read_text()
    assert text.count("<svg") == 2
    assert 'href="../index.html"' in text
    assert 'href="../../runs/20260101-020000-nightly/report.html"' in text


def test_a_site_is_written_anew_and_nothing_else_is_overwritten(tmp_path: Path) -> None:
    make_nights(tmp_path / "home", [Night({"sft": right(50)})], samples=True)
    build_site(tmp_path / "home", tmp_path / "site")
    stale = tmp_path / "site/data/c99.js"
    stale.write_text("old")
    build_site(tmp_path / "home", tmp_path / "site")
    assert not stale.exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/index.html").write_text("my page")
    with pytest.raises(ConfigError, match="something else than a site"):
        build_site(tmp_path / "home", tmp_path / "mine")
    assert (tmp_path / "mine/index.html").read_text() == "my page"


def test_without_a_store_there_is_no_site(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        build_site(tmp_path / "none", tmp_path / "site")
    assert not (tmp_path / "site").exists()
