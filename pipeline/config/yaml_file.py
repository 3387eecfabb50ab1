"""Reading a pipeline's YAML: `extends`, `--set` overrides, and the line every value came from."""

import dataclasses
import datetime
import errno
import json
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.core.errors import ConfigError

Location = tuple[str | int, ...]
MOST = 2**1023
"""Whole numbers from here up are refused: no setting means one, and no float holds them."""


@dataclasses.dataclass
class Document:
    """Plain values, and for each path into them the `file:line` (or `--set`) that set it."""

    values: dict[str, Any]
    places: dict[Location, str]

    def place(self, path: Location) -> str:
        """Where the value at `path` was set; where it was not set at all, its nearest parent that was."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, "")


def read(path: Path, overrides: list[str] | None = None) -> Document:
    """Read a YAML file, what it extends, and then apply overrides of the form `a.b.0.c=value` (the value is YAML)."""
    document = _read_chain(path, seen=[])
    for override in overrides or []:
        _apply(document, override)
    return document


_TOO_DEEP = "nested too deeply, or a value with an anchor that holds itself"


def _no_value(error: ValueError) -> str:
    """What the parser could not make a value of: a date, or a number of more digits than Python reads."""
    return "a number of thousands of digits" if "digits" in str(error) else f"a date that does not exist: {error}"


def _line_of_no_date(text: str) -> int | None:
    """Number of the first line with what is written as a date and is none; the parser does not tell."""
    for number, line in enumerate(text.splitlines(), start=1):
        for written in re.findall(r"\b\d{4}-\d\d-\d\d\b", line):
            try:
                datetime.date.fromisoformat(written)
            except ValueError:
                return number
    return None


def _read_chain(path: Path, seen: list[Path]) -> Document:
    path = path.resolve() if seen else path
    if path.resolve() in seen:
        raise ConfigError(f"{path} extends itself", where=str(seen[-1]))
    if not path.is_file():
        where = f"extends in {seen[-1]}" if seen else ""
        fix = "Name a YAML file. To begin with a shipped one: vcore config ls, vcore init NAME"
        what = "is a folder" if path.is_dir() else "is no file" if path.exists() else "does not exist"
        raise ConfigError(f"config file {path} {what}", where=where, fix=fix)
    try:
        parsed = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"not valid YAML: {error.problem}", where=f"{path}:{line}") from error
    except YAMLError as error:  # a control character, which has no mark
        raise ConfigError(f"not valid YAML: {' '.join(str(error).split())}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("not a text file in UTF-8", where=str(path)) from error
    except ValueError as error:
        line = _line_of_no_date(path.read_text(encoding="utf-8"))
        raise ConfigError(_no_value(error), where=f"{path}:{line}" if line else str(path)) from error
    except RecursionError as error:
        raise ConfigError(_TOO_DEEP, where=str(path)) from error
    if not isinstance(parsed, CommentedMap):
        raise ConfigError("a pipeline is a YAML mapping with sections such as data, sft, grpo", where=str(path))
    document = Document({}, {(): str(path)})
    try:
        document.values = _plain(parsed, (), path, document.places)
    except RecursionError as error:
        raise ConfigError(_TOO_DEEP, where=str(path)) from error
    base = document.values.pop("extends", None)
    if base is None:
        return document
    if not isinstance(base, str) or not base.strip():
        raise ConfigError("extends takes the path of one YAML file", where=document.place(("extends",)))
    check_path(Document({"extends": base}, document.places), "extends")
    parent = _read_chain(path.parent / Path(base).expanduser(), [*seen, path.resolve()])
    _merge(parent.values, document.values, (), parent.places, document.places)
    parent.places[()] = str(path)
    return parent


def _plain(node: Any, path: Location, file: Path, places: dict[Location, str]) -> Any:
    """ruamel's nodes as plain Python values, noting each one's line."""
    if getattr(getattr(node, "tag", None), "value", None):
        where = places.get(path, str(file))
        raise ConfigError(
            f"the YAML tag {node.tag.value} is not allowed", where=where, fix="Write the value without it."
        )
    if isinstance(node, CommentedMap):
        names = {key: _name(key, places.get(path, str(file))) for key in node}
        for key, name in names.items():
            places[(*path, name)] = f"{file}:{node.lc.key(key)[0] + 1}" if key in node.lc.data else str(file)
        return {names[key]: _plain(value, (*path, names[key]), file, places) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            places[(*path, index)] = f"{file}:{node.lc.item(index)[0] + 1}"
        return [_plain(value, (*path, index), file, places) for index, value in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    if isinstance(node, int) and abs(node) >= MOST:
        where = places.get(path, str(file))
        raise ConfigError("a whole number of hundreds of digits", where=where)
    for plain_type in (int, float, str):
        if isinstance(node, plain_type):
            return plain_type(node)
    if isinstance(node, datetime.date):  # written as text here too; a date with a time is one
        return node.isoformat()
    where = places.get(path, str(file))
    raise ConfigError(
        f"a value of type {type(node).__name__}, which no setting takes", where=where, fix="Write a number or a text."
    )


def _name(key: Any, where: str) -> str:
    """A key as text, since every one names a setting or a variant: what YAML takes for a date or a number, too."""
    plain = _plain(key, (), Path(where), {(): where})
    if isinstance(plain, dict | list):
        raise ConfigError("a key that is a list or a mapping", where=where, fix="Write a name.")
    return plain if isinstance(plain, str) else json.dumps(plain)


def _merge(
    base: dict[str, Any], over: dict[str, Any], path: Location, places: dict[Location, str], new: dict[Location, str]
) -> None:
    """Mappings merge key by key; anything else, lists included, replaces what it extends.

    So does a mapping of another `name` (an SFT method, say): the options of the one are none of the other's.
    """
    for key, value in over.items():
        here = (*path, key)
        below = base.get(key)
        if (
            isinstance(value, dict)
            and isinstance(below, dict)
            and value.get("name", below.get("name")) == below.get("name")
        ):
            _merge(base[key], value, here, places, new)
        else:
            base[key] = value
            for old in [p for p in places if p[: len(here)] == here]:
                del places[old]
            places.update({p: place for p, place in new.items() if p[: len(here)] == here})


def _apply(document: Document, override: str) -> None:
    name, equals, text = override.partition("=")
    where = f"--set {override}"
    if not equals or not name.strip():
        raise ConfigError(
            "an override has the form KEY=VALUE", where=where, fix="Example: --set sft.learning_rate=1e-5"
        )
    if not text.strip():
        raise ConfigError(
            "an override without a value",
            where=where,
            fix=f"Write {name}=null to switch it off, or {name}='\"\"' for no text.",
        )
    try:
        value = _plain(YAML(typ="rt").load(text), (), Path("--set"), {})
    except MarkedYAMLError as error:
        raise ConfigError(f"the value is not valid YAML: {error.problem}", where=where) from error
    except YAMLError as error:
        raise ConfigError(f"the value is not valid YAML: {' '.join(str(error).split())}", where=where) from error
    except ValueError as error:
        raise ConfigError(_no_value(error), where=where) from error
    except RecursionError as error:
        raise ConfigError(_TOO_DEEP, where=where) from error
    except ConfigError as error:  # of a tag or a type
        error.where = where
        raise
    path: Location = ()
    *sections, last = name.strip().split(".")
    node: Any = document.values
    for part in sections:
        if isinstance(node, list):
            index = _index(node, part, where)
            path, node = (*path, index), node[index]
        else:
            path = (*path, part)
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        if not isinstance(node, dict | list):
            raise ConfigError(f"{'.'.join(map(str, path))} is a single value, not a section", where=where)
    path = (*path, _index(node, last, where) if isinstance(node, list) else last)
    node[path[-1]] = value
    for old in [p for p in document.places if p[: len(path)] == path]:
        del document.places[old]
    document.places[path] = where


def _index(node: list[Any], part: str, where: str) -> int:
    if not (part.isascii() and part.isdigit()) or int(part) >= len(node):
        raise ConfigError(f"{part!r} is not an index into a list of {len(node)}", where=where)
    return int(part)


def check_path(document: Document, name: str) -> None:
    """Raise `ConfigError` for what no path can be: below the home folder of a user that this machine does not know
    (`~name/...`), a link that leads to itself, or with a null byte."""
    value = document.values.get(name)
    where, text = f"{document.place((name,))}: {name}", value if isinstance(value, str) else ""
    if "\0" in text:
        raise ConfigError("holds a null byte, which no path has", where=where, fix="Leave it out.")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{value}: this machine knows no such user", where=where, fix="Write the whole path."
        ) from None
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigError(f"{value} is a link that leads to itself", where=where, fix="Name a folder.") from None
