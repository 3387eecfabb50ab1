"""Private modules of CPython that the child uses in place of the public ones, which take as long to import as the
interpreter to start. `tests/evaluation/sandbox/test_cpython_internals.py` holds that the names still mean the same.

- `blake2b`, public in `hashlib`: `program.pack` makes digests of long values with it.
- `encode_basestring_ascii`, public in `json.encoder`: `program` writes the strings of a result with it.
- `signal`, `SIGKILL`, `SIGTERM`, `SIG_IGN`, public in `signal`: `main` and `isolation` end processes with them.
"""

from _blake2 import blake2b
from _json import encode_basestring_ascii
from _signal import SIG_IGN, SIGKILL, SIGTERM, signal  # type: ignore[import-not-found]

__all__ = ["SIGKILL", "SIGTERM", "SIG_IGN", "blake2b", "encode_basestring_ascii", "signal"]
