"""What a custom reward or weighting method consists of besides its own file: modules of the user's that it imports,
files that it says it reads, and libraries. Found by parsing, since nothing of the user's is run for a plan.

A module counts as the user's, and by its content, unless it is the standard library's, ours, or an installed
distribution's that came from a package index, where a name and a version stand for the content.
"""

import ast
import dataclasses
import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.core.errors import ConfigError
from pipeline.core.shipped import PACKAGES, ROOT, is_checkout
from pipeline.plan.code import imported_modules, mark, module_file
from stages.harness.declaration import CustomCode

READS = "READS"
"""The name under which a module lists the files that it reads, relative to itself."""
READING = re.compile(r"open|read_\w+|load(?!s$|_state_dict$)\w*|from_(pretrained|file)|genfromtxt|fromfile|memmap|CDLL")
"""Names of functions that read files, as a rule."""
SUFFIXES = (
    *importlib.machinery.EXTENSION_SUFFIXES,
    *importlib.machinery.SOURCE_SUFFIXES,
    *importlib.machinery.BYTECODE_SUFFIXES,
)


@dataclasses.dataclass(frozen=True)
class UserCode:
    """What belongs to one custom file, transitively."""

    modules: dict[str, Path] = dataclasses.field(default_factory=dict)
    """Modules of the user's."""
    reads: dict[str, Path] = dataclasses.field(default_factory=dict)
    """Files that these and the custom file list, as they are listed."""
    ours: frozenset[str] = frozenset()
    """Modules of this project."""
    distributions: frozenset[str] = frozenset()
    """Installed from a package index."""
    silent: list[Path] = dataclasses.field(default_factory=list)
    """Of the custom file and the modules, those that seem to read files and list none."""
    absent: dict[str, str] = dataclasses.field(default_factory=dict)
    """Modules that are nowhere and without which the custom file cannot be loaded -> the file and line that imports
    each."""


def user_code(code: CustomCode, libraries: Iterable[str]) -> UserCode:
    """Follow the imports of a custom file; empty where there is no such file.

    Args:
        libraries: distributions whose versions the stage's key has anyway.

    Raises:
        ConfigError: the file or a module of the user's is no Python, or lists files in a way that cannot be read.
    """
    file = Path(code.file).expanduser()
    found, ours, distributions = UserCode(), set[str](), dict[str, frozenset[str]]()
    pending, seen = [("", file)] if file.is_file() else [], set[str]()
    needed = {file}
    while pending:
        module, source = pending.pop()
        imported, reads, at_once = _parsed(source, module, code)
        if source in needed:
            found.absent.update(_absent(source, at_once, file.parent))
            needed |= {location for name, _ in at_once if (location := _locate(name, file.parent)) is not None}
        found.reads.update({name: source.parent / name for name in reads or ()})
        if reads is None:
            found.silent.append(source)
        for name in set(imported) - seen:
            seen.add(name)
            top = name.partition(".")[0]
            if top in PACKAGES:
                ours.add(name)
            elif distributions.get(top) or top.replace("_", "-") in libraries:
                continue
            elif (location := _locate(name, file.parent)) is not None and not _is_standard(location):
                distributions[top] = _distributions(top, location)
                if not distributions[top]:
                    found.modules[name] = location
                    pending += [(name, location)] if location.suffix == ".py" else []
    return dataclasses.replace(found, ours=frozenset(ours), distributions=frozenset().union(*distributions.values()))


def parse_custom(file: str | Path, where: str) -> ast.Module:
    """The syntax tree of a user's file; `ConfigError` with the line and its text where it is no Python."""
    try:
        content = Path(file).expanduser().read_bytes()
        return ast.parse(content)
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        text = f" in `{error.text.strip()}`" if error.text and error.text.strip() else ""
        raise ConfigError(f"{file}{line} is not Python: {error.msg}{text}", where=where, fix="Correct it.") from None
    except ValueError:  # Python before 3.12 says it so
        raise ConfigError(f"{file} is not Python: it holds null bytes", where=where, fix="Name a text file.") from None
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}"
        raise ConfigError(message, where=where, fix="Name a Python file.") from None


Parsed = tuple[tuple[str, ...], tuple[str, ...] | None, tuple[tuple[str, int], ...]]
"""Modules that a module imports; files that it lists as read, None where it lists none and seems to read some; and
those of the modules that it cannot be loaded without, each with its line."""


def _absent(source: Path, at_once: Iterable[tuple[str, int]], beside: Path) -> Iterator[tuple[str, str]]:
    """(module, file:line) of the imports that would end a stage as soon as it loads the file. Of packages of others
    the name is looked for, not what is in them, which they may make when they are imported."""
    for name, line in at_once:
        top = name.partition(".")[0]
        if top in PACKAGES:
            there = module_file(name) is not None or ROOT.joinpath(*name.split(".")).is_dir()
        else:
            file, folders = _find(top, beside)
            there = top in sys.stdlib_module_names or file is not None or bool(folders)
        if not there:
            yield name, f"{source}:{line}"


