"""Stages under another Python: which one, what it lacks, and what of it is in a key. The environments are real."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.checks.preflight import preflight
from pipeline.config.schema import PipelineConfig, load_config
from pipeline.core import interpreters
from pipeline.core.errors import ConfigError, StageFailed
from pipeline.core.shipped import ROOT
from pipeline.plan.graph import Stage, build_graph
from pipeline.plan.interpreters import Interpreters, imports_of
from pipeline.plan.keys import KeyMaker
from pipeline.plan.planning import make_plan
from pipeline.store.store import Store
from tests.pipeline.environments import install, install_other_version, make_environment, site_packages
from tests.pipeline.helpers import config, make, plan, states


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the same libraries as the pipeline's own."""
    return make_environment(tmp_path_factory.mktemp("same") / "venv")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with another version of math-verify, and with a library that the pipeline's own does not have."""
    folder = make_environment(tmp_path_factory.mktemp("other") / "venv")
    install_other_version(folder, "math_verify", "9.9.9")
    install(folder, "bonus-lib", "0.3", {"bonus_lib.py": "BONUS = 1.0\n"})
    return folder


def keys(settings: PipelineConfig) -> KeyMaker:
    return KeyMaker(settings, build_graph(settings), Store(settings.home_folder))


def stages(settings: PipelineConfig) -> dict[str, Stage]:
    return {stage.name: stage for stage in build_graph(settings)}


def test_the_same_versions_make_the_same_key(tmp_path: Path, same: Path) -> None:
    make(tmp_path)
    named = (
        f"execution.python={{data: {same}, generate: {same}/bin/python, sft: {same}, score: {same}, report: {same}}}"
    )
    assert set(states(plan(tmp_path, named)).values()) == {"HIT"}


def test_other_versions_rerun_the_stages_that_are_run_with_them_and_no_others(tmp_path: Path, other: Path) -> None:
    make(tmp_path)
    planned = plan(tmp_path, f"execution.python={{score: {other}, generate.sft: {other}}}")
    rerun = {name for name, one in planned.items() if one.state == "RUN"}
    assert rerun == {"score.base", "score.sft", "score.grpo"}, "sampling has no use for math-verify"
    assert planned["score.sft"].reason.startswith("math-verify ")
    assert planned["score.sft"].reason.endswith(" → 9.9.9")
    assert planned["score.sft"].preimage is not None
    assert str(other) not in str(planned["score.sft"].preimage.to_json())


def test_a_changed_environment_is_noticed_before_its_stage_starts(tmp_path: Path) -> None:
    folder = make_environment(tmp_path / "venv")
    settings = config(tmp_path, f"execution.python.data={folder}")
    maker, data = keys(settings), stages(settings)["data"]
    maker.check_unchanged(data)
    install_other_version(folder, "math_verify", "9.9.9")
    with pytest.raises(StageFailed, match="math-verify changed after this run was planned"):
        maker.check_unchanged(data)


def test_what_a_process_ran_with_has_to_be_what_its_key_names(tmp_path: Path) -> None:
    settings = config(tmp_path)
    maker, data = keys(settings), stages(settings)["data"]
    ran = maker.exact_versions(data)
    maker.check_versions(data, ran)
    maker.check_versions(data, ran | {"datasets": f"{ran['datasets']}+build"})
    with pytest.raises(StageFailed, match=r"its process ran with python 3\.99, not 3\.\d+ as its key says"):
        maker.check_versions(data, ran | {"python": "3.99.1"})


def test_the_narrowest_entry_counts(tmp_path: Path, same: Path, other: Path) -> None:
    found = Interpreters(config(tmp_path, f"execution.python={{generate: {same}, generate.sft: {other}}}"))
    assert found.of("sft") is None
    for stage, folder in (("generate.base", same), ("generate.sft", other), ("generate.sft.svamp-16", other)):
        interpreter = found.of(stage)
        assert interpreter is not None
        assert interpreter.python == str(folder / "bin" / "python"), "the environment's own link, not what it leads to"


def test_an_interpreter_is_asked_once_for_all_its_stages(
    tmp_path: Path, same: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, run = [], subprocess.run

    def count(command: list[str], **options: Any) -> Any:
        asked.append(command[0])
        return run(command, **options)

    monkeypatch.setattr(interpreters.subprocess, "run", count)
    interpreters._probe.cache_clear()
    settings = config(tmp_path, f"execution.python={{data: {same}, score: {same}, generate: {same}/bin/python}}")
    planned = make_plan(settings, Store(settings.home_folder))
    preflight(settings, planned)
    assert asked.count(f"{same}/bin/python") == 1
    asked.clear()
    make_plan(config(tmp_path), Store(settings.home_folder))
    assert asked == [], "a config that names none asks none"
    [libraries] = same.glob("lib/python*/site-packages")
    (libraries / "new.pth").write_text("")  # as where pip has installed something since
    make_plan(settings, Store(settings.home_folder))
    assert asked.count(f"{same}/bin/python") == 1


def test_what_a_sweep_gives_its_cells_does_not_lead_another_python_to_our_libraries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(interpreters.ROOT), "/mine"]))
    given = interpreters.environment_of("/other/bin/python", "/links")
    assert given["PYTHONPATH"] == os.pathsep.join(["/links", "/mine"])


