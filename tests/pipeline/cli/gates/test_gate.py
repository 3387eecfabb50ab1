"""`vcore gate` and `vcore bless`: verdicts and exit codes for CI, and what cannot be judged in one clear line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from evaluation.records import write_jsonl
from pipeline.cli.app import app
from pipeline.core.errors import ConfigError
from tests.pipeline.cli.test_compare import artifact, scores
from tests.pipeline.history.nights import Night, make_nights, right


def run(*arguments: object, command: str = "gate") -> tuple[int, str]:
    result = CliRunner().invoke(app, [command, *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Scores of 400 problems: some, as good ones with others right, and far worse ones."""
    wrong = [False] * 40
    made = {
        "same.jsonl": wrong + [True] * 360,
        "other.jsonl": [True] * 4 + wrong[:36] + [False] * 4 + [True] * 356,
        "worse.jsonl": [False] * 90 + [True] * 310,
    }
    for name, right_ones in made.items():
        write_jsonl(tmp_path / name, scores(right_ones))
    a, b, c = (tmp_path / name for name in made)
    return a, b, c


def test_exit_codes_are_0_for_pass_3_for_fail_4_for_undecided(files: tuple[Path, Path, Path]) -> None:
    same, other, worse = files
    code, said = run(same, other, "--max-drop", 3)
    assert (code, said.split()[0]) == (0, "PASS")
    assert "may drop by 3 points" in said
    code, said = run(same, worse, "--max-drop", 3)
    assert (code, said.split()[0]) == (3, "FAIL")
    code, said = run(same, other, "--max-drop", 0.5)
    assert (code, said.split()[0]) == (4, "UNDECIDED")
    assert "problems would decide" in said
    code, said = run(same, other, "--must-exceed", 2)
    assert (code, said.split()[0]) == (3, "FAIL")
    assert "must gain more than 2 points" in said
    assert run(worse, same, "--must-exceed", 2)[0] == 0
    assert run(same, worse, "--max-change", 3)[0] == 3


def test_json_has_what_one_needs_to_judge_the_verdict(files: tuple[Path, Path, Path]) -> None:
    code, said = run(files[0], files[2], "--max-drop", 3, "--json")
    found = json.loads(said)
    (check,) = found["checks"]
    assert (code, found["verdict"], check["verdict"], check["benchmark"], check["n"]) == (
        3,
        "FAIL",
        "FAIL",
        "aime24",
        400,
    )
    assert check["difference"] == pytest.approx(-0.125)
    assert check["low"] < -0.125 < check["high"] < -0.03
    assert check["p_fail"] < 1e-5 < check["p_pass"]
    assert 0 < check["detectable"] < 0.1


def test_junit_counts_a_fail_as_a_failure_and_undecided_as_skipped(
    tmp_path: Path, files: tuple[Path, Path, Path]
) -> None:
    run(files[0], files[2], "--max-drop", 3, "--junit", tmp_path / "fail.xml")
    suite = ElementTree.parse(tmp_path / "fail.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("1", "1", "0")
    run(files[0], files[1], "--max-drop", 0.5, "--junit", tmp_path / "undecided.xml")
    suite = ElementTree.parse(tmp_path / "undecided.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")
    with pytest.raises(ConfigError, match="cannot be written"):
        run(files[0], files[2], "--max-drop", 3, "--junit", tmp_path / "no" / "folder.xml")


def test_what_cannot_be_compared_is_one_clear_line(tmp_path: Path) -> None:
    a = artifact(tmp_path / "a", scores([True] * 20), temperature=0)
    refused: dict[str, Any] = {
        "the protocols differ: sampling.temperature: 0 / 1": artifact(
            tmp_path / "b", scores([True] * 20), temperature=1
        ),
        "not of the same problems: 1 are in one only": artifact(tmp_path / "c", scores([True] * 21), temperature=0),
        "b9 has no aime24; it has mbpp": artifact(tmp_path / "b9", scores([True] * 20, benchmark="mbpp")),
    }
    for folder in (a, *refused.values()):
        metrics = json.loads((folder / "metrics.json").read_text())
        counts = {"n": 20, "k": 1, "truncated": 0, "no_answer": 0}
        (folder / "metrics.json").write_text(json.dumps({name: entry | counts for name, entry in metrics.items()}))
    for said, other in refused.items():
        with pytest.raises(ConfigError, match=said):
            run(a, other, "--max-drop", 1)
    write_jsonl(tmp_path / "few.jsonl", scores([True] * 9))
    with pytest.raises(ConfigError, match="9 common problems, and a gate needs 10"):
        run(tmp_path / "few.jsonl", tmp_path / "few.jsonl", "--max-drop", 1)
    with pytest.raises(ConfigError, match="what may pass"):
        run(a, a)
    with pytest.raises(ConfigError, match="give one margin"):
        run(a, a, "--max-drop", 1, "--must-exceed", 1)
    with pytest.raises(ConfigError, match="greater than or equal to 0"):
        run(a, a, "--max-drop", -1)


def gated(home: Path, nights: list[Night], *checks: dict[str, Any]) -> list[str]:
    runs = make_nights(home, nights)
    for name in runs:
        file = home / "runs" / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"gate": {"checks": list(checks)}}))
    return runs


