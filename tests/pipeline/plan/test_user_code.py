"""What belongs to a custom reward or method beside its own file: found without running it, and part of the key."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.errors import ConfigError
from pipeline.plan.user_code import UserCode, user_code
from stages.harness.declaration import CustomCode
from tests.pipeline.helpers import make, plan


@pytest.fixture
def lib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of PYTHONPATH, apart from the custom file."""
    folder = tmp_path / "lib"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def write(folder: Path, *names: str, **files: str) -> None:
    """Modules: empty ones by their path, others by their name and text."""
    for name, text in {**dict.fromkeys(names, ""), **files}.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def found(tmp_path: Path, source: str) -> UserCode:
    file = tmp_path / "own.py"
    file.write_text(source)
    code = CustomCode("sft.method", str(file), "Weights", "class_name", "class", {}, 1, "docs/methods.md")
    return user_code(code, ("torch",))


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import curve", {"curve": "curve"}),
        ("import curve as c", {"curve": "curve"}),
        ("from curve import factor", {"curve": "curve"}),
        ("from curve import *", {"curve": "curve"}),
        ("def weigh():\n    import curve", {"curve": "curve"}),
        ("try:\n    import curve\nexcept ImportError:\n    curve = None", {"curve": "curve"}),
        ("import importlib\ncurve = importlib.import_module('curve')", {"curve": "curve"}),
        ("curve = __import__('curve')", {"curve": "curve"}),
        ("import first", {"first": "first", "curve": "curve"}),
        ("import package", {"package": "package/__init__"}),
        ("from package import part", {"package": "package/__init__", "package.part": "package/part"}),
        ("import package.part", {"package": "package/__init__", "package.part": "package/part"}),
        (
            "from package.uses import part",
            {"package": "package/__init__", "package.part": "package/part", "package.uses": "package/uses"},
        ),
        ("import space.inner.leaf", {"space.inner.leaf": "space/inner/leaf"}),
        ("from round_a import x", {"round_a": "round_a", "round_b": "round_b"}),
        ("import json, os.path, torch, stages.sft.reweighting.base, nowhere_at_all", {}),
    ],
)
def test_modules_are_followed_wherever_they_are_imported(
    tmp_path: Path, lib: Path, source: str, modules: dict[str, str]
) -> None:
    write(lib, "package/__init__", "package/part", "space/inner/leaf", curve="1 / 0  # never run")
    (lib / "package" / "uses.py").write_text("from . import part")
    write(lib, first="from curve import factor", round_a="import round_b", round_b="import round_a")
    assert found(tmp_path, source).modules == {name: lib / f"{file}.py" for name, file in modules.items()}


def test_what_lies_beside_the_file_is_found_after_the_path(tmp_path: Path, lib: Path) -> None:
    write(tmp_path, "curve", "beside")
    write(lib, "curve")
    assert found(tmp_path, "import curve, beside").modules == {
        "curve": lib / "curve.py",
        "beside": tmp_path / "beside.py",
    }


def test_a_library_counts_by_its_version_and_what_is_ours_by_its_code(tmp_path: Path) -> None:
    code = found(tmp_path, "import numpy.linalg, yaml, torch\nfrom evaluation.graders import maths")
    assert (code.modules, code.distributions) == ({}, {"numpy", "PyYAML"})
    assert "evaluation.graders.maths" in code.ours


def installed(folder: Path, url: str | None) -> None:
    write(folder, "focal_lib/curve", "focal_lib/__init__")
    info = folder / "focal_lib-0.1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: focal-lib\nVersion: 0.1\n")
    (info / "top_level.txt").write_text("focal_lib\n")
    if url is not None:
        (info / "direct_url.json").write_text(json.dumps({"url": url, "dir_info": {}}))


@pytest.mark.parametrize("url", [None, "file:///somewhere/focal-lib"])
def test_an_installed_package_counts_by_its_version_only_if_it_came_from_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str | None
) -> None:
    """`pip install .` after an edit leaves name and version as they were."""
    site = tmp_path / "site-packages"
    installed(site, url)
    monkeypatch.syspath_prepend(str(tmp_path / "first"))
    monkeypatch.setattr(sys, "path", [sys.path[0], str(site), *sys.path[1:]])
    monkeypatch.setattr("pipeline.plan.user_code._site_packages", lambda: [str(site)])
    code = found(tmp_path, "from focal_lib.curve import x")
    assert code.distributions == (frozenset() if url else {"focal-lib"})
    assert set(code.modules) == ({"focal_lib", "focal_lib.curve"} if url else set())
    assert importlib.metadata.version("focal-lib") == "0.1"


