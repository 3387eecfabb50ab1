"""A problem in the form of DMOJ's judge: a folder with `init.yml` and, as plain files or in an archive, its cases.

What of `init.yml` decides a verdict is read as judge-server (commit f098cd3) reads it, and the rest ignored, as there.
A problem that is judged in another way than by comparing outputs is not read: `NotGraded` says why.
"""

import re
import zipfile
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
            self._archive = _opened(folder / str(archive))
        tests = [*(self._settings.get("pretest_test_cases") or []), *self._tests()]
        self._cases = [case if isinstance(case, dict) else {} for case in tests]
        for case in self._cases:
            if "batched" in case:
                raise NotGraded("its cases come in batches (batched)")
            _refuse_other_judges(case)
        checkers = [_rule(case.get("checker") or self._settings.get("checker") or "standard") for case in self._cases]
        if any(checker != checkers[0] for checker in checkers):
            raise NotGraded("its cases have different checkers")
        self.rules: dict[str, Any] = checkers[0]
        """How outputs are compared, as tests by cases have it."""

    def _tests(self) -> list[Any]:
        tests = self._settings.get("test_cases")
        if not isinstance(tests, list):
            raise NotGraded("its cases are found by their names (test_cases is no list)")
        if not tests:
            raise RecordError(f"{self._folder / 'init.yml'}: no test_cases")
        return tests

    def cases(self) -> Iterator[dict[str, str]]:
        """Input and output of each case, one at a time; line ends are line feeds, and the last line has one."""
        for number, case in enumerate(self._cases, start=1):
            binary = case.get("binary_data", self._settings.get("binary_data", False))
            texts = [self._text(case.get(name), number, binary=bool(binary)) for name in ("in", "out")]
            if sum(map(len, texts)) > LONGEST_CASE or len(texts[1].encode()) > LONGEST_OUTPUT:
                raise NotGraded(
                    f"case {number} is too long: {' and '.join(f'{len(text):,}' for text in texts)} characters"
                )
            yield {"input": texts[0], "output": texts[1]}

    def _text(self, name: Any, number: int, *, binary: bool) -> str:
        if not name:
            return ""
        data = self._data(str(name))
        if not binary and data:
            data = re.sub(rb"\r\n?", b"\n", data) if b"\r" in data else data
            data = data if data.endswith(b"\n") else data + b"\n"
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise NotGraded(f"case {number} is not text in UTF-8 ({name})") from error

    def _data(self, name: str) -> bytes:
        file = self._folder / name
        if file.is_file():
            if not file.resolve().is_relative_to(self._folder.resolve()):
                raise RecordError(f"{self._folder}: {name} lies outside the folder")
            return _whole(file.read_bytes(), file)
        try:
            if self._archive is None:
                raise KeyError(name)
            return self._archive.read(name)
        except KeyError:
            raise RecordError(f"{self._folder}: there is no {name}, which init.yml names") from None
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise RecordError(f"{self._folder}: {name} cannot be read from the archive: {error}") from error


def _settings(file: Path) -> dict[str, Any]:
    import yaml

    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{file} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
    except zipfile.BadZipFile as error:
        with open(file, "rb") as opened:
            _whole(opened.read(len(POINTER)), file)
        raise RecordError(f"{file}: no zip archive: {error}") from error


def _whole(data: bytes, file: Path) -> bytes:
    if data.startswith(POINTER):
        raise RecordError(f"{file} is a pointer of Git LFS, not the file: `git lfs pull` fetches it")
    return data


def _rule(checker: Any) -> dict[str, Any]:
    """A checker as a rule of comparison."""
    name, given = checker, {}
    if isinstance(checker, Mapping):
        name, given = checker.get("name"), dict(checker.get("args") or {})
    if name in ("standard", "easy", "unordered") or name in PLAIN:
        return {"comparison": f"dmoj_{name}"}
    if name in ("floats", "floatsabs", "floatsrel"):
        mode = given.get("error_mode", "default") if name == "floats" else name
        rule = {"default": "floats", "absolute": "floatsabs", "relative": "floatsrel"}.get(mode, mode)
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
        return float(10 ** -int(precision))
    except (TypeError, ValueError) as error:
        raise NotGraded(f"its checker has the precision {precision!r:.40}") from error
