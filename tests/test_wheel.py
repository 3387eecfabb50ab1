"""An installed wheel, without a checkout: it has its version and commit, its configs, docs and pinned lists are found,
and a pipeline starts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core import shipped
from tests.pipeline.environments import install_other_version, make_environment

ROOT = Path(__file__).resolve().parents[1]
NOT_BUILT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")

Vcore = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheel")


@pytest.fixture(scope="module")
def commit(folder: Path) -> str:
    """The commit of a repository in folder/source with these files: the first one after the release 7.1.2."""
    shutil.copytree(ROOT, folder / "source", ignore=NOT_BUILT)

    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=somebody", "-c", "user.email=somebody@example.org", *words]
        return subprocess.run(command, cwd=folder / "source", check=True, capture_output=True, text=True).stdout.strip()

    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "released"), ("tag", "v7.1.2")):
        git(*words)
    git("commit", "-q", "--allow-empty", "-m", "after it")
    return git("rev-parse", "HEAD")


@pytest.fixture(scope="module")
def vcore(folder: Path, commit: str) -> Vcore:
    """The command of a fresh environment that has the wheel, and this environment's libraries beside it. As `python -m
    build` does it, the wheel is made of an sdist, which has no repository any more."""
    sdist = [sys.executable, "-c", f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"]
    subprocess.run(sdist, cwd=folder / "source", check=True, capture_output=True)
    [archive] = folder.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    made = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(archive)]
    subprocess.run(made, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True, capture_output=True)
    libraries = sysconfig.get_path("purelib")
    [site] = (folder / "venv" / "lib").glob("python*/site-packages")
    # A line that is code would run the .pth files of the libraries too, and with them the finder of this checkout.
    (site / "libraries.pth").write_text(f"{libraries}\n")
    shutil.rmtree(folder / "source")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VCORE_HOME", "VIRTUAL_ENV")}

    def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [str(folder / "venv" / "bin" / "vcore"), *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)

    return run


@pytest.mark.slow
def test_a_wheel_says_its_version_and_commit(vcore: Vcore, commit: str, tmp_path: Path) -> None:
    said = vcore("--version", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    named = re.fullmatch(r"vcore 7\.1\.3\.dev1 \(commit ([0-9a-f]{7,})\)\n", said.stdout)
    assert named, said.stdout
    assert commit.startswith(named[1])


@pytest.mark.slow
def test_a_wheel_finds_its_configs_docs_and_lists(vcore: Vcore, tmp_path: Path) -> None:
    listed = vcore("config", "ls", "--json", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    said = json.loads(listed.stdout)
    checkout = {str(f.relative_to(ROOT / "configs").with_suffix("")) for f in (ROOT / "configs").rglob("*.yaml")}
    assert set(said["configs"]) == checkout
    assert all(said["configs"].values()), "each begins with a comment that says what it is"
    for name, folder in said["folders"].items():
        assert not Path(folder).is_relative_to(ROOT)
        there = {file.name for file in Path(folder).iterdir() if file.is_file()}
        assert {f.name for f in (ROOT / name).iterdir() if f.suffix in (".yaml", ".md", ".txt")} <= there


@pytest.mark.slow
def test_a_config_of_the_wheel_is_written_planned_and_begun_in_an_empty_folder(
    vcore: Vcore, commit: str, tmp_path: Path
) -> None:
    written = vcore("init", "gsm8k-qwen3-0.6b", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    assert {f.name for f in tmp_path.iterdir()} == {"gsm8k-qwen3-0.6b.yaml", "gsm8k-small.yaml"}, "with what it extends"
    assert vcore("init", cwd=tmp_path).returncode == 0
    again = vcore("init", cwd=tmp_path)
    assert again.returncode == 2
    assert "demo.yaml exists already" in again.stderr
    plan = vcore("plan", "demo.yaml", "--json", cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["stages"][0]["state"] == "RUN"
    ran = vcore("run", "demo.yaml", "--until", "data", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    [manifest] = tmp_path.glob(".vcore/store/data/*/manifest.json")
    assert str(ROOT) not in manifest.read_text()
    made = json.loads(manifest.read_text())
    assert made["versions"]["vcore-pipeline"] == "7.1.3.dev0", "the commit is beside it"
    assert commit.startswith(made["git"]["commit"])
    assert made["git"]["dirty"] is False
    assert "vcore-pipeline" not in made["preimage"]["versions"]


@pytest.mark.slow
def test_another_python_runs_the_code_of_the_wheel_with_its_own_libraries(
    vcore: Vcore, folder: Path, tmp_path: Path
) -> None:
    """The wheel lies among the libraries of its environment, and none of those may come along."""
    install_other_version(folder / "venv", "math_verify", "8.8.8")
    other = make_environment(tmp_path / "other")
    install_other_version(other, "math_verify", "9.9.9")
    assert vcore("init", cwd=tmp_path).returncode == 0
    named = ("--set", "execution.python={data: other, score: other}")
    ran = vcore("run", "demo.yaml", "--until", "data", *named, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    [manifest] = tmp_path.glob(".vcore/store/data/*/manifest.json")
    made = json.loads(manifest.read_text())
    assert made["python"] == f"{other}/bin/python"
    assert made["versions"]["math-verify"] == "9.9.9"
    assert not list(tmp_path.glob(".vcore/work/data/*")), "with the links to its code"
    [code] = (folder / "venv").glob("lib/python*/site-packages/evaluation")
    links = tmp_path / "code"
    links.mkdir()
    (links / "evaluation").symlink_to(code)
    told = "from evaluation.graders import maths; print(maths._PROJECT)"
    command, environment = [str(other / "bin" / "python"), "-P", "-c", told], {**os.environ, "PYTHONPATH": str(links)}
    worker = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert worker == str(links), "the workers of the maths grader would have the libraries of the wheel's environment"
    bare = make_environment(tmp_path / "bare", libraries=False)
    said = vcore("plan", "demo.yaml", "--set", f"execution.python.data={bare}", cwd=tmp_path).stderr
    assert "lacks datasets, huggingface_hub, packaging, pyarrow, pydantic, pydantic_core, which data imports" in said


@pytest.mark.slow
def test_messages_of_a_wheel_name_files_that_it_has(vcore: Vcore, tmp_path: Path) -> None:
    said = vcore("plan", "none.yaml", cwd=tmp_path).stderr
    assert "vcore config ls" in said
    (tmp_path / "bad.yaml").write_text("distributed_type: 3\n")
    vcore("init", cwd=tmp_path)
    launch = "execution.launch={sft: {kind: accelerate, config: bad.yaml}}"
    said = vcore("plan", "demo.yaml", "--set", launch, cwd=tmp_path).stderr
    named = Path(said.partition("or see ")[2].strip().rstrip("."))
    assert (named / "fsdp2.yaml").is_file(), said


def test_a_checkout_names_its_own_folders_and_make() -> None:
    assert shipped.shipped("configs/demo.yaml") == ROOT / "configs" / "demo.yaml"
    assert shipped.how_to_install() == "make setup"
    assert shipped.how_to_install("cuda") == "make setup MACHINE=cuda"
    with pytest.raises(shipped.UserError, match=r"has no configs/none\.yaml"):
        shipped.shipped("configs/none.yaml")