def test_a_package_that_is_installed_editable_is_followed_through_its_finder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.util import spec_from_file_location

    source = tmp_path / "checkout" / "src"
    write(source, "editable_lib/__init__", "editable_lib/curve")  # a name that no other test leaves on sys.path

    class Finder:
        @classmethod
        def find_spec(cls, name: str, path: object = None, target: object = None) -> object:
            file = source / name / "__init__.py"
            return spec_from_file_location(name, file) if name == "editable_lib" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert set(found(tmp_path, "import editable_lib.curve").modules) == {"editable_lib", "editable_lib.curve"}


SETTINGS = ("sft.method={{name: custom, file: {file}}}", "grpo.rewards={{correct: 1.0, custom: [{{file: {file}}}]}}")


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("edited", ["curve.py", "table.json", "deep.json"])
def test_an_edit_of_what_a_custom_file_imports_or_reads_reruns_its_stage(
    tmp_path: Path, lib: Path, setting: str, edited: str
) -> None:
    file = tmp_path / "own.py"
    file.write_text('import curve\nREADS = ["lib/table.json"]\n')
    write(lib, curve='READS: list[str] = ["deep.json"]\n')
    (lib / "table.json").write_text("{}")
    (lib / "deep.json").write_text("{}")
    override = setting.format(file=file)
    make(tmp_path, override)
    stage = override.partition(".")[0]
    assert plan(tmp_path, override)[stage].state == "HIT"
    (lib / edited).write_text((lib / edited).read_text() + "\n")
    changed = plan(tmp_path, override)[stage]
    assert changed.state == "RUN"
    assert changed.reason.endswith(f": {edited.removesuffix('.py').replace('table', 'lib/table')} changed")


@pytest.mark.parametrize(
    ("source", "noted"),
    [
        ("table = open('table.json').read()", True),
        ("def reward():\n    return json.loads(Path('t.json').read_text())", True),
        ("READS = ['own.py']\ntable = open('own.py').read()", False),
        ("READS = []\nlog = open('log', 'w')", False),
        ("import json\ndef reward(texts):\n    return [json.loads(text) for text in texts]", False),
        ("import numpy\ntable = numpy.load('t.npy')", True),
        ("import pandas as pd\ndef weights():\n    return pd.read_parquet('w.parquet')", True),
        ("model = AutoModel.from_pretrained('judge')", True),
    ],
)
def test_files_that_are_read_and_not_listed_are_noted(tmp_path: Path, source: str, noted: bool) -> None:
    file = tmp_path / "own.py"
    file.write_text(source)
    notes = plan(tmp_path, SETTINGS[0].format(file=file))["sft"].notes
    advice = "an edit of these reruns nothing unless READS lists them (docs/keys.md)"
    assert notes == ((f"{file} seems to read files; {advice}",) if noted else ())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("READS = open('list').read()", "own.py:1: READS is no list of file names"),
        ("READS = 'table.json'", "own.py:1: READS is no list of file names"),
        ("READS: list[str]", "own.py:1: READS is no list of file names"),
        ("from . import curve", "own.py has a relative import and is part of no package"),
        ("import broken", "broken.py:2 is not Python: "),
    ],
)
def test_what_cannot_be_followed_is_said(tmp_path: Path, lib: Path, source: str, message: str) -> None:
    write(lib, broken="\ndef f(:\n")
    with pytest.raises(ConfigError, match=r"sft.method.file") as caught:
        found(tmp_path, source)
    assert message in str(caught.value)


def test_a_file_that_is_listed_and_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text('READS = ["table.json"]')
    with pytest.raises(
        ConfigError, match=r"sft.method.file: table.json: file .*table.json does not exist\nPaths in READS"
    ):
        plan(tmp_path, SETTINGS[0].format(file=tmp_path / "own.py"))


def test_the_folder_that_vcore_is_called_in_is_not_on_the_path_of_a_stage(tmp_path: Path, lib: Path) -> None:
    write(tmp_path / "here", "curve")
    write(lib, "curve")
    (tmp_path / "own.py").write_text("import curve")
    program = (
        "from pipeline.plan.user_code import user_code; from stages.harness.declaration import CustomCode\n"
        f"code = CustomCode('sft.method', {str(tmp_path / 'own.py')!r}, 'W', 'class_name', 'class', {{}}, 1, '')\n"
        "print(user_code(code, ()).modules['curve'])"
    )
    root = Path(__file__).resolve().parents[3]
    environment = {"PYTHONPATH": f"{root}:{lib}", "PATH": ""}
    command = [sys.executable, "-c", program]
    printed = subprocess.run(
        command, cwd=tmp_path / "here", env=environment, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == str(lib / "curve.py")