def test_a_run_is_judged_by_its_config_against_the_blessed_run(tmp_path: Path) -> None:
    check = {"benchmark": "gsm8k", "max_drop": 3.0}
    nights = [Night({"sft": right(count, 400)}) for count in (200, 330, 329, 280)]
    runs = gated(tmp_path, nights, check)
    code, said = run(runs[1], "--home", tmp_path, command="bless")
    assert "is the baseline of its pipeline with seed 0" in said
    code, said = run("20260103", "--home", tmp_path)
    assert (code, said.split()[:2]) == (0, ["PASS", runs[2]])
    assert f"against {runs[1]}" in said
    assert run("latest", "--home", tmp_path)[0] == 3
    assert run("latest", "--home", tmp_path, "--max-drop", 20)[0] == 0
    code, said = run(runs[1], "--home", tmp_path)
    assert code == 4
    assert "this run is the baseline, or the first of its kind" in said


def test_a_lost_blessed_run_matters_to_checks_against_it_alone(tmp_path: Path) -> None:
    kept = {"benchmark": "gsm8k", "checkpoint": "sft", "against": "base", "max_drop": 3.0}
    night = Night({"base": right(300, 400), "sft": right(300, 400)})
    runs = gated(tmp_path, [night] * 3, kept)
    run(runs[1], "--home", tmp_path, command="bless")
    (tmp_path / "runs" / runs[1] / "run.json").write_text('{"id": ')
    assert run("latest", "--home", tmp_path)[0] == 0
    assert run(runs[0], "--home", tmp_path)[0] == 0
    with pytest.raises(ConfigError, match="its record cannot be read") as refused:
        run("latest", "--home", tmp_path, "--max-drop", 3)
    assert refused.value.where == str(tmp_path / "runs" / runs[1] / "run.json")
    assert "vcore bless RUN" in refused.value.fix


def test_rates_are_bounded_and_advisory_checks_count_for_nothing(tmp_path: Path) -> None:
    silent = [["correct"]] * 300 + [["no_answer"]] * 100
    bound = {"benchmark": "gsm8k", "checkpoint": "sft", "max_no_answer": 10.0}
    gated(tmp_path, [Night({"base": right(300, 400), "sft": silent})], bound)
    code, said = run("latest", "--home", tmp_path)
    assert code == 3
    assert "25.0 % of the samples have no answer, and 10 % may" in said
    file = tmp_path / "runs" / "20260101-020000-nightly" / "config.json"
    kept = {"benchmark": "gsm8k", "checkpoint": "sft", "against": "base", "max_drop": 5.0}
    checks = [bound | {"tier": "advisory"}, kept]
    file.write_text(json.dumps({"name": "nightly", "seed": 0, "gate": {"checks": checks}}))
    code, said = run("latest", "--home", tmp_path)
    assert code == 0
    assert "FAIL gsm8k, sft (advisory)" in said


def test_a_checkpoint_whose_scores_are_gone_cannot_pass_and_none_takes_its_place(tmp_path: Path) -> None:
    """Not even where every other check passes."""
    check = {"benchmark": "gsm8k", "checkpoint": "sft", "against": "base", "must_exceed": 1.0}
    (name,) = gated(tmp_path, [Night({"base": right(200, 400), "sft": right(350, 400), "grpo": right(40, 400)})], check)
    file = tmp_path / "runs" / name / "config.json"
    config = json.loads(file.read_text())
    config["gate"]["checks"].append(check | {"checkpoint": "grpo", "against": "sft", "must_exceed": 0.0})
    file.write_text(json.dumps(config))
    assert run("latest", "--home", tmp_path)[0] == 3, "grpo broke it"
    stages = json.loads((tmp_path / "runs" / name / "run.json").read_text())["stages"]
    (key,) = (stage["key"] for stage in stages if stage["name"] == "score.grpo")
    shutil.rmtree(tmp_path / "store" / "score" / key)
    for margin in ((), ("--max-drop", 1)):
        code, said = run("latest", "--home", tmp_path, *margin)
        assert code == 4, said
        assert "the run has no scores of grpo; its scores of grpo are gone from the store" in said


def test_a_run_without_checks_or_scores_says_so(tmp_path: Path) -> None:
    make_nights(tmp_path, [Night({"sft": right(20, 40)}), Night({})])
    with pytest.raises(ConfigError, match="the config of run 20260101-020000-nightly has no checks"):
        run("20260101", "--home", tmp_path)
    with pytest.raises(ConfigError, match="no checks"):
        run("latest", "--home", tmp_path, "--max-drop", 1)
    with pytest.raises(ConfigError, match=r"nightly has no scores of sft\nThe latest run that has: 20260101"):
        run("latest:sft", "latest", "--home", tmp_path, "--max-drop", 1)
    with pytest.raises(ConfigError, match=r"latest:sft names scores, .*\nName the run alone, or give B"):
        run("latest:sft", "--home", tmp_path)
    with pytest.raises(ConfigError, match="has no gsm9k; it has gsm8k"):
        run("20260101", "--home", tmp_path, "--max-drop", 1, "--benchmark", "gsm9k")
    with pytest.raises(ConfigError, match="cannot be a baseline: it has no score"):
        run("latest", "--home", tmp_path, command="bless")


def test_the_command_imports_neither_torch_nor_prefect_nor_numpy(tmp_path: Path) -> None:
    gated(tmp_path, [Night({"sft": right(20, 40)})] * 2, {"benchmark": "gsm8k", "max_drop": 50.0})
    code = (
        "import sys\nfrom pipeline.cli.app import app\n"
        f"try: app(['gate', 'latest', '--home', {str(tmp_path)!r}])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'prefect', 'numpy', 'transformers', 'datasets') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer.endswith("[]\n"), answer
