"""What takes a process its rights: namespaces, capabilities, limits, rules on files, the filter of system calls."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from signal import SIGKILL

TYPE_CHECKING = False  # the name that type checkers know
if TYPE_CHECKING:
    from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 36, 38, 2
# These system calls have one number on all architectures.
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF, PATH_BENEATH = 444, 445, 446, 1
SYS_MOUNT_SETATTR, AT_RECURSIVE, MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 442, 0x8000, 1, 2
CAPABILITY_VERSION_3 = 0x20080522
NOBODY = 65534
TMP_BYTES, TMP_FILES = 64 * 2**20, 4096
FILE_BYTES, OPEN_FILES = 16 * 2**20, 64
STACK_BYTES = 256 * 2**20  # of a program that is no Python's; a quarter of its address space at most
CORE_BYTES = 1  # less than any dump has; with 0, a program of the machine that collects dumps would still get one

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raise `OSError` when a C function failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    arguments = [None if part is None else part.encode() for part in (source, target, kind)]
    check(libc.mount(*arguments, ctypes.c_ulong(flags), None if data is None else data.encode()), f"mount {target}")


def enter_namespaces(order: dict[str, Any], users: tuple[int, int]) -> None:
    """Leave the machine's network, processes and files for a read-only folder tree of the order's `roots`, its `binary`
    as /program where it has one, and an empty /tmp.

    With `own_user`, which only root may ask for, there is a user for the program beside the one for all else; then a
    process outside is asked by the pipes `users` to `map_users`.
    """
    work, roots, own_user = order["work"], order["roots"], order["own_user"]
    uid, gid = os.getuid(), os.getgid()
    spaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
    if own_user:
        unshare_with_users(spaces, *users)
    else:
        check(libc.unshare(spaces), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    os.umask(0o022)  # the program may have to look into folders of another user
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", work, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    below_tmp = [path for path in roots if path.startswith("/tmp/")]  # an environment, or the Python itself
    for path in (path for path in roots if path not in below_tmp):
        show(path, work)
    for device in ("/dev/null", "/dev/zero", "/dev/urandom"):
        bind(device, work + device)
    if order["binary"]:
        bind(order["binary"], work + "/program")
    os.mkdir(work + "/tmp")
    make_read_only(work)
    tmp_options = f"size={TMP_BYTES},nr_inodes={TMP_FILES},mode=700,uid={NOBODY},gid={NOBODY}"
    # Nothing there can be started: a program could otherwise start another one that it wrote, in its own place.
    mount("tmpfs", work + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | (MS_NOEXEC if order["binary"] else 0), tmp_options)
    for path in below_tmp:  # only now: the private /tmp would cover them, and stays writable around them
        if show(path, work):
            make_read_only(work + path)
    # A process in a changed root may not make user namespaces of its own, so there is no way back to any capability.
    os.chroot(work)
    os.chdir("/tmp")


def unshare_with_users(spaces: int, ask: int, answer: int) -> None:
    """Enter new namespaces where root and nobody stay who they are, which only a process outside may say: it is asked
    by one pipe, and answers by another."""
    check(libc.unshare(spaces), "unshare")
    os.write(ask, b"1")
    if not os.read(answer, 1):
        raise OSError("the users of the namespace could not be mapped")


def map_users(pid: int) -> None:
    """Have root and nobody be who they are in the user namespace of another process."""
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(f"0 0 1\n{NOBODY} {NOBODY} 1\n")


def show(path: str, work: str) -> bool:
    """Show a file or folder of the machine at the same path below `work`; whether it was mounted there."""
    place = work + path
    if os.path.islink(path):  # /lib -> usr/lib
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.symlink(os.readlink(path), place)
        return False
    if not os.path.exists(path) or os.path.exists(place):  # the Python may lie inside /usr
        return False
    bind(path, place)
    return True


def make_read_only(folder: str) -> None:
    """Make a mount, and all mounts below it, read-only and without set-user-id programs."""
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    arguments = (-100, folder.encode(), AT_RECURSIVE, attributes, ctypes.c_size_t(32))
    check(ctypes.c_long(libc.syscall(SYS_MOUNT_SETATTR, *arguments)).value, f"mount_setattr {folder}")


def bind(source: str, target: str) -> None:
    """Show a file or folder at another place."""
    if os.path.isdir(source):
        os.makedirs(target)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    mount(source, target, None, MS_BIND | MS_REC)


def adopt_orphans() -> None:
    """Have processes whose parent ends become children of this one."""
    check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "child_subreaper")


def set_traceable(allowed: bool) -> None:
    """Whether processes of the same user may trace this one and write to its memory; those forked from it inherit
    that."""
    check(libc.prctl(PR_SET_DUMPABLE, int(allowed), 0, 0, 0), "dumpable")


def die_with_parent() -> None:
    """Be killed when the process that forked this one ends. Any change of capabilities undoes this."""
    check(libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "pdeathsig")


def drop_privileges(own_user: bool) -> None:
    """Keep no capabilities, and gain none by starting another program. Where there is one, take the program's user."""
    if own_user:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def filter_calls(program: tuple[bytes, int] | None) -> None:
    """Refuse system calls (see `evaluation.sandbox.seccomp`), where the kernel can. Needs `drop_privileges` before."""
    if program is None:
        return
    steps, place = program
    steps = steps[:place] + os.getpid().to_bytes(4, "little") + steps[place + 4 :]
    text = ctypes.create_string_buffer(steps, len(steps))
    header = (ctypes.c_uint64 * 2)(len(steps) // 8, ctypes.addressof(text))
    libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0)  # `Sandbox` tries out whether that is in force


