"""What the documentation names is there: files, links, headings, commands and options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from pipeline.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("*.md", "configs/**/*.md", "docs/**/*.md", "findings/*.md", "requirements/*.md")
PAGES = sorted(page for place in PLACES for page in ROOT.glob(place))
REPORTS = ROOT / "docs" / "results"
"""Its report.md files are made by `vcore report`: they name what was there when they were made."""
FOLDERS = "configs|docs|evaluation|findings|pipeline|requirements|stages|tests|tools"
PATH = re.compile(rf"(?<![\w./:-])((?:{FOLDERS})/[\w./*-]*)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
OTHERS = {"--check", "--keep", "--enable-tokenizer-info-endpoint", "--gres", "--cpus-per-task", "--no-deps", "--time"}
OTHERS |= {"--build-arg", "--secret", "--init", "--shm-size", "--device", "--gpus"}
OTHERS |= {"--security-opt", "--cap-drop", "--cap-add", "--privileged", "--nodes"}
OTHERS |= {"--ntasks-per-node", "--requeue", "--array"}
"""Options of pip, sbatch, vLLM, tools/lock.py, Podman and Docker that the text names by themselves."""


def pages() -> list[Any]:
    written = [page for page in PAGES if not (page.is_relative_to(REPORTS) and page.name == "report.md")]
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in written]


def code(page: Path) -> Iterator[str]:
    """Every inline code span, and every line of a code block."""
    text = page.read_text(encoding="utf-8")
    for block in FENCE.findall(text):
        yield from block.splitlines()[1:-1]
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


@pytest.mark.parametrize("page", pages())
def test_files_that_a_page_names_exist(page: Path) -> None:
    """Words in capitals stand for a name: `stages/NAME/stage.py`."""
    named = {path.rstrip(".-") for piece in code(page) for path in PATH.findall(piece)}
    missing = [path for path in sorted(named) if not any(ROOT.glob(re.sub(r"\b[A-Z]{2,}\b", "*", path)))]
    assert missing == []


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the hosts of repositories make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> dict[tuple[str, ...], set[str]]:
    """(`store`, `gc`) -> the options of that command; a group has those of none."""
    known: dict[tuple[str, ...], set[str]] = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        known[path] = {option for parameter in command.params for option in parameter.opts}
        for name, below in getattr(command, "commands", {}).items():
            walk(below, (*path, name))

    walk(get_command(app), ())
    return known


@pytest.mark.parametrize("page", pages())
def test_commands_and_options_that_a_page_names_exist(page: Path) -> None:
    known = commands()
    everything = set().union(*known.values()) | OTHERS
    wrong = []
    for piece in code(page):
        line = re.sub(r"\s#.*$", "", piece).replace("[", " ").replace("]", " ")
        start = re.match(r"\s*(?:\S*/)?vcore (.+)", line)
        if start is None:
            options = [line.split()[0]] if line.startswith("--") else []
            wrong += [option for option in options if option.partition("=")[0] not in everything]
            continue
        words = shlex.split(start[1].replace("'", '"')) if start[1].count('"') % 2 == 0 else start[1].split()
        path: tuple[str, ...] = ()
        while words and (*path, words[0]) in known:
            path = (*path, words.pop(0))
        group = any(other[:-1] == path for other in known)
        if group and words and not words[0].startswith("--"):
            wrong.append(f"vcore {' '.join((*path, words[0]))}")
        wrong += [
            f"vcore {' '.join(path)} {w}"
            for w in words
            if w.startswith("--") and w.partition("=")[0] not in known[path]
        ]
    assert wrong == []


def test_what_reruns_after_an_edit_is_what_the_keys_say() -> None:
    """The rows of docs/keys.md that name a source file, against the lists of the keys' files."""
    lists = {file.stem: file.read_text().split() for file in (ROOT / "tests/pipeline/plan/key_files").glob("*.txt")}
    rows = re.findall(r"^\| a statement in `([\w./]+)` \| (.*) \|$", (ROOT / "docs/keys.md").read_text(), re.MULTILINE)
    said = {file: set(re.findall(r"`(\w+)`", stages)) for file, stages in rows}
    assert said == {file: {name for name, files in lists.items() if file in files} for file in said}
    assert len(said) >= 3
