"""No trick is rewarded like a solution, by the rewards as they ship; a reward that can be fooled is caught."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from stages.grpo.probes import COMPLETIONS, HONEST, Probe, probe
from stages.grpo.settings import GrpoSettings

pytestmark = pytest.mark.slow  # every trick is graded for real


TRICKS = [(kind, name) for kind, completions in COMPLETIONS.items() for name in completions if name != HONEST]


@pytest.fixture(scope="module")
def probes() -> dict[tuple[str, str], Probe]:
    settings = GrpoSettings(code_timeout_s=1.0, maths_timeout_s=2.0)
    return {(item.kind, item.name): item for item in probe(settings)}


@pytest.mark.parametrize(("kind", "trick"), TRICKS)
def test_a_trick_earns_less_than_a_solution_and_is_never_called_correct(
    probes: dict[tuple[str, str], Probe], kind: str, trick: str
) -> None:
    item = probes[kind, trick]
    assert item.verdict in ("wrong", "no_answer", "timeout")
    assert item.reward <= 0.1
    assert not item.fooled


def test_tricks_of_programs_are_really_run(probes: dict[tuple[str, str], Probe]) -> None:
    assert probes["code", "runs for ever"].verdict == "timeout"
    assert {
        probes["code", name].verdict for name in ("kills its parent", "os._exit(0)", "writes a verdict itself")
    } == {"wrong"}


@pytest.mark.parametrize("kind", sorted(COMPLETIONS))
def test_the_honest_solution_earns_everything(probes: dict[tuple[str, str], Probe], kind: str) -> None:
    assert probes[kind, HONEST] == Probe(kind, HONEST, "correct", pytest.approx(1.1), False)


def test_doctor_exits_1_for_a_reward_that_length_can_fool(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def eager(problems, completions, reasons):\n    return [len(text) / 100 for text in completions]\n"
    )
    demo = Path(__file__).resolve().parents[4] / "configs" / "demo.yaml"
    config = tmp_path / "fooled.yaml"
    rewards = f"{{custom: [{{file: {tmp_path / 'mine.py'}, function: eager}}]}}"
    config.write_text(
        f"extends: {demo}\ngrpo: {{code_timeout_s: 1.0, maths_timeout_s: 2.0, rewards: {rewards}}}\n", encoding="utf-8"
    )
    result = CliRunner().invoke(app, ["doctor", "--rewards", str(config), "--json"])
    assert result.exit_code == 1
    fooled = [item["name"] for item in json.loads(result.output) if item["fooled"]]
    assert "many boxes, the right one among them" in fooled
    assert "honest solution" not in fooled


def test_doctor_overrides_settings_of_the_config_whose_rewards_it_probes() -> None:
    demo = Path(__file__).resolve().parents[4] / "configs" / "demo.yaml"
    result = CliRunner().invoke(app, ["doctor", "--rewards", str(demo), "--set", "grpo=null"])
    assert "has no RL whose rewards could be probed" in str(result.exception)
