"""The nearest of the names there are, for errors about a name that is none of them."""

import difflib
from collections.abc import Iterable


def nearest_name(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that is most like `name`; None where none is like it at least to `cutoff`, of 1."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)), None)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error text: `; did you mean 'sft'?`, or the list of what there is."""
    known = sorted(known)
    close = nearest_name(name, known)
    return f"; did you mean {close!r}?" if close is not None else f"; known: {', '.join(known)}"
