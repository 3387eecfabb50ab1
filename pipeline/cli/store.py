"""`vcore store`: what the store holds and whether it is whole; taking artifacts out, adopting and removing them."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from pipeline.cli.options import AsJson, ConfigFile, Home, Overrides, argument, option
from pipeline.cli.printing import count, err, gib, mib, out, plain_table, print_json, show, warn_of_unreadable_runs
from pipeline.core.errors import EXIT_STAGE_FAILED, ConfigError

app = typer.Typer(help="Look into the artifact store.", no_args_is_help=True)

ArtifactName = Annotated[
    str, argument("ARTIFACT", "A key or its beginning, a stage of the latest run (sft), or of any run (RUN:sft).")
]


@app.command("ls")
def store_ls(home: Home = Path(".vcore"), as_json: AsJson = False) -> None:
    """List the artifacts."""
    from pipeline.store.documents import Manifest
    from pipeline.store.store import Store

    rows: list[dict[str, Any]] = []
    for program, key, folder in Store.existing(home).artifacts():
        manifest = Manifest.read(folder / "manifest.json")
        row: dict[str, Any] = {"stage": program, "name": program, "key": key, "bytes": 0, "ended": ""}
        if manifest is None:  # left to `store verify` and the next run
            row["ended"] = "damaged: its manifest cannot be read"
        else:
            row |= {"name": manifest.name, "bytes": manifest.size, "ended": manifest.ended}
        rows.append(row | {"folder": str(folder)})
    if as_json:
        print_json(rows)
        return
    table = plain_table("stage", "key", "size", "made", "folder", fold=True)
    for row in rows:
        table.add_row(row["name"], row["key"][:12], mib(row["bytes"]), row["ended"], row["folder"])
    out.print(table)


@app.command("verify")
def store_verify(home: Home = Path(".vcore"), as_json: AsJson = False) -> None:
    """Read every file of every artifact and compare it with its manifest; exit 1 if one is damaged."""
    from pipeline.store.store import Store

    store = Store.existing(home)
    read = {f"{program}/{key}": store.find(program, key, reread=True).damage for program, key, _ in store.artifacts()}
    store.memo.save()
    damaged = {name: damage for name, damage in read.items() if damage}
    if as_json:
        print_json({"artifacts": len(read), "damaged": damaged})
    else:
        for name, damage in damaged.items():
            show(f"[red]{name}: {damage}[/]")
        out.print(
            f"{len(read)} artifacts, {len(damaged)} damaged{'; the next run makes them again' if damaged else ''}"
        )
    if damaged:
        raise typer.Exit(EXIT_STAGE_FAILED)


@app.command("show")
def store_show(artifact: ArtifactName, home: Home = Path(".vcore"), as_json: AsJson = False) -> None:
    """Show one artifact: what it was made from, by what, and its files."""
    from pipeline.run.gc import find_artifact
    from pipeline.store.store import Store

    shown = find_artifact(Store.existing(home), artifact)
    manifest = shown.manifest
    if as_json:
        print_json(manifest.to_json())
        return
    show(f"[bold]{manifest.name}[/]  {shown.key}\n{escape(str(shown.folder))}")
    table = plain_table("what", "value")
    table.show_header = False
    if manifest.adopted is not None:
        adopted = manifest.adopted
        table.add_row("adopted", escape(f"{adopted.at} from {adopted.source}: {'; '.join(adopted.differences)}"))
    commit = f", commit {manifest.git.commit}" if manifest.git.commit else ""
    changes = " and changes" if manifest.git.dirty else ""
    memory = f", at most {gib(manifest.peak_memory_gib)} of memory" if manifest.peak_memory_gib else ""
    table.add_row("made", f"{manifest.started}, {manifest.seconds:.1f} s{memory}{commit}{changes}")
    for name, source in manifest.inputs.items():
        table.add_row("input", f"{name}: {source.stage} {source.key[:12]}")
    table.add_row("settings", escape(json.dumps(manifest.preimage.settings, ensure_ascii=False)))
    if manifest.python:
        table.add_row("interpreter", escape(manifest.python))
    table.add_row("versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items()))
    table.add_row("proof", escape(json.dumps(manifest.proof, ensure_ascii=False)))
    for entry in manifest.files:
        table.add_row("file", f"{entry.sha256[:12]} {entry.size:>12,} {escape(entry.path)}")
    out.print(table)


@app.command("export")
def store_export(
    artifact: ArtifactName,
    target: Annotated[Path, argument("TARGET", "A folder that does not exist yet.")],
    home: Home = Path(".vcore"),
) -> None:
    """Copy an artifact out of the store, checked file by file; a checkpoint is then in TARGET/model."""
    from pipeline.run.gc import export, find_artifact
    from pipeline.store.store import Store

    exported = find_artifact(Store.existing(home), artifact)
    size = export(exported, target)
    show(f"{exported.manifest.name} {exported.key[:12]}: {mib(size)} in {escape(str(target))}")


@app.command("gc")
def store_gc(
    keep_last: Annotated[
        int, option("--keep-last", "Keep what the last so many runs of every pipeline need.", min=0)
    ] = 1,
    keep_named: Annotated[
        list[str] | None, option("--keep-named", "Keep every run of the pipelines that match: 'paper-*'.")
    ] = None,
    max_size: Annotated[
        str | None,
        option("--max-size", "Remove artifacts, oldest first, only until the store is below: 50GiB.", metavar="SIZE"),
    ] = None,
    yes: Annotated[bool, option("--yes", "Do it; without this, only say what would go.")] = False,
    home: Home = Path(".vcore"),
    as_json: AsJson = False,
) -> None:
    """Remove artifacts that no kept run needs, and the trash. Says what would go; --yes removes it."""
    from pipeline.run.gates.baseline import blessed_runs
    from pipeline.run.gc import collect, remove
    from pipeline.store.store import Store

    store, limit = Store.existing(home, writing=yes), _bytes(max_size) if max_size else None
    removals = collect(store, keep_last=keep_last, keep_named=tuple(keep_named or ()), max_bytes=limit)
    warn_of_unreadable_runs(home, "; what only that run needs is not kept")
    for run in sorted(blessed_runs(home)):
        if not (home / "runs" / run).exists():
            err.print(f"[yellow]run {run} was blessed and is gone; what it made is not kept[/]", soft_wrap=True)
    size = sum(removal.bytes for removal in removals)
    freed, busy = remove(store, removals) if yes else (0, [])
    if as_json:
        rows = [{"what": r.what, "folder": str(r.folder), "bytes": r.bytes, "reason": r.reason} for r in removals]
        print_json({"removals": rows, "bytes": size, "removed": yes, "bytes_freed": freed, "in_use": busy})
        return
    for removal in removals:
        show(f"{removal.bytes / 2**20:>10.1f} MiB  {removal.what:<24} {removal.reason}")
    if yes:
        out.print(f"{mib(freed)} freed" + "".join(f"; {name} is in use and stays" for name in busy))
    elif removals:
        out.print(f"{count(len(removals), 'folder')}, {mib(size)}; --yes removes them")
    else:
        below = f"the store is below {max_size}, or " if max_size else ""
        out.print(f"Nothing to remove: {below}kept runs need all that is there (docs/orchestration.md).")


@app.command("adopt")
def store_adopt(
    config: ConfigFile,
    stage: Annotated[str, argument("STAGE", "The stage that should not be computed.")],
    source: Annotated[
        str | None,
        option("--from", "A checkpoint folder, or an artifact. Default: what this stage made last.", metavar="SOURCE"),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Accept an existing artifact, or a checkpoint from elsewhere, for what a stage would make. Recorded as adopted."""
    from pipeline.config.schema import load_config
    from pipeline.run.adopt import adopt
    from pipeline.store.store import Store

    settings = load_config(config, overrides or [])
    store = Store(settings.home_folder)
    artifact, differing = adopt(settings, store, stage, source, lambda line: err.print(escape(line), soft_wrap=True))
    why = escape("; ".join(differing) or "its artifact was gone")
    show(f"{stage} is now {artifact.key[:12]}, adopted although {why}")


def _bytes(text: str) -> int:
    units = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in units:
        raise ConfigError(f"{text!r} is no size", where="--max-size", fix="For example 500MiB or 50GiB.")
    return int(float(match[1]) * units[match[2].upper()])
