"""Rules on files that every program runs under where the kernel has Landlock: it reads Python and its libraries, writes to its own folder
and to nothing else. /proc is not among these, and with that not the memory and environment of other processes of the same user.

The rules (see landlock(7)) are made here and handed to the child, which can import nothing of ours. They do not reach what needs no file to
be opened: names and sizes of files, and their modes and times, which the filter of system calls keeps from being changed.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

SYS_CREATE_RULESET = 444  # one number on all architectures
VERSION = 1
WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
ALL_OF = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights on files that a version of Landlock knows, from the version that brought one."""
OF_FILES = WRITE_FILE | READ_FILE | TRUNCATE
"""Those that a file may have that is not a folder, without the right to be run as a program."""
TCP, TCP_SINCE = 0b11, 4
SIGNALS_AND_ABSTRACT_SOCKETS, SCOPES_SINCE = 0b11, 6

Ruleset = tuple[bytes, list[tuple[str, int]]]


def version() -> int:
    """Which version of Landlock the kernel has; 0 for none."""
    return max(0, int(ctypes.CDLL(None).syscall(SYS_CREATE_RULESET, None, ctypes.c_size_t(0), VERSION)))


def ruleset(read: Sequence[str], write: str) -> Ruleset | None:
    """What is refused unless a rule allows it, and the rules: paths with their rights. TCP and signals to others are refused as well.

    Args:
        read: folders and files to be read.
        write: the folder where everything is allowed but to run programs.

    Returns:
        None where the kernel has no Landlock.
    """
    found = version()
    if not found:
        return None
    files = max(rights for since, rights in ALL_OF.items() if since <= found)
    refused = struct.pack("=QQQ", files, TCP, SIGNALS_AND_ABSTRACT_SOCKETS)
    known = 8 if found < TCP_SINCE else 16 if found < SCOPES_SINCE else 24
    rules = [
        (path, READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE) for path in read if os.path.exists(path)
    ]
    rules += [("/dev/null", files & OF_FILES), (write, files & ~1)]
    return refused[:known], rules