def _parsed(file: Path, module: str, code: CustomCode) -> Parsed:
    try:
        return _read(file, module, f"{code.setting}.file", mark(file))
    except ImportError as error:  # of a relative import
        message = f"{file} has a relative import and is part of no package"
        raise ConfigError(message, where=f"{code.setting}.file", fix="Import it by its full name.") from error


@functools.cache
def _read(file: Path, module: str, where: str, mark: tuple[int, int, int]) -> Parsed:
    tree = parse_custom(file, where)
    is_package = file.name == "__init__.py"
    calls = [(ast.unparse(n.func).rpartition(".")[2], n.args) for n in ast.walk(tree) if isinstance(n, ast.Call)]
    by_name = [
        arguments[0].value
        for function, arguments in calls
        if function in ("import_module", "__import__") and arguments
        if isinstance(arguments[0], ast.Constant) and isinstance(arguments[0].value, str)
    ]
    absolute = [name for name in by_name if not name.startswith(".")]
    parents = {".".join(name.split(".")[: i + 1]) for name in absolute for i in range(name.count(".") + 1)}
    imported = {*imported_modules(tree, module, is_package=is_package), *parents}
    listed = _listed(tree, file, where)
    silent = listed is None and any(READING.fullmatch(function) for function, _ in calls)
    return tuple(sorted(imported)), None if silent else tuple(listed or ()), tuple(_at_once(tree))


def _at_once(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(module, line) of the absolute imports that run whenever a module does: not in a function, an `if`, a `try`."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            yield node.module, node.lineno


def _listed(tree: ast.Module, file: Path, where: str) -> list[str] | None:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not any(isinstance(target, ast.Name) and target.id == READS for target in targets):
            continue
        try:
            listed = ast.literal_eval(getattr(node, "value", None) or ast.Constant(None))
        except ValueError:
            listed = None
        if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
            message = f"{file}:{node.lineno}: {READS} is no list of file names"
            fix = f'Write it out: {READS} = ["table.json"]. Paths start in the folder of {file.name}.'
            raise ConfigError(message, where=where, fix=fix)
        return list(listed)
    return None


def _locate(name: str, beside: Path) -> Path | None:
    """The file that `import NAME` would load in a stage's process; None for what is nowhere, built in, or a namespace.

    By hand: `importlib.util.find_spec` runs the packages around a module, and fails in nested namespaces.
    """
    return _find(name, beside)[0]


def _find(name: str, beside: Path) -> tuple[Path | None, list[Path]]:
    """As `_locate`, with the folders that modules inside it are in, which a namespace has as well."""
    first = 0 if sys.flags.safe_path else 1  # a stage's own first entry is none (python -P)
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    # An interpreter beside that of an installed package is led to its code by a link, and to no library beside it.
    ours = [str(ROOT)] if is_checkout() or str(ROOT) in sys.path else []
    folders = [Path(entry) for entry in (*ours, *given, *sys.path[first:], str(beside))]
    file: Path | None = None
    for depth, part in enumerate(name.split(".")):
        file, folders = _in_folders(part, folders)
        if depth == 0 and file is None:
            file, folders = _by_finder(part, folders)
    return file, folders


def _in_folders(part: str, folders: list[Path]) -> tuple[Path | None, list[Path]]:
    """The file of a module, and the folders that modules inside it are in."""
    namespace = []
    for folder in folders:
        package = folder / part
        for suffix in SUFFIXES:
            if (package / f"__init__{suffix}").is_file():
                return package / f"__init__{suffix}", [package]
        for suffix in SUFFIXES:
            if (folder / f"{part}{suffix}").is_file():
                return folder / f"{part}{suffix}", []
        if package.is_dir():
            namespace.append(package)
    return None, namespace


def _by_finder(part: str, folders: list[Path]) -> tuple[Path | None, list[Path]]:
    """As `_in_folders`, of packages that are installed editable by a finder of their own."""
    standard = (importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter, importlib.machinery.PathFinder)
    for finder in (finder for finder in sys.meta_path if finder not in standard):
        spec = finder.find_spec(part, None)
        if spec is not None:
            file = Path(spec.origin) if spec.has_location and spec.origin else None
            return file, [Path(folder) for folder in spec.submodule_search_locations or []]
    return None, folders


def _distributions(top: str, file: Path) -> frozenset[str]:
    """The distributions from a package index that an installed module belongs to."""
    if not _is_below(file, _site_packages()):
        return frozenset()
    try:
        names = [importlib.metadata.distribution(top).name]
    except importlib.metadata.PackageNotFoundError:  # called otherwise, such as scikit-learn
        names = importlib.metadata.packages_distributions().get(top, [])
    # A distribution built from a folder or a repository says so (PEP 610): its version stands still while it changes.
    from_index = (n for n in names if importlib.metadata.distribution(n).read_text("direct_url.json") is None)
    return frozenset(from_index)


def _is_standard(file: Path) -> bool:
    library = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    return _is_below(file, library) and not _is_below(file, _site_packages())


@functools.cache
def _site_packages() -> list[str]:
    paths = sysconfig.get_paths()
    return [paths["purelib"], paths["platlib"], *site.getsitepackages(), site.getusersitepackages()]


def _is_below(file: Path, folders: Iterable[str]) -> bool:
    return any(file.resolve().is_relative_to(Path(folder).resolve()) for folder in folders)
