"""Data of the site as scripts: a page that was opened as a file may load scripts and nothing else.

Each file hands one value to `vcore.take` in page/load.js. Values are lists and objects with fixed names; texts of
models and users are values only, never names: in a script, a name such as `__proto__` would mean something.
"""

import json
from pathlib import Path
from typing import Any


def write_data(folder: Path, name: str, value: Any) -> None:
    """Write `NAME.js`, which hands over the value under that name. The text is ASCII: nothing in it ends a line or a
    script."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    (folder / f"{name}.js").write_text(f'vcore.take("{name}",{text});\n', encoding="ascii")