def script(tmp_path: Path, text: str) -> str:
    file = tmp_path / "python"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize(
    ("make_path", "message"),
    [
        (lambda folder: folder / "none", "none does not exist\nName an interpreter"),
        (lambda folder: folder, "is no environment: it holds no bin/python"),
        (lambda folder: Path(__file__), "may not be executed"),
        (lambda folder: "/bin/true", "does not answer as a Python does"),
        (lambda folder: script(folder, "echo '{\"version\": [3, 8, 18]}'"), "is Python 3.8.18, and 3.11.3 is the old"),
        (lambda folder: script(folder, "exec sleep 60"), "has not said in 1 s what it has"),
    ],
)
def test_a_path_that_is_no_python_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_path: Any, message: str
) -> None:
    monkeypatch.setattr(interpreters, "PROBE_SECONDS", 1.0 if "1 s" in message else 60.0)
    with pytest.raises(ConfigError, match=message) as refused:
        plan(tmp_path, f"execution.python.score={make_path(tmp_path)}")
    assert refused.value.where == "execution.python.score"


def test_a_relative_path_starts_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"{tmp_path}/envs/new does not exist"):
        plan(tmp_path, "execution.python.score=envs/new")


def test_a_stage_that_there_is_not_is_refused(tmp_path: Path, same: Path) -> None:
    with pytest.raises(ConfigError, match=r"execution\.python\.scor: this pipeline has no stage 'scor'; did you mean"):
        plan(tmp_path, f"execution.python.scor={same}")
    with pytest.raises(ConfigError, match="python"):
        config(tmp_path, "execution.python.score=3")


def test_what_it_lacks_is_said_before_anything_runs(tmp_path: Path) -> None:
    bare = make_environment(tmp_path / "bare", libraries=False)
    settings = config(tmp_path, f"execution.python.score={bare}")
    planned = make_plan(settings, Store(settings.home_folder))
    with pytest.raises(ConfigError) as refused:
        preflight(settings, planned)
    text = str(refused.value)
    assert text.startswith(
        f"execution.python.score: {bare}/bin/python lacks datasets, evaluate, latex2sympy2_extended,"
    )
    assert "which score.base, score.sft, score.grpo imports" in text
    assert f"Run `{bare}/bin/python -m pip install datasets evaluate" in text
    assert " math-verify " in text, "as pip calls it"


def test_code_that_cannot_be_imported_is_said(tmp_path: Path) -> None:
    """Here a library that is too old: the file says so when it is imported."""
    folder = make_environment(tmp_path / "venv")
    (site_packages(folder) / "pydantic.py").write_text("raise ImportError('pydantic of long ago')\n")
    with pytest.raises(ConfigError, match="cannot import this project's code: ImportError: pydantic of long ago"):
        plan(tmp_path, f"execution.python.score={folder}")


def test_what_a_stage_imports_follows_its_settings(tmp_path: Path) -> None:
    found = stages(config(tmp_path))
    assert {"vllm", "torch", "transformers", "httpx"} <= imports_of(found["generate.sft"])
    assert {"trl", "peft", "tensorboardX"} <= imports_of(found["sft"])
    assert {"math_verify", "evaluate"} <= imports_of(found["score.sft"])
    assert "torch" not in imports_of(found["score.sft"]) | imports_of(found["data"]) | imports_of(found["report"])
    without = stages(config(tmp_path, "generate.engine=transformers", "grpo.rollout=transformers"))
    assert "vllm" not in imports_of(without["generate.sft"]) | imports_of(without["grpo"])
    assert "gguf" not in imports_of(found["base"])
    file = tmp_path / "served.yaml"
    file.write_text(
        "name: served\nseed: 0\nmodel: http://localhost:1/v1\nbenchmarks: [{name: word_problems, problems: 2}]\n"
        "generate: {engine: openai, server: {model: m}}\n"
    )
    served = stages(load_config(file, []))["generate.served"]
    assert "httpx" in imports_of(served)
    assert not {"torch", "transformers", "vllm"} & imports_of(served)


def test_custom_code_and_packages_are_looked_up_beside_it(tmp_path: Path, other: Path) -> None:
    """What is installed there, and not here, counts by its version; a module of the user's by its content."""
    (tmp_path / "mine.py").write_text("SCALE = 2\n")
    (tmp_path / "bonus.py").write_text(
        "import bonus_lib\nimport mine\ndef reward(problems, completions, finish_reasons):\n    return [0.0]\n"
    )
    custom = f"grpo.rewards={{correct: 1.0, custom: [{{file: {tmp_path}/bonus.py, function: reward, weight: 0.1}}]}}"
    own = config(tmp_path, custom)
    assert "bonus-lib" not in keys(own).libraries(stages(own)["grpo"])
    settings = config(tmp_path, custom, f"execution.python.grpo={other}")
    maker, grpo = keys(settings), stages(settings)["grpo"]
    assert "bonus-lib" in maker.libraries(grpo)
    assert maker.exact_versions(grpo)["bonus-lib"] == "0.3"
    assert "grpo.rewards.custom.0.file: mine" in maker.outside["grpo"]

    packages = config(tmp_path, "sandbox.packages=[bonus-lib]", f"execution.python.score={other}", "grpo=null")
    maker = keys(packages)
    assert "bonus-lib" in maker.libraries(stages(packages)["score.sft"])
    with pytest.raises(ConfigError, match="bonus-lib is not installed here"):
        keys(config(tmp_path, "sandbox.packages=[bonus-lib]", "grpo=null"))
    with pytest.raises(ConfigError, match=rf"nolib is not installed here \({other}/bin/python\)"):
        keys(config(tmp_path, "sandbox.packages=[nolib]", f"execution.python.score={other}", "grpo=null"))


def test_the_docs_list_what_each_stage_imports(tmp_path: Path) -> None:
    listed = dict(
        re.findall(r"^  \| `(\w+)` \| ([\w, ]+) \|$", (ROOT / "docs" / "orchestration.md").read_text(), re.MULTILINE)
    )
    found = {stage.program: imports_of(stage) for stage in build_graph(config(tmp_path, "difficulty={}"))}
    assert listed == {program: ", ".join(sorted(modules)) for program, modules in found.items()}
