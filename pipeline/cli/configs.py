"""`vcore init`, `vcore demo` and `vcore config`: the configs that come with the package, wherever it is installed."""

import re
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline.cli.options import AsJson, Overrides, argument, option
from pipeline.cli.printing import out, plain_table, print_json, show
from pipeline.core.errors import ConfigError
from pipeline.core.shipped import shipped

app = typer.Typer(help="The configs that come with vcore.", no_args_is_help=True)

Name = Annotated[str, argument("NAME", "A shipped config, such as demo or paper/models/core; see vcore config ls.")]
_INCLUDED = re.compile(r"^(?:extends|config): *(\S+\.ya?ml)", re.MULTILINE)


def init(
    name: Name = "demo",
    folder: Annotated[Path, option("--out", "Where to write it.", metavar="FOLDER")] = Path(),
) -> None:
    """Write a shipped config, and those that it extends, into a folder, to be changed there."""
    root = shipped("configs")
    chain = list(dict.fromkeys(_with_what_it_extends(_shipped_config(name))))
    targets = [folder / file.relative_to(root) for file in chain]
    if taken := [target for target in targets if target.exists()]:
        fix = "Remove it, or name another folder: --out FOLDER"
        raise ConfigError(f"{taken[0]} exists already", where="--out", fix=fix)
    try:
        for file, target in zip(chain, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror or error}", where="--out") from error
    for target in targets:
        out.print(f"wrote {target}", soft_wrap=True)
    if targets[0].parent.name == "accelerate":
        show(f"A launcher for execution.launch: {{sft: {{kind: accelerate, processes: 2, config: {targets[0]}}}}}")
        return
    sweep = "\nmatrix:" in targets[0].read_text(encoding="utf-8")
    show(f"What it would do: vcore {f'sweep {targets[0]} --plan' if sweep else f'plan {targets[0]}'}")


def demo(overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Run the demo pipeline into .vcore of this folder: minutes on two cores, and nothing is downloaded."""
    from pipeline.cli.runs import run

    run(shipped("configs/demo.yaml"), overrides, as_json=as_json)


@app.command("ls")
def config_ls(as_json: AsJson = False) -> None:
    """List the shipped configs, and say where they, the docs and the pinned lists are."""
    root = shipped("configs")
    files = sorted(root.rglob("*.yaml"), key=lambda file: (len(file.relative_to(root).parts), file))
    configs = {str(file.relative_to(root).with_suffix("")): _purpose(file) for file in files}
    places = {name: str(shipped(name)) for name in ("configs", "docs", "requirements")}
    if as_json:
        print_json({"configs": configs, "folders": places})
        return
    table = plain_table("config", "what it is", fold=True)
    for name, purpose in configs.items():
        table.add_row(name, escape(purpose))
    out.print(table)
    for name, place in places.items():
        out.print(f"{name}: {place}", soft_wrap=True)
    show("vcore init NAME copies one into this folder.")


@app.command("show")
def config_show(name: Name) -> None:
    """Print a shipped config."""
    typer.echo(_shipped_config(name).read_text(encoding="utf-8"), nl=False)


def _shipped_config(name: str) -> Path:
    root = shipped("configs")
    file = root / f"{name.removesuffix('.yaml')}.yaml"
    if not file.is_file() or not file.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"there is no shipped config {name!r}", fix="List them with: vcore config ls")
    return file.resolve()


def _with_what_it_extends(file: Path) -> list[Path]:
    """The file, and every config that it names after `extends:` or `config:`, and those after them."""
    chain = [file]
    for included in _INCLUDED.findall(file.read_text(encoding="utf-8")):
        chain += _with_what_it_extends((file.parent / included).resolve())
    return chain


def _purpose(file: Path) -> str:
    """The first sentence of the comment that a config begins with, or what stands in it before a colon."""
    comment = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    return re.split(r"(?<=[.:])\s(?![^(]*\))", " ".join(comment).strip(), maxsplit=1)[0].rstrip(":.")