def restrict_files(ruleset: tuple[bytes, list[tuple[str, int]]] | None) -> None:
    """Follow rules on files (see `evaluation.sandbox.landlock`). Needs `drop_privileges` before. Raises `OSError`."""
    if ruleset is None:
        return
    refused, rules = ruleset
    descriptor = libc.syscall(SYS_LANDLOCK_CREATE_RULESET, refused, ctypes.c_size_t(len(refused)), 0)
    check(min(descriptor, 0), "landlock_create_ruleset")
    for path, rights in rules:
        place = os.open(path, os.O_PATH)
        rule = rights.to_bytes(8, sys.byteorder) + place.to_bytes(4, sys.byteorder)
        check(libc.syscall(SYS_LANDLOCK_ADD_RULE, descriptor, PATH_BENEATH, rule, 0), f"landlock_add_rule {path}")
        os.close(place)
    check(libc.syscall(SYS_LANDLOCK_RESTRICT_SELF, descriptor, 0), "landlock_restrict_self")
    os.close(descriptor)


def confine(order: dict[str, Any]) -> None:
    """Give up everything that a program must not have. Raises `OSError`."""
    # Signals to its own group must not reach the outermost process. Without namespaces, the group's end is its end.
    if order["level"] == "namespaces":
        os.setsid()
    drop_privileges(order["own_user"])
    die_with_parent()
    limit(order["cpu_s"], order["memory"], order["threads"], order["file_bytes"], bool(order["binary"]))
    restrict_files(order["rules"])
    filter_calls(order["filter"])


def limit(cpu_s: int, memory: int, threads: int | None, file_bytes: int, own_stack: bool) -> None:
    """Limit CPU seconds, bytes of address space, size of files, open files and threads (None: not these), all hard;
    with `own_stack`, for a program yet to be started, also its stack, more than usual."""
    limits = {resource.RLIMIT_CPU: cpu_s, resource.RLIMIT_AS: memory, resource.RLIMIT_FSIZE: file_bytes}
    if own_stack:
        limits[resource.RLIMIT_STACK] = min(STACK_BYTES, memory // 4)
    limits |= {resource.RLIMIT_NOFILE: OPEN_FILES, resource.RLIMIT_CORE: CORE_BYTES}
    if threads is not None:
        limits[resource.RLIMIT_NPROC] = threads
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
