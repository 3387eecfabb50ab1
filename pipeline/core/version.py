"""Which code runs: its version and its commit.

Of a checkout git is asked, each time: what is installed beside an editable checkout says what was there at its
installation. A wheel has both in its version (0.2.1.dev71+g5a79e33b1). No key holds either: keys hold the files that
compute (docs/keys.md).
"""

import dataclasses
import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from pipeline.core.shipped import DISTRIBUTION, ROOT

TAGS = "v*[0-9]*.*[0-9]*"
"""What setuptools-scm takes for a release by the settings in pyproject.toml."""


@dataclasses.dataclass(frozen=True)
class OwnCode:
    """The code of this project that runs."""

    version: str
    """As the package is versioned, without a commit: 0.2.0, or 0.2.1.dev71 for the 71st commit after it; `unknown`
    where nothing says it."""
    commit: str | None
    """Of a checkout all its digits, of a wheel the first nine or ten; None where nothing says it."""
    dirty: bool | None
    """Whether the files differed from the commit, of a wheel when it was built; None where nothing says it."""

    def __str__(self) -> str:
        """`0.2.1.dev71 (commit 5a79e33b1c2d, with uncommitted changes)`"""
        if self.commit is None:
            return f"{self.version} (commit unknown)" if ".dev" in self.version else self.version
        return f"{self.version} (commit {self.commit[:12]}{', with uncommitted changes' if self.dirty else ''})"

    @property
    def release(self) -> str:
        """The version without its count of commits, for records that have the commit beside it: 0.2.1.dev0."""
        return re.sub(r"\.dev\d+$", ".dev0", self.version)


def own_code() -> OwnCode:
    """What runs in this process: the checkout that this file is in, or else what is installed."""
    project = _checkout()
    if project is None:
        return _installed() or OwnCode("unknown", None, None)
    fallback = str(project["tool"]["setuptools_scm"]["fallback_version"])
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != ROOT:  # somebody else's repository around it says nothing of this code
        built = _installed(ROOT)
        # What a folder without git holds may have been edited since it was installed.
        return OwnCode(fallback, None, None) if built is None else dataclasses.replace(built, dirty=None)
    status = _git("status", "--porcelain")
    dirty = bool(status) if status is not None else None
    return OwnCode(_version_by_git(fallback), _git("rev-parse", "HEAD"), dirty)


def _checkout() -> dict[str, Any] | None:
    """The checkout's own pyproject.toml; None for an installed package, and for another project's file beside it."""
    file = ROOT / "pyproject.toml"
    content = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content if content.get("project", {}).get("name") == DISTRIBUTION else None


def _version_by_git(fallback: str) -> str:
    """As setuptools-scm would version a package built now, without the commit: its schemes `guess-next-dev`, which
    raises the last number, and `no-local-version`."""
    from packaging.version import InvalidVersion, Version

    described = _git("describe", "--tags", "--long", "--dirty", "--match", TAGS)
    tag = re.fullmatch(r"v(?P<version>.+)-(?P<distance>\d+)-g\w+?(?P<dirty>-dirty)?", described or "")
    try:
        version = Version(tag["version"] if tag else fallback).public
    except InvalidVersion:
        return "unknown"
    if tag and tag["distance"] == "0" and not tag["dirty"]:
        return version
    following = re.sub(r"\d+$", lambda last: str(int(last[0]) + 1), version)
    if version.endswith(".dev0"):
        following = version.removesuffix(".dev0")
    return f"{following}.dev{tag['distance'] if tag else _git('rev-list', '--count', 'HEAD') or 0}"


def _installed(source: Path | None = None) -> OwnCode | None:
    """What the installed distribution says of itself; None where there is none, or none made from `source`."""
    try:
        distribution = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return None
    if source is not None and source.as_uri() not in (distribution.read_text("direct_url.json") or ""):
        return None
    version, _, local = distribution.version.partition("+")
    commit = re.search(r"(?:^|\.)g([0-9a-f]{7,40})(?:\.|$)", local)
    edited = re.search(r"(?:^|\.)d\d{8}(?:\.|$)", local) is not None
    return OwnCode(version, commit[1] if commit else None, edited if commit else None)


def _git(*arguments: str) -> str | None:
    """What git prints about this project's folder; None where it fails or is missing."""
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
