"""`vcore browse`: everything in a store as a static site."""

import dataclasses
from pathlib import Path
from typing import Annotated

from rich.markup import escape

from pipeline.cli.options import AsJson, Home, option
from pipeline.cli.printing import count, err, print_json, show


def browse(
    folder: Annotated[
        Path | None,
        option("--out", "Where the site goes: a new or empty folder, or an older site. Default: HOME/browse."),
    ] = None,
    samples: Annotated[
        int, option("--samples", "The most samples that the site may hold; those of newer runs come first.", min=0)
    ] = 100_000,
    home: Home = Path(".vcore"),
    as_json: AsJson = False,
) -> None:
    """Make a site of runs, scores, samples and artifacts that opens in a browser as a file; no server is needed."""
    from pipeline.browse.site import build_site

    site = build_site(home, folder or home / "browse", samples)
    if as_json:
        print_json({**dataclasses.asdict(site), "page": str(site.page)})
        return
    for line in site.trouble:
        err.print(f"[yellow]{escape(line)}[/]", soft_wrap=True)
    beyond = f"; {count(site.left_out, 'score')} without samples, which do not fit into --samples {samples}"
    left = beyond if site.left_out else ""
    show(f"{count(site.runs, 'run')}, {count(site.artifacts, 'artifact')}, {count(site.samples, 'sample')}{left}")
    show(f"Site: {escape(str(site.page))}")
