"""The Containerfile agrees with the repository. Nothing here builds an image, which takes minutes, gigabytes and a
registry: requirements/README.md says what was built by hand."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import tomllib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Containerfile").read_text()
IMAGES = ("cpu", "cuda")


class Instruction(NamedTuple):
    word: str
    rest: str


def instructions() -> list[Instruction]:
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    logical = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [Instruction(*line.strip().split(maxsplit=1)) for line in logical if line.strip()]


def stages() -> dict[str, list[Instruction]]:
    """Name -> its instructions after FROM, those of the stage that it stands on before them."""
    found: dict[str, list[Instruction]] = {}
    name = ""
    for instruction in instructions():
        if instruction.word == "FROM":
            origin, _, name = instruction.rest.partition(" AS ")
            assert name, f"a stage without a name: {instruction.rest}"
            assert origin == "${PYTHON_IMAGE}" or origin in found, f"{name} stands on nothing known: {origin}"
            found[name] = list(found.get(origin, []))
        elif name:
            found[name].append(instruction)
    return found


def of(stage: str, word: str) -> list[str]:
    return [instruction.rest for instruction in stages()[stage] if instruction.word == word]


def ignored() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def is_ignored(path: str) -> bool:
    """Whether the context lacks a file: a pattern names it or a folder that it is in; only `**/` is not at the root."""
    parts = PurePosixPath(path).parts
    above = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    return any(
        any(fnmatch.fnmatchcase(part, pattern.removeprefix("**/")) for part in parts)
        if pattern.startswith("**/")
        else any(fnmatch.fnmatchcase(place, pattern) for place in above)
        for pattern in ignored()
    )


def test_it_builds_an_image_for_each_list() -> None:
    assert set(IMAGES) <= stages().keys()
    for image in IMAGES:
        text = " ".join(of(image, "RUN"))
        assert set(re.findall(r"--requirement (\S+)", text)) == {f"/opt/requirements/{image}.txt"}
        assert re.search(rf"grep '\^torch==' /opt/requirements/{image}\.txt", text)
        assert re.findall(r"^# *podman build .*--target (\w+)", TEXT, re.MULTILINE), "its head says how"
        assert f"--target {image} " in TEXT
        installs = re.findall(r"pip install [^&;]*", text)
        assert installs
        assert all("--no-deps" in install for install in installs), "the lists are complete: nothing else is resolved"


def test_every_file_that_it_copies_is_there() -> None:
    copied = 0
    for stage, known in stages().items():
        for words in (shlex.split(instruction.rest) for instruction in known if instruction.word == "COPY"):
            *sources, _ = [word for word in words if not word.startswith("--")]
            if origin := next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), None):
                assert origin in stages(), f"{stage} copies from {origin}"
                continue
            for source in sources:
                assert (ROOT / source).exists(), f"{stage} copies {source}"
                assert source == "." or not is_ignored(source), f"the context lacks {source}"
                copied += 1
    assert copied >= 3


def test_the_context_has_what_git_tracks_and_nothing_that_git_ignores() -> None:
    """A file that is missing would make the wheel's version that of a checkout with changes."""
    for pattern in (line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()):
        assert is_ignored(pattern.replace("*", "x")), f".gitignore has {pattern}, .dockerignore has not"
    assert not is_ignored(".git/HEAD"), "the version comes from it"
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: the project's own files are not known")
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [path for path in listing.splitlines() if is_ignored(path)] == []


def test_its_python_is_one_that_the_project_and_the_lists_are_for() -> None:
    [image] = [i.rest.partition("=")[2] for i in instructions() if i.word == "ARG" and "PYTHON_IMAGE" in i.rest]
    version = re.search(r"(?<=:)\d+\.\d+", image)
    assert version, f"{image} does not say which Python"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert SpecifierSet(project["requires-python"]).contains(f"{version[0]}.99"), "a tag names the latest of it"
    for name in IMAGES:
        made_for = re.search(r"made for: CPython (\d+\.\d+)", (ROOT / "requirements" / f"{name}.txt").read_text())
        assert made_for
        assert made_for[1] == version[0]


@pytest.mark.parametrize("image", IMAGES)
def test_it_runs_as_a_user_whose_home_is_on_a_volume(image: str) -> None:
    [user] = of(image, "USER")
    assert user not in ("root", "0")
    assert f"--create-home {user}" in " ".join(of(image, "RUN"))
    words = [instruction.word for instruction in stages()[image]]
    assert "COPY" not in words[words.index("USER") :], "nothing is installed as that user"
    [volume] = of(image, "VOLUME")
    settings = dict(word.split("=", 1) for line in of(image, "ENV") for word in shlex.split(line))
    for name in ("VCORE_HOME", "HF_HOME"):
        assert PurePosixPath(settings[name]).is_relative_to(volume)
    assert f"--owner {user} --group {user} {volume}" in " ".join(of(image, "RUN"))
    assert of(image, "ENTRYPOINT") == ['["vcore"]']


@pytest.mark.parametrize("image", IMAGES)
def test_it_has_the_compiler_that_programs_and_kernels_need(image: str) -> None:
    packages = [word for line in of(image, "RUN") for word in line.split()]
    assert "g++" in packages, "gcc for Triton comes with it"
    assert ("Python.h" in " ".join(of(image, "RUN"))) == (image == "cuda")


def test_every_run_is_a_shell_command() -> None:
    commands = [re.sub(r"^(--mount=\S+\s+)+", "", i.rest) for i in instructions() if i.word == "RUN"]
    assert len(commands) >= 8
    for command in commands:
        done = subprocess.run(["sh", "-n", "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
