"""A problem in the form of DMOJ's judge: a folder with `init.yml` and, as plain files or in an archive, its cases.

What of `init.yml` decides a verdict is read as judge-server (commit f098cd3) reads it, and the rest ignored, as there.
A problem that is judged in another way than by comparing outputs is not read: `NotGraded` says why.
"""

import lzma
import math
import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluation.graders.programs.tests import LONGEST_CASE, LONGEST_OUTPUT
from evaluation.records import RecordError

OTHER_JUDGES = {
    "custom_judge": "a judge of its own (custom_judge)",
    "signature_grader": "functions that are linked to its own program (signature_grader)",
    "interactive": "a program that talks to the solution (interactive)",
    "generator": "inputs that a program makes (generator)",
    "symlinks": "links to further files (symlinks)",
}
"""Keys of init.yml -> what they ask of a judge that this one does not do."""
PLAIN = ("identical", "linecount")
"""Checkers with arguments that decide nothing."""
POINTER = b"version https://git-lfs"
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(ValueError, OverflowError),  # offsets and lengths that are none
    RuntimeError,  # encrypted; NotImplementedError, one of these: packed in a way that it does not know
)
"""What zipfile raises for an archive that is damaged, encrypted or packed in a way of its own."""


class NotGraded(Exception):
    """A problem that cannot be graded here; the message is the reason."""


class DmojProblem:
    """The problem in a folder.

    Raises:
        NotGraded: it is judged in a way that this project does not have.
        RecordError: there is no such folder, or it is not as it should be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._archive = folder, None
        self._settings = _settings(folder / "init.yml")
        _refuse_other_judges(self._settings)
        archive = self._settings.get("archive")
        if archive:
            self._archive = _opened(folder / self._inside(archive, "archive"))
        if self._settings.get("pretest_test_cases"):
            self._cases = [*self._tests("pretest_test_cases"), *self._tests("test_cases")]
        else:
            self._cases = self._tests("test_cases")
        for case in self._cases:
            if "batched" in case:
                raise NotGraded("its cases come in batches (batched)")
            _refuse_other_judges(case)
        common = self._settings.get("checker") or "standard"
        checkers = [_rule(case.get("checker") or common, folder) for case in self._cases]
        if any(checker != checkers[0] for checker in checkers):
            raise NotGraded("its cases have different checkers")
        self.rules: dict[str, Any] = checkers[0]
        """How outputs are compared, as tests by cases have it."""

    def _tests(self, name: str) -> list[dict[str, Any]]:
        tests, where = self._settings.get(name), self._folder / "init.yml"
        if tests is None or isinstance(tests, Mapping):
            raise NotGraded(f"its cases are found by their names ({name} is no list)")
        if not isinstance(tests, list):
            raise RecordError(f"{where}: {name} is {tests!r:.40}, not a list of cases")
        if not tests:
            raise RecordError(f"{where}: no {name}")
        for number, case in enumerate(tests, start=1):
            if not isinstance(case, dict):
                raise RecordError(f"{where}: {name}, case {number} is {case!r:.40}, not a mapping with in and out")
        return tests

    def _inside(self, name: Any, what: str) -> str:
        """A name that init.yml gives, of a file below the folder or in the archive. The name is looked at and not where
        a link leads: in the hub's cache every file is a link out of its folder."""
        if not isinstance(name, str) or "\0" in name:
            raise RecordError(f"{self._folder}: {what} is {name!r:.40}, not the name of a file")
        normal = posixpath.normpath(name)
        if posixpath.isabs(normal) or normal.split("/")[0] in ("..", "."):
            raise RecordError(f"{self._folder}: {what}: {name} lies outside the folder")
        return name

    def cases(self) -> Iterator[dict[str, str]]:
        """Input and output of each case, one at a time; line ends are line feeds, and the last line has one."""
        for number, case in enumerate(self._cases, start=1):
            binary = case.get("binary_data", self._settings.get("binary_data", False))
            if not case.get("in") and not case.get("out"):
                raise NotGraded(f"case {number} has neither in nor out")
            texts = [self._text(case, name, number, binary=bool(binary)) for name in ("in", "out")]
            if sum(map(len, texts)) > LONGEST_CASE or len(texts[1].encode()) > LONGEST_OUTPUT:
                raise NotGraded(
                    f"case {number} is too long: {' and '.join(f'{len(text):,}' for text in texts)} characters"
                )
            yield {"input": texts[0], "output": texts[1]}

    def _text(self, case: Mapping[str, Any], which: str, number: int, *, binary: bool) -> str:
        if not case.get(which):
            return ""
        name = self._inside(case[which], which)
        data = self._data(name, number)
        if not binary and data:
            data = re.sub(rb"\r\n?", b"\n", data) if b"\r" in data else data
            data = data if data.endswith(b"\n") else data + b"\n"
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise NotGraded(f"case {number} is not text in UTF-8 ({name})") from error

    def _data(self, name: str, number: int) -> bytes:
        """The bytes of a file. Its length is looked at first, so that no memory is taken for what is not graded."""
        file = self._folder / name
        try:
            if file.is_file():
                _check_length(file.stat().st_size, name, number)
                return _whole(file.read_bytes(), file)
        except OSError as error:  # a name that is too long, or no right to read
            raise RecordError(f"{self._folder}: {name} cannot be read: {error}") from error
        try:
            if self._archive is None:
                raise KeyError(name)
            _check_length(self._archive.getinfo(name).file_size, name, number)
            return self._archive.read(name)
        except KeyError:
            raise RecordError(f"{self._folder}: there is no {name}, which init.yml names") from None
        except DAMAGED as error:
            raise RecordError(f"{self._folder}: {name} cannot be read from the archive: {error}") from error


