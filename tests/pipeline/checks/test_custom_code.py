"""Code of the user's own is looked at before the first stage starts, and never run for it."""

from pathlib import Path

import pytest

from tests.pipeline.checks.test_preflight import planned, refused

REWARD = """
import functools
import elsewhere as torch
from elsewhere import imported

def reward(problems, completions, finish_reasons, scale=100, *, floor):
    return [0.0 for _ in completions]

async def later(problems, completions, finish_reasons): ...
def yields(problems, completions, finish_reasons):
    for _ in completions:
        yield 0.0
def sums(problems, completions, finish_reasons):
    def one():
        yield 1.0
    return [sum(one()) for _ in completions]
short = lambda problems, completions: [0.0]
right = lambda problems, completions, reasons, scale=1: [0.0]
lazy = lambda problems, completions, reasons: (yield)
def few(problems, completions): ...
def anything(*arguments, **options): ...
class Class: ...
number = 3
names = ["a"]
partial = functools.partial(reward, floor=0)
if torch:
    def nested(problems, completions, finish_reasons): ...
"""


def judge(tmp_path: Path, override: str, message: str | None) -> None:
    """The plan of a config passes, or is refused with a message."""
    if message is None:
        planned(tmp_path, override)
    else:
        assert message in refused(tmp_path, override)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("function: rewrad", "custom.0.function: reward.py defines no 'rewrad'; did you mean 'reward'?"),
        ("function: number", "custom.0.function: number of reward.py is no function"),
        ("function: names", "custom.0.function: names of reward.py is no function"),
        ("function: Class", "custom.0.function: Class of reward.py is no function"),
        ("function: later", "custom.0.function: later of reward.py is an async function, and nobody would run"),
        ("function: yields", "custom.0.function: yields of reward.py is a generator, and nobody would run it"),
        ("function: lazy", "custom.0.function: lazy of reward.py is a generator"),
        ("function: short", "custom.0: short of reward.py takes 2 arguments, and is called with 3"),
        ("function: right, options: {size: 2}", "custom.0.options: right of reward.py takes no 'size'"),
        ("function: few", "custom.0: few of reward.py takes 2 arguments, and is called with 3"),
        (
            "function: reward, options: {floor: 0, scal: 500}",
            "custom.0.options: reward of reward.py takes no 'scal'; did you mean 'scale'?",
        ),
        (
            "function: reward, options: {floor: 0, problems: 1}",
            "custom.0.options: reward of reward.py takes no 'problems'",
        ),
        ("function: reward, options: {scale: 500}", "custom.0.options: reward of reward.py needs floor"),
        ("function: nested, options: {x: 1}", "custom.0.options: nested of reward.py takes no 'x'"),
        ("function: reward, options: {floor: 0, scale: 500}", None),
        ("function: anything, options: {x: 1}", None),
        ("function: partial", None),
        ("function: sums", None),
        ("function: right, options: {scale: 2}", None),
        ("function: imported, options: {x: 1}", None),
        ("function: nested", None),
    ],
)
def test_rewards_are_looked_at_without_being_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reward.py").write_text(REWARD)
    Path("elsewhere.py").write_text("raise AssertionError('a plan runs none of this')\n")
    override = f"grpo.rewards={{custom: [{{file: reward.py, {given}}}]}}"
    judge(tmp_path, override, message and f"grpo.rewards.{message}")


METHOD = """
import dataclasses
from stages.sft.reweighting.base import Method

class Weights(Method):
    def __init__(self, power: float): ...
    def weigh(self, losses, mask, prepared): ...

class Alone:
    def weigh(self, losses, mask, prepared): ...

def made(power): ...

class Plain(Method):
    def weigh(self, losses, mask, prepared): ...

class Child(Plain): ...

class Typo(Method):
    def weight(self, losses, mask, prepared): ...

class Anchored(Method):
    def __init__(self): self.anchor = 1

class Of(Elsewhere, Method): ...

@dataclasses.dataclass
class Data(Method):
    power: float
"""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("options: {power: 2.0}", None),
        ("class_name: Weigths", "sft.method.class_name: method.py defines no 'Weigths'; did you mean 'Weights'?"),
        (
            "class_name: Alone",
            "sft.method.class_name: Alone of method.py does not derive from stages.sft.reweighting.base.Method",
        ),
        ("class_name: made", "sft.method.class_name: made of method.py is no class"),
        ("options: {pwoer: 2.0}", "sft.method.options: Weights of method.py takes no 'pwoer'; did you mean 'power'?"),
        ("options: {}", "sft.method.options: Weights of method.py needs power"),
        ("class_name: Plain", None),
        ("class_name: Plain, options: {b: 1}", "sft.method.options: Plain of method.py takes no 'b'"),
        ("class_name: Child", None),
        ("class_name: Child, options: {b: 1}", "sft.method.options: Child of method.py takes no 'b'"),
        ("class_name: Typo", "Typo of method.py defines no weigh, finish or anchor, so that it would change nothing"),
        ("class_name: Anchored", None),
        ("class_name: Of, options: {b: 1}", None),
        ("class_name: Data, options: {power: 1}", None),
    ],
)
def test_methods_are_looked_at_without_being_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("method.py").write_text(METHOD)
    override = f"sft.method={{name: custom, file: method.py, {given}}}"
    judge(tmp_path, override, message)


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("sft.method={{name: custom, file: {file}}}", "sft.method.file"),
        ("grpo.rewards={{custom: [{{file: {file}}}]}}", "grpo.rewards.custom.0.file"),
    ],
)
def test_files_of_ones_own_that_are_missing_or_no_python(tmp_path: Path, override: str, where: str) -> None:
    file = tmp_path / "own.py"
    assert f"{where}: file {file} does not exist" in refused(tmp_path, override.format(file=file))
    file.write_text("\n\ndef reward(:\n")
    message = f"{where}: {file}:3 is not Python: invalid syntax in `def reward(:`"
    assert message in refused(tmp_path, override.format(file=file))
    for content in (b"\xff\xfe\x00", b"one = 1\x00\n"):
        file.write_bytes(content)
        assert f"{where}: {file} is not Python: " in refused(tmp_path, override.format(file=file)).replace(
            ":1 is", " is"
        )


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("import torhc", "torhc"),
        ("import torhc.nn as nn", "torhc.nn"),
        ("from stages.sft.reweighting.bsae import Method", "stages.sft.reweighting.bsae"),
        ("import helper", "torhc"),
        ("try:\n    import torhc\nexcept ImportError:\n    torhc = None", None),
        ("def later():\n    import torhc", None),
        ("import helpr", "helpr"),
        ("import numpy.linalg, json, sys\nfrom xml.etree import ElementTree\nimport space.inner", None),
    ],
)
def test_imports_of_what_is_not_there_are_seen_before_anything_runs(
    tmp_path: Path, line: str, missing: str | None
) -> None:
    file = tmp_path / "own.py"
    file.write_text(f"\n{line}\ndef reward(problems, completions, finish_reasons): ...\n")
    (tmp_path / "helper.py").write_text("\nimport torhc\n")
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "inner.py").touch()
    override = f"grpo.rewards={{custom: [{{file: {file}}}]}}"
    if missing is None:
        planned(tmp_path, override)
    else:
        place = tmp_path / "helper.py" if line == "import helper" else file
        said = refused(tmp_path, override)
        assert f"grpo.rewards.custom.0.file: {place}:2 imports {missing}, which this Python does not have" in said
