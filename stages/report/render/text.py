"""Numbers and names as the reports print them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.statistics import SIGNIFICANCE

NONE = "–"
"""Stands where there is no value."""
FEW = 3


def percent(value: float) -> str:
    """`43.0 %`"""
    return f"{100 * value:.1f} %"


def interval(low: float, high: float) -> str:
    """`[38.7, 47.4]`, in per cent. Cut at 0 and 100, which a t interval of few seeds does not know of."""
    return f"[{100 * max(0.0, low):.1f}, {100 * min(1.0, high):.1f}]"


def points(difference: float, low: float | None, high: float | None) -> str:
    """`+45.8 [+41.0, +50.4]`, in percentage points; without the interval where there is none."""
    bounds = f" [{_signed(low)}, {_signed(high)}]" if low is not None and high is not None else ""
    return f"{_signed(difference)}{bounds}"


def _signed(value: float) -> str:
    shown = f"{100 * value:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown


def tokens(count: float) -> str:
    """`1.30 M`, `12.0 k`; a dash for none."""
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count / 1e3:.1f} k" if count else NONE


def hours(gpu_hours: float) -> str:
    """`0`, `0.012`, `3.4`"""
    return "0" if not gpu_hours else f"{gpu_hours:.2g}" if gpu_hours < 1 else f"{gpu_hours:.1f}"


def origin(entry: Mapping[str, str]) -> str:
    """What a stage read from outside: `Qwen/Qwen3-0.6B at commit 0123456789ab`, or `sha256 0123456789ab` of a file."""
    return f"{entry['hub']} at commit {entry['commit'][:12]}" if "hub" in entry else f"sha256 {entry['sha256'][:12]}"


def by_chance(comparisons: int) -> str:
    """What so many tests amount to even if nothing differs; empty for few, of which one may obviously be chance."""
    if comparisons < FEW:
        return ""
    expected = f"about {comparisons * SIGNIFICANCE:.1f} of them would seem to"
    return f"{comparisons} comparisons were made at the 5 % level, uncorrected: even if nothing differed, {expected}."


def listed(items: list[str]) -> str:
    """`a, b and c`"""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def versions(environments: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """Library -> the different versions that the environments have of it, in their order; libraries sorted."""
    out: dict[str, dict[str, None]] = {}
    for environment in environments:
        for library, version in environment.items():
            out.setdefault(library, {})[version] = None
    return {library: list(out[library]) for library in sorted(out)}


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as `lora.rank: 8`, empty ones left out and digests shortened."""
    if isinstance(value, dict):
        names = {name: f"{prefix}.{name}" if prefix else name for name in value}
        return {k: v for name, item in value.items() for k, v in flat(item, names[name]).items()}
    if value in (None, [], ""):
        return {}
    return {prefix: str(value)[:12] if prefix.endswith("sha256") else str(value)}


def shorten(text: str, limit: int) -> str:
    """The text, or its beginning and end with a note of how many characters are left out between them."""
    if len(text) <= limit:
        return text
    head, tail = limit - limit // 2, limit // 2
    return f"{text[:head]}\n[... {len(text) - limit:,} characters left out ...]\n{text[len(text) - tail :]}"


def fence(text: str) -> str:
    """A Markdown code block that no backticks inside the text can end."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}text\n{text}\n{ticks}"


def inline(text: object) -> str:
    """Text for one line or table cell of Markdown, in which nothing is markup."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]|~>#])", r"\\\1", line)
