"""Rules on files for every program where the kernel has Landlock: it reads Python and its libraries, and writes to its
own folder. Nothing else, and so not /proc with the memory and environment of other processes of the user.

The rules (see landlock(7)) are made here and handed to the child, which imports nothing of this. They do not reach what
needs no file to be opened: names and sizes of files, and modes and times, whose change the filter of calls refuses.
"""

import ctypes
import os
import struct
from collections.abc import Sequence

SYS_CREATE_RULESET, VERSION = 444, 1  # the call has one number on all architectures
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 14
ALL_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights on files that a version of Landlock knows, by the version that brought the last of them."""
FILE_RIGHTS = WRITE_FILE | READ_FILE | TRUNCATE
"""The rights that a file may have that is not a folder, without the right to be run as a program."""
TCP, TCP_SINCE = 0b11, 4
SIGNALS_AND_ABSTRACT_SOCKETS, SCOPES_SINCE = 0b11, 6

Ruleset = tuple[bytes, list[tuple[str, int]]]


def version() -> int:
    """Which version of Landlock the kernel has; 0 for none."""
    return max(0, int(ctypes.CDLL(None).syscall(SYS_CREATE_RULESET, None, ctypes.c_size_t(0), VERSION)))


def ruleset(read: Sequence[str], write: str, run: Sequence[str] = ()) -> Ruleset | None:
    """What is refused, TCP and signals to others included, unless a rule allows it; and the rules, paths with their
    rights: to read the folders and files of `read`, to do all but run programs in the folder `write`, and to run what
    is in `run`, paths of the process that follows the rules. None where the kernel has no Landlock."""
    available = version()
    if not available:
        return None
    rights = max(all_rights for since, all_rights in ALL_RIGHTS.items() if since <= available)
    refused = struct.pack("=QQQ", rights, TCP, SIGNALS_AND_ABSTRACT_SOCKETS)
    size = 8 if available < TCP_SINCE else 16 if available < SCOPES_SINCE else 24
    existing = filter(os.path.exists, read)
    rules = [(path, READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE) for path in existing]
    runs = [(path, EXECUTE | READ_FILE | (READ_DIR if os.path.isdir(path) else 0)) for path in run]
    return refused[:size], [*rules, *runs, ("/dev/null", rights & FILE_RIGHTS), (write, rights & ~EXECUTE)]
