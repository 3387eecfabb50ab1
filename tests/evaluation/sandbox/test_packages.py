"""Packages that programs may import: those named, with what they need, and nothing else; no state in common."""

import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.sandbox import Job, Sandbox, SandboxError, UnknownPackage, find_packages
from evaluation.sandbox.packages import ONE_THREAD
from tests.evaluation.sandbox.cases import KINDS, run, sandbox_of_kind, value_of
from tests.evaluation.sandbox.test_call_filter import REFUSED
from tests.evaluation.sandbox.test_file_rules import REACHES

NUMPY = "import numpy as np\n"


@pytest.fixture(scope="module", params=KINDS)
def with_numpy(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with sandbox_of_kind(request.param, ["numpy"]) as shared:
        yield shared


@pytest.mark.parametrize("kind", KINDS)
def test_an_environment_below_tmp_is_shown_read_only(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where programs have a /tmp of their own, which is writable around it."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        (place / "tiny_lib").mkdir()
        (place / "tiny_lib" / "__init__.py").write_text("ANSWER = 42\n")
        metadata = place / "tiny_lib-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-lib\nVersion: 1.0\n")
        (metadata / "RECORD").write_text("tiny_lib/__init__.py,,\ntiny_lib-1.0.dist-info/METADATA,,\n")
        place.chmod(0o755)
        monkeypatch.syspath_prepend(str(place))
        with sandbox_of_kind(kind, ["tiny-lib"]) as shared:
            assert value_of(shared, "import tiny_lib", "tiny_lib.ANSWER") == 42
            if kind == "namespaces" or shared.ruled:
                write = f"def f(): open({str(place / 'tiny_lib' / '__init__.py')!r}, 'a')"
                assert run(shared, write).status == "raised"
            if kind == "namespaces":
                assert value_of(shared, "def f():\n    open('/tmp/own', 'w').write('x')\n    return 1", "f()") == 1
    finally:
        shutil.rmtree(place)


def test_a_named_package_works_and_its_scalars_are_plain_values(with_numpy: Sandbox) -> None:
    values = "[np.int64(3), np.float32(0.5), np.bool_(True), np.uint8([7])[0], np.linalg.inv(2 * np.eye(2)).tolist()]"
    assert value_of(with_numpy, NUMPY, values) == [3, 0.5, True, 7, [[0.5, 0.0], [0.0, 0.5]]]
    version = importlib.metadata.version("numpy")
    assert value_of(with_numpy, "import numpy.testing, importlib.metadata as m", "m.version('numpy')") == version
    assert run(with_numpy, f"{NUMPY}def f(): return np.arange(3)").texts == ['["?"]']


@pytest.mark.parametrize("other", ["torch", "pydantic", "evaluation"])
def test_other_packages_of_the_environment_are_not_there(with_numpy: Sandbox, other: str) -> None:
    assert run(with_numpy, f"def f(): import {other}").detail == f"ModuleNotFoundError: No module named '{other}'"


def test_a_program_changes_numpy_for_no_other(with_numpy: Sandbox) -> None:
    change = (
        f"{NUMPY}np.pi = 4\nnp.random.seed(1)\nnp.seterr(all='raise')\nnp.set_printoptions(precision=1)\n"
        "np.add = np.sum = None\nnp.ndarray = list\nnp.left_behind = 1\nimport numpy.linalg\nnumpy.linalg.inv = None\n"
    )
    look = (
        "[np.pi, np.geterr()['divide'], np.get_printoptions()['precision'], int(np.add(1, 2)), hasattr(np, "
        "'left_behind'), callable(np.linalg.inv), np.ndarray is type(np.zeros(1)), float(np.random.rand())]"
    )
    before = value_of(with_numpy, NUMPY, look)
    for _ in range(2):  # the same process serves all of them: they are run one after the other
        assert run(with_numpy, f"{change}def f(): return np.pi").values == [4]
        after = value_of(with_numpy, NUMPY, look)
        assert isinstance(before, list)
        assert isinstance(after, list)
        assert after[:-1] == before[:-1] == [pytest.approx(3.14159, abs=1e-5), "warn", 8, 3, False, True, True]
        assert after[-1] != before[-1]  # a generator that is seeded afresh, not one that all were forked with


def test_random_numbers_differ_where_their_module_was_loaded_before() -> None:
    """pandas loads numpy.random, so that every program is forked with one state of its generator."""
    with Sandbox(level="rlimits", packages=["pandas"]) as sandbox:
        loaded = "import sys\nassert 'numpy.random' in sys.modules\n"
        drawn = {str(value_of(sandbox, loaded + NUMPY, "float(np.random.rand())")) for _ in range(3)}
    assert len(drawn) == 3


def test_numpy_computes_in_one_thread(with_numpy: Sandbox) -> None:
    """The filter lets threads be, so BLAS is told; a process with threads of its own could not be forked safely."""
    assert value_of(with_numpy, "import os", f"[os.environ[name] for name in {ONE_THREAD}]") == ["1"] * len(ONE_THREAD)
    if with_numpy.level == "rlimits" and not with_numpy.ruled:  # who can see what it is
        source = f"{NUMPY}import os\na = np.ones((300, 300))\na = a @ a\nnp.linalg.inv(a + np.eye(300))"
        assert value_of(with_numpy, source, "len(os.listdir('/proc/self/task'))") == 1


ATTEMPTS = (
    f"{NUMPY}import ctypes, os, socket, sys\nPAIR = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
    "libc = ctypes.CDLL(None, use_errno=True)\ndef call(*arguments):\n"
    "    result = libc.syscall(*arguments)\n    number = ctypes.get_errno()\n"
    "    if result < 0: raise OSError(number, os.strerror(number))\n    return result\n"
    "def attempt(act):\n    try: act()\n    except OSError as error: return type(error).__name__\n"
)


def test_files_are_as_far_as_without(with_numpy: Sandbox, tmp_path: Path) -> None:
    if not with_numpy.ruled:
        pytest.skip("NOT TESTED: no rules on files here")
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    source = f"{ATTEMPTS}SECRET, GRADER = {str(secret)!r}, os.getppid()\n"
    expressions = [f"attempt(lambda: {reach})" for reach in REACHES if "os.kill" not in reach]
    reached = with_numpy.run(Job([source], expressions), 5.0).values
    assert len(reached) == len(expressions)
    assert None not in reached, dict(zip(expressions, reached, strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert secret.read_text() == "s3cret"


def test_the_folder_that_packages_lie_in_is_not_shown(with_numpy: Sandbox) -> None:
    [folder] = {str(Path(path).parent) for path in with_numpy.packages.paths}
    write = f"def f(): open({folder + '/numpy/__init__.py'!r}, 'a')"
    if with_numpy.ruled:
        assert run(with_numpy, write).status == "raised"
        others = run(with_numpy, f"import os\ndef f(): return os.listdir({folder!r})")
        shown = {Path(path).name for path in with_numpy.packages.paths}
        assert others.status == "raised" or set(others.values[0]) == shown


def test_the_filter_is_as_strict_as_without(with_numpy: Sandbox) -> None:
    if not with_numpy.filtered:
        pytest.skip("NOT TESTED: no filter of system calls on this machine")
    refused = with_numpy.run(Job([ATTEMPTS], [f"attempt(lambda: {attack})" for attack in REFUSED.values()]), 5.0).values
    assert dict(zip(REFUSED, refused, strict=True)) == dict.fromkeys(REFUSED, "PermissionError")


def test_what_is_not_installed_is_refused() -> None:
    with pytest.raises(UnknownPackage, match=r"^no-such-package is not installed here$"):
        find_packages(["numpy", "no-such-package"])


def test_what_a_package_declares_comes_with_it() -> None:
    found = find_packages(["pandas"])
    assert {"pandas", "numpy", "python-dateutil", "six"} <= found.versions.keys()
    assert found.versions["numpy"] == importlib.metadata.version("numpy")
    assert found.loaded == ("pandas",)
    assert {"pandas", "numpy", "dateutil", "six"} <= found.modules.keys()
    assert any(path.endswith("/numpy.libs") for path in find_packages(["numpy"]).paths)


def test_a_package_that_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, source in (("broken", "import nothing_of_that_name"), ("threaded", THREADED)):
        (tmp_path / f"{name}.py").write_text(source)
        (tmp_path / f"{name}-1.0.dist-info").mkdir()
        (tmp_path / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
        (tmp_path / f"{name}-1.0.dist-info" / "RECORD").write_text(f"{name}.py,,\n{name}-1.0.dist-info/METADATA,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SandboxError, match=r"package broken cannot be loaded: ModuleNotFoundError: .*nothing_of"):
        Sandbox(packages=["broken"])
    with pytest.raises(SandboxError, match="package threaded starts threads"):
        Sandbox(packages=["threaded"])


THREADED = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
