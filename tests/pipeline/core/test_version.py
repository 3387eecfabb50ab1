"""Which code runs: the version that the package would have, a commit only where it is that code's own, no word from an
installation that the checkout has left behind."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core import version
from pipeline.core.version import OwnCode, own_code

ROOT = Path(__file__).resolve().parents[3]
Git = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of this project, as far as versions go, and the one that runs."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    shutil.copy(ROOT / "pyproject.toml", checkout)
    monkeypatch.setattr(version, "ROOT", checkout)
    return checkout


@pytest.fixture
def git(folder: Path) -> Git:
    """Git there, after a first commit."""

    def run(*words: str) -> str:
        command = ["git", "-c", "user.name=somebody", "-c", "user.email=somebody@example.org", *words]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    run("init", "-q")
    run("add", ".")
    run("commit", "-q", "-m", "first")
    return run


def packaged(folder: Path) -> str:
    """The version of a package that is built there now, less the commit."""
    command = [sys.executable, "-W", "error", "-m", "setuptools_scm"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    said = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, env=environment)
    return said.stdout.strip().partition("+")[0]


@pytest.mark.slow
def test_a_checkout_has_the_version_that_its_package_would_have(folder: Path, git: Git) -> None:
    def both() -> str:
        said = own_code().version
        assert packaged(folder) == said
        return said

    def commit() -> str:
        git("commit", "-q", "--allow-empty", "-m", "another")
        return both()

    next_release = re.search(r'fallback_version = "(.+)\.dev0"', (folder / "pyproject.toml").read_text())
    assert next_release is not None
    assert both() == f"{next_release[1]}.dev1", "no tag, one commit"
    assert commit() == f"{next_release[1]}.dev2"
    git("tag", "not-a-version-3")
    git("tag", "v4")
    assert both() == f"{next_release[1]}.dev2", "neither of these is a version"
    for tag, following in (("0.9.1", "0.9.2"), ("1.0.0rc1", "1.0.0rc2"), ("1.1.0.dev0", "1.1.0"), ("1.1.9", "1.1.10")):
        git("tag", f"v{tag}")
        if "dev" not in tag:
            assert both() == tag
        assert commit() == f"{following}.dev1"
    git("tag", "-a", "v2.0.0", "-m", "annotated")
    assert both() == "2.0.0"
    (folder / "new.txt").write_text("")
    assert both() == "2.0.0", "git does not know the file"
    with (folder / "pyproject.toml").open("a") as file:
        file.write("# edited\n")
    assert both() == "2.0.1.dev0"


def test_a_checkout_that_has_moved_on_says_where_it_is_now(folder: Path, git: Git) -> None:
    """The metadata of an editable installation do not move, and nobody asks them."""
    git("tag", "v0.9.0")
    first = own_code()
    assert first == OwnCode("0.9.0", git("rev-parse", "HEAD"), False)
    assert str(first) == f"0.9.0 (commit {first.commit[:12]})" if first.commit else False
    git("commit", "-q", "--allow-empty", "-m", "second")
    second = own_code()
    assert second == OwnCode("0.9.1.dev1", git("rev-parse", "HEAD"), False)
    assert second.commit != first.commit
    (folder / "new.txt").write_text("")
    assert own_code().dirty
    assert str(own_code()).endswith(f"(commit {str(second.commit)[:12]}, with uncommitted changes)")
    assert second.release == "0.9.1.dev0", "records have the commit beside it"
    assert first.release == "0.9.0"


def installed(folder: Path, name: str, url: str | None = None) -> importlib.metadata.Distribution:
    """The distribution under that version, from that folder."""
    info = folder / f"vcore_pipeline-{name}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vcore-pipeline\nVersion: {name}\n")
    if url is not None:
        (info / "direct_url.json").write_text(f'{{"dir_info": {{"editable": true}}, "url": "{url}"}}')
    return importlib.metadata.PathDistribution(info)


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("0.2.0", OwnCode("0.2.0", None, None), "0.2.0"),
        ("0.2.1.dev0", OwnCode("0.2.1.dev0", None, None), "0.2.1.dev0 (commit unknown)"),
        (
            "0.2.1.dev71+g5a79e33b1",
            OwnCode("0.2.1.dev71", "5a79e33b1", False),
            "0.2.1.dev71 (commit 5a79e33b1)",
        ),
        (
            "0.2.1.dev71+g5a79e33b1.d20261129",
            OwnCode("0.2.1.dev71", "5a79e33b1", True),
            "0.2.1.dev71 (commit 5a79e33b1, with uncommitted changes)",
        ),
        ("0.2.0+d20261129", OwnCode("0.2.0", None, None), "0.2.0"),
    ],
)
def test_a_wheel_has_version_and_commit_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: OwnCode, said: str
) -> None:
    found = installed(tmp_path, name)
    monkeypatch.setattr(version, "ROOT", tmp_path)
    monkeypatch.setattr(importlib.metadata, "distribution", {"vcore-pipeline": found}.__getitem__)
    assert own_code() == code
    assert str(own_code()) == said
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "9"\n')
    assert own_code() == code, "a stray file of another project"


def test_the_commit_of_somebody_elses_repository_is_not_the_codes(
    folder: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = folder / ".venv" / "lib" / "site-packages"
    found = installed(inside, "0.2.0")
    monkeypatch.setattr(version, "ROOT", inside)
    monkeypatch.setattr(importlib.metadata, "distribution", {"vcore-pipeline": found}.__getitem__)
    assert own_code() == OwnCode("0.2.0", None, None)
    shutil.copy(ROOT / "pyproject.toml", inside)
    assert own_code().commit is None, "an archive that was unpacked inside it"


def test_a_folder_without_git_has_what_it_was_installed_as_or_the_stated_version(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fallback = re.search(r'fallback_version = "(.+?)"', (folder / "pyproject.toml").read_text())
    assert fallback is not None
    elsewhere = installed(folder / "a", "0.7.0", "file:///elsewhere")
    monkeypatch.setattr(importlib.metadata, "distribution", {"vcore-pipeline": elsewhere}.__getitem__)
    assert own_code() == OwnCode(fallback[1], None, None)
    here = installed(folder / "b", "0.8.1.dev2+g0123456789", folder.as_uri())
    monkeypatch.setattr(importlib.metadata, "distribution", {"vcore-pipeline": here}.__getitem__)
    assert own_code() == OwnCode("0.8.1.dev2", "0123456789", None), "whether it was edited since, nobody knows"


def test_the_command_prints_it() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline", "--version"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert said.returncode == 0, said.stderr
    assert said.stdout == f"vcore {own_code()}\n"
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        assert f"(commit {head[:12]}" in said.stdout
