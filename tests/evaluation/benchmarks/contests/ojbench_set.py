"""A set in the form of OJBench's repository, of problems made for tests."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

CPP = '#include <cstdio>\nint main() { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }'
PYTHON = "def main():\n    a, b = map(int, input().split())\n    print(a + b)\n"
CASES = (("1 2", "3"), ("5 6\r\n", "11\r\n"))


def add_problem(
    folder: Path,
    number: int | str,
    cases: Sequence[tuple[str | bytes, str | bytes]] = CASES,
    archive: str | None = "tests.zip",
    **settings: object,
) -> None:
    """One problem: its folder, and its rows in both languages."""
    dataset, name = ("NOI", f"loj-{number}") if isinstance(number, int) else ("ICPC", number)
    place = folder / dataset / name
    place.mkdir(parents=True)
    files: dict[str, bytes] = {}
    for n, pair in enumerate(cases, start=1):
        for ending, content in zip(("in", "out"), pair, strict=True):
            files[f"data{n}.{ending}"] = content if isinstance(content, bytes) else content.encode()
    if archive is None:
        for file, content in files.items():
            (place / file).write_bytes(content)
    else:
        with zipfile.ZipFile(place / archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for file, content in files.items():
                packed.writestr(file, content)
    listed = [{"in": f"data{n}.in", "out": f"data{n}.out", "points": 1} for n in range(1, len(cases) + 1)]
    write_settings(place, {"archive": archive, "test_cases": listed, **settings})
    prompts = folder / "prompts" / "full.jsonl"
    prompts.parent.mkdir(exist_ok=True)
    with open(prompts, "a", encoding="utf-8") as file:
        for language in ("cpp", "python"):
            row = {"id": number, "prompt": f"Add two numbers ({number}) in {language}.\n", "dataset": dataset}
            file.write(json.dumps({**row, "language": language, "difficulty": "easy"}) + "\n")


def write_settings(place: Path, settings: Mapping[str, object]) -> None:
    """The problem's init.yml."""
    written = {key: value for key, value in settings.items() if value is not None}
    (place / "init.yml").write_text(yaml.safe_dump(written), encoding="utf-8")
