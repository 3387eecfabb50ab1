"""Which code ran: the version always, a commit only where it is that code's own."""

import subprocess
from pathlib import Path

import pytest

from pipeline.launch import machine
from pipeline.plan import code


def repository(folder: Path) -> Path:
    folder.mkdir()
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    (folder / "notes.txt").write_text("")
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    return folder


def test_the_commit_of_somebody_elses_repository_is_not_the_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = repository(tmp_path / "theirs")
    installed = theirs / ".venv" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    monkeypatch.setattr(machine, "ROOT", theirs)
    own = machine.git_state()
    assert own.commit is not None
    assert own.dirty is False, "an empty folder is no change"
    monkeypatch.setattr(machine, "ROOT", installed)
    assert (machine.git_state().commit, machine.git_state().dirty) == (None, None)


def test_the_version_is_that_of_the_code_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "ROOT", tmp_path)
    monkeypatch.setattr(code, "_installed", {"vcore-pipeline": "1.2.3"}.get)
    assert code.own_version() == "1.2.3"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "9"\n')
    assert code.own_version() == "1.2.3", "a stray file of another project"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "vcore-pipeline"\nversion = "2.0"\n')
    assert code.own_version() == "2.0"