def _check_length(size: int, name: str, number: int) -> None:
    if size > LONGEST_CASE:
        raise NotGraded(f"case {number} is too long: {size:,} bytes ({name})")


def _settings(file: Path) -> dict[str, Any]:
    import yaml

    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{file} does not exist") from None
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, a day that there is not
        raise RecordError(f"{file}: no YAML: {error}") from error
    if not isinstance(settings, dict):
        raise RecordError(f"{file}: expected a mapping, found {type(settings).__name__}")
    return settings


def _refuse_other_judges(settings: Mapping[str, Any]) -> None:
    for key, what in OTHER_JUDGES.items():
        if settings.get(key):
            raise NotGraded(f"it needs {what}")


def _opened(file: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except FileNotFoundError:
        raise RecordError(f"{file} does not exist") from None
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error}") from error
    except DAMAGED as error:
        with open(file, "rb") as opened:
            _whole(opened.read(len(POINTER)), file)
        raise RecordError(f"{file}: no zip archive: {error}") from error


def _whole(data: bytes, file: Path) -> bytes:
    if data.startswith(POINTER):
        raise RecordError(f"{file} is a pointer of Git LFS, not the file: `git lfs pull` fetches it")
    return data


def _rule(checker: Any, folder: Path) -> dict[str, Any]:
    """A checker as a rule of comparison."""
    name, given = checker, None
    if isinstance(checker, Mapping):
        name, given = checker.get("name"), checker.get("args")
    given = given or {}
    if not isinstance(given, Mapping):
        raise RecordError(f"{folder / 'init.yml'}: the checker's args are {given!r:.40}, not a mapping")
    if name in ("standard", "easy", "unordered") or name in PLAIN:
        return {"comparison": f"dmoj_{name}"}
    if name in ("floats", "floatsabs", "floatsrel"):
        mode = given.get("error_mode", "default") if name == "floats" else name
        rule = {"default": "floats", "absolute": "floatsabs", "relative": "floatsrel"}.get(str(mode), mode)
        if rule in ("floats", "floatsabs", "floatsrel"):
            return {"comparison": f"dmoj_{rule}", "tolerance": _tolerance(given.get("precision", 6))}
    if name == "rstripped":
        return {"comparison": "dmoj_rstripped_filled" if given.get("filter_new_line") else "dmoj_rstripped"}
    if name == "sorted" and (split := given.get("split_on", "lines")) in ("lines", "whitespace"):
        return {"comparison": "dmoj_sorted" if split == "lines" else "dmoj_unordered"}
    shown = f"{name} with {given}" if given else name
    raise NotGraded(f"its checker is not supported: {shown}")


def _tolerance(precision: Any) -> float:
    try:
        tolerance = 10.0 ** -int(precision)
    except (TypeError, ValueError, OverflowError) as error:
        raise NotGraded(f"its checker has the precision {precision!r:.40}") from error
    if not 0 < tolerance < math.inf:
        raise NotGraded(f"its checker has the precision {precision!r:.40}")
    return tolerance
