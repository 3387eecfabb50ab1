"""The code keeps its layout: imports run one way, without circles, and no file or folder grows too large."""

from __future__ import annotations

import ast
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (
    "evaluation",
    "stages",
    "pipeline.core",
    "pipeline.config",
    "pipeline.store",
    "pipeline.plan",
    "pipeline.launch",
    "pipeline.checks",
    "pipeline.estimate",
    "pipeline.run",
    "pipeline.history",
    "pipeline.browse",
    "pipeline.export",
    "pipeline.prefect_",
    "pipeline.sweep",
    "pipeline.share",
    "pipeline.cli",
    "pipeline.__main__",
)
"""From the ground up: a module imports from its own layer and from those before it."""
STAGES = ("harness", "training", "grading")
"""Packages of stages/ that every stage may use. One stage imports of another only what describes it."""
DESCRIBES = ("settings", "method_settings", "stage", "documents")
MOST_FILES, MOST_LINES = 15, 350


def tracked() -> list[PurePosixPath]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: the project's own files are not known")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [PurePosixPath(line) for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def modules() -> dict[str, Path]:
    """Dotted name -> file, of every module outside the tests."""
    files = [
        path for path in tracked() if path.suffix == ".py" and path.parts[0] in ("pipeline", "stages", "evaluation")
    ]
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): ROOT / path for path in files}


def imports(name: str, file: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of ours that a module imports, those inside functions too; not those for type checkers alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (target if target in known else node.module for target in targets)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    known = modules()
    return {name: {other for other in imports(name, file, known) if other in known} for name, file in known.items()}


def layer(module: str) -> int:
    return next(i for i, name in enumerate(LAYERS) if module == name or module.startswith(f"{name}."))


def test_imports_run_one_way(arrows: dict[str, set[str]]) -> None:
    known = {name for name in arrows if name != "pipeline"}
    upward = [(name, other) for name in known for other in arrows[name] & known if layer(other) > layer(name)]
    assert sorted(upward) == []


def test_no_module_imports_itself_through_others(arrows: dict[str, set[str]]) -> None:
    """A package's face is part of each import below it, so it counts like any module."""
    finished: set[str] = set()

    def walk(name: str, path: list[str]) -> None:
        assert name not in path, f"a circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in finished:
            for other in sorted(arrows[name]):
                walk(other, [*path, name])
            finished.add(name)

    for name in sorted(arrows):
        walk(name, [])


def test_a_stage_takes_from_another_only_what_describes_it(arrows: dict[str, set[str]]) -> None:
    def stage(module: str) -> str:
        return module.split(".")[1] if module.count(".") else ""

    crossing = [
        (name, other)
        for name, others in arrows.items()
        for other in others
        if name.startswith("stages.") and other.startswith("stages.") and stage(other) not in (*STAGES, stage(name))
        if other.rpartition(".")[2] not in DESCRIBES
    ]
    assert sorted(crossing) == []


def test_the_harness_stands_on_nothing_that_computes(arrows: dict[str, set[str]]) -> None:
    """What no key holds must not import what keys hold, or it would carry results past them."""
    harness = {name: others for name, others in arrows.items() if ".harness" in name}
    assert {other for others in harness.values() for other in others if "harness" not in other} <= {
        "evaluation.engines.base"
    }


def test_no_folder_and_no_file_is_too_large() -> None:
    folders = Counter(path.parent for path in tracked())
    assert {str(folder): count for folder, count in folders.items() if count > MOST_FILES} == {}
    lines = {str(path): (ROOT / path).read_text("utf-8").count("\n") for path in tracked() if path.suffix == ".py"}
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}
