"""One release has one name: in CITATION.cff, in the changelog, in pyproject.toml and in git's tags; and what is built
where git says nothing has the name that pyproject.toml states."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.version import Version
from ruamel.yaml import YAML

from pipeline.core.version import TAGS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FALLBACK: str = PROJECT["tool"]["setuptools_scm"]["fallback_version"]
RELEASES = re.findall(r"^## \[(\d\S*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_last_release_is_the_same_everywhere() -> None:
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert RELEASES[0] == (str(citation["version"]), str(citation["date-released"]))
    major, minor, patch = Version(RELEASES[0][0]).release
    assert f"{major}.{minor}.{patch + 1}.dev0" == FALLBACK, "what follows the last release"
    listing = ["git", "tag", "--list", TAGS, "--merged", "HEAD"]
    tags = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True).stdout.split()
    if tags:  # a clone need not have them
        assert max(map(Version, tags)) == Version(RELEASES[0][0])


def test_nothing_else_states_a_version() -> None:
    assert "version" not in PROJECT["project"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    names = [requirement.split(">")[0] for requirement in PROJECT["build-system"]["requires"]]
    pinned = (ROOT / "requirements" / "dev.txt").read_text() + (ROOT / "requirements" / "cpu.txt").read_text()
    unpinned = [name for name in names if not re.search(rf"^{name}==", pinned, re.MULTILINE)]
    assert unpinned == [], "the set-up builds with the pinned list alone"


def built(folder: Path) -> str:
    """The version of the package that is built from a folder."""
    program = "import setuptools.build_meta as b; print(b.prepare_metadata_for_build_wheel('metadata'))"
    (folder / "metadata").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    name = done.stdout.split()[-1]
    shutil.rmtree(folder / "metadata")
    return name.removeprefix("vcore_pipeline-").removesuffix(".dist-info")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What a package's version is made from, without git."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitattributes", ".git_archival.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.slow
def test_a_folder_without_git_is_built_as_the_stated_version(source: Path) -> None:
    assert built(source) == FALLBACK


@pytest.mark.slow
def test_an_archive_of_a_release_is_that_release_and_one_without_a_tag_is_built(source: Path, tmp_path: Path) -> None:
    def archived() -> str:
        folder = tmp_path / "unpacked"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        git("archive", "--output", str(tmp_path / "archive.tar"), "HEAD")
        shutil.unpack_archive(tmp_path / "archive.tar", folder)
        return built(folder)

    def git(*words: str) -> None:
        command = ["git", "-c", "user.name=somebody", "-c", "user.email=somebody@example.org", *words]
        subprocess.run(command, cwd=source, check=True, capture_output=True)

    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "first")):
        git(*words)
    assert archived() == FALLBACK
    git("tag", "v7.1.2")
    assert archived() == "7.1.2"
    git("commit", "-q", "--allow-empty", "-m", "after it")
    assert re.fullmatch(r"7\.1\.3\.dev1\+g[0-9a-f]+", archived())
