"""The process that runs one untrusted program: locks itself in, runs the program, sends back the values.

Started by path as a plain script (see `evaluation.sandbox`), so it imports nothing of ours and little of the standard library. It
forks twice. The outermost process stays outside the process namespace and lives as long as the next one, or until SIGTERM. The second
is the first process of that namespace, so whatever the program left behind ends with it; it says how the program ended. Only the third
runs code of the program, and it can reach neither of the others. Each dies with the one before it, and the first with its caller.

Lines written to the descriptor named on the command line: `ready` once all limits hold (or what went wrong); TOKEN and [status, detail,
number of values] as JSON, then a line for each value; `end SIGNAL EXITCODE CPU_SECONDS`. The token tells a result from what a program
writes there by accident; it is no secret from one that looks for it, and need not be.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import resource
import sys
from _blake2 import blake2b  # hashlib and json themselves take as long to import as the interpreter to start
from _json import encode_basestring_ascii
from _signal import SIG_IGN, SIGKILL, SIGTERM, signal  # type: ignore[import-not-found]  # the module signal itself imports enum

TYPE_CHECKING = False  # the name type checkers know; typing itself takes long to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = (
    1,
    4,
    22,
    36,
    38,
    2,
)
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF, PATH_BENEATH = 444, 445, 446, 1
SYS_MOUNT_SETATTR, AT_RECURSIVE, MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = (
    442,
    0x8000,
    1,
    2,
)  # one number on all architectures
CAPABILITY_VERSION_3 = 0x20080522
NOBODY = 65534
TMP_BYTES, TMP_FILES = 64 * 2**20, 4096
LONG_TEXT = 2**18  # characters
EXACT = 2**53  # below it, every whole float is one integer and every integer one float
FILE_BYTES, OPEN_FILES = 16 * 2**20, 64

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


def enter_namespaces(work: str, roots: list[str], own_user: bool) -> None:
    """Leave the machine's network, processes and files; what remains is a read-only folder tree of `roots` and an empty /tmp.

    `own_user`: also have a user for the program beside the one for all else, which root may.
    """
    uid, gid = os.getuid(), os.getgid()
    spaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
    if own_user:
        map_users(lambda: check(libc.unshare(spaces), "unshare"))
    else:
        check(libc.unshare(spaces), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    os.umask(0o022)  # the program may have to look into folders of another user
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", work, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path in roots:
        place = work + path
        if os.path.islink(path):  # /lib -> usr/lib
            os.symlink(os.readlink(path), place)
        elif os.path.exists(path) and not os.path.exists(place):  # the Python may lie inside /usr
            bind(path, place)
    for device in ("/dev/null", "/dev/zero", "/dev/urandom"):
        bind(device, work + device)
    os.mkdir(work + "/tmp")
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    at_root = ctypes.c_long(
        libc.syscall(SYS_MOUNT_SETATTR, -100, work.encode(), AT_RECURSIVE, attributes, ctypes.c_size_t(32))
    )
    check(at_root.value, "mount_setattr")
    mine = f"uid={NOBODY},gid={NOBODY}"
    mount(
        "tmpfs", work + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size={TMP_BYTES},nr_inodes={TMP_FILES},mode=700,{mine}"
    )
    # A process in a changed root may not make user namespaces of its own, so there is no way back to any capability.
    os.chroot(work)
    os.chdir("/tmp")


def map_users(unshare: Callable[[], None]) -> None:
    """Root and nobody stay who they are in the user namespace that `unshare` makes. Only a process left outside may say so."""
    ready, done = os.pipe(), os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(ready[1])
        try:
            if os.read(ready[0], 1):
                for name in ("uid_map", "gid_map"):
                    with open(f"/proc/{os.getppid()}/{name}", "w") as file:
                        file.write(f"0 0 1\n{NOBODY} {NOBODY} 1\n")
                os.write(done[1], b"1")
        finally:
            os._exit(0)
    os.close(done[1])
    try:
        unshare()
        os.write(ready[1], b"1")
        if not os.read(done[0], 1):
            raise OSError("the users of the namespace could not be mapped")
    finally:
        for end in (*ready, done[0]):
            os.close(end)
        os.waitpid(helper, 0)


def bind(source: str, target: str) -> None:
    """Show a file or folder at another place."""
    if os.path.isdir(source):
        os.makedirs(target)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    mount(source, target, None, MS_BIND | MS_REC)


def die_with_parent() -> None:
    """Be killed when the process that forked this one ends. Any change of capabilities undoes this."""
    check(libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "pdeathsig")


def drop_privileges(own_user: bool) -> None:
    """No capabilities, and none to be gained by starting another program. Where there is one, the program's own user."""
    if own_user:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def filter_calls(program: tuple[bytes, int] | None) -> bool:
    """Refuse system calls (see `evaluation.sandbox.seccomp`); whether that is in force. Needs `drop_privileges` before it."""
    if program is None:
        return False
    steps, place = program
    steps = steps[:place] + os.getpid().to_bytes(4, "little") + steps[place + 4 :]
    text = ctypes.create_string_buffer(steps, len(steps))
    header = (ctypes.c_uint64 * 2)(len(steps) // 8, ctypes.addressof(text))
    return bool(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) == 0)


def restrict_files(ruleset: tuple[bytes, list[tuple[str, int]]] | None) -> bool:
    """Follow rules on files (see `evaluation.sandbox.landlock`); whether they are in force. Needs `drop_privileges` before it."""
    if ruleset is None:
        return False
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
    return True


def limit(cpu_s: int, memory: int, threads: int | None) -> None:
    """Limits on CPU seconds, address space, file size, open files and threads; the hard ones, so the program cannot raise them."""
    for kind, value in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_NPROC, threads),
        (
            resource.RLIMIT_CORE,
            1,
        ),  # less than any dump has; 0 would let a program of the machine that collects dumps have one
    ):
        if value is None:
            continue
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def encode(value: Any, canonical: bool = False) -> str:
    """The text of one value (see `evaluation.sandbox.values`).

    `canonical`: one text for equal values, for digests. Numbers as integers where they are whole and small, as floats where they are large
    and one is equal; sets and dicts in the order of their items' texts.
    """
    kind = type(value)
    if value is None:
        return "null"
    if kind is bool and not canonical:
        return "true" if value else "false"
    if issubclass(kind, int):
        value = int.__index__(value)
        whole = as_float(value) if canonical and not -EXACT < value < EXACT else None
        return f'"i{value:x}"' if whole is None else f'"f{whole.hex()}"'
    if issubclass(kind, float):
        if canonical and -EXACT < value < EXACT and float.is_integer(value):
            return f'"i{float.__int__(value):x}"'
        return f'"f{float.hex(value)}"'
    if issubclass(kind, complex):
        value = complex.__pos__(value)
        return (
            encode(value.real, True)
            if canonical and not value.imag
            else f'["c", "{value.real.hex()}", "{value.imag.hex()}"]'
        )
    if issubclass(kind, str):
        return str(encode_basestring_ascii("s" + str.__str__(value)))
    for mark, base in (("l", list), ("t", tuple), ("S", set), ("F", frozenset)):
        if issubclass(kind, base):
            items = [encode(item, canonical) for item in base.__iter__(value)]
            if canonical and mark in "SF":
                mark = "S"
                items.sort()
            return f'["{mark}"' + "".join([", " + item for item in items]) + "]"
    if issubclass(kind, dict):
        pairs = [f", {encode(key, canonical)}, {encode(item, canonical)}" for key, item in dict.items(value)]
        return '["d"' + "".join(sorted(pairs) if canonical else pairs) + "]"
    if issubclass(kind, bytes):
        return f'["b", "{bytes.hex(value)}"]'
    return '["?"]'


def as_float(value: int) -> float | None:
    """The equal float, if there is one."""
    try:
        whole = float(value)
    except OverflowError:
        return None
    return whole if whole == value else None


def pack(value: Any) -> str:
    """The text of one value, or a digest in its place where the text is long: HumanEval+ has results of hundreds of megabytes."""
    text = encode(value)
    if len(text) <= LONG_TEXT:
        return text
    # What decides is the length of the canonical text, so that of two equal values either both are sent as digests or none.
    same_for_equals = encode(value, canonical=True)
    if len(same_for_equals) <= LONG_TEXT:
        return text
    if '["?"]' in same_for_equals:  # a digest must not make two values equal that are equal to nothing
        return '["?"]'
    return f'["h", "{blake2b(same_for_equals.encode()).hexdigest()}"]'


def run_program(order: dict[str, Any]) -> str:
    """Run the sections, then the expressions or calls. The result as lines: [status, detail, number of values], and the values."""
    module = type(sys)("program")
    sys.modules["program"] = module  # dataclasses and pickle look a class's module up
    values = []
    status, detail = "done", ""
    try:
        for number, source in enumerate(order["sections"]):
            exec(compile(source, f"<section {number}>", "exec", dont_inherit=True), module.__dict__)
        for source in order["expressions"]:
            values.append(pack(eval(compile(source, "<test>", "eval", dont_inherit=True), module.__dict__)))
        for arguments in marshal.loads(order["inputs"]):
            values.append(pack(module.__dict__[order["entry_point"]](*arguments)))
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are failures like any other here
        status, detail = "raised", describe(error)
    header = f"[{encode_basestring_ascii(status)}, {encode_basestring_ascii(detail)}, {len(values)}]"
    return "\n".join([header, *values])


def describe(error: BaseException) -> str:
    """Type and message of an exception, also of one whose message cannot be made."""
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:  # noqa: BLE001 - its message is the program's own code
        return type(error).__name__


def main() -> None:
    """The outermost process: lock in, fork, and wait."""
    channel = int(sys.argv[1])
    order = marshal.loads(sys.stdin.buffer.read())
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    try:
        if order["level"] == "namespaces":
            enter_namespaces(order["work"], order["roots"], order["own_user"])
        else:
            check(
                libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "child_subreaper"
            )  # orphans become its children, see `end_all`
        # No process of the same user may trace this one or write to its memory; those forked from it inherit that.
        check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")
        die_with_parent()
        if os.getppid() != order["caller"]:  # it ended before it was watched
            return
        pid = os.fork()
    except OSError as error:
        os.write(channel, f"{error}\n".encode())
        return
    if pid == 0:
        watch(channel, order)
    # Ending by a signal would leave the child to whoever is process 1, which in a container may be a program that reaps no children.
    signal(SIGTERM, lambda *_: os.kill(pid, SIGKILL))
    os.waitpid(pid, 0)
    signal(SIGTERM, SIG_IGN)  # the number may be another's by now
    end_all()


def end_all() -> None:
    """End what the program left behind where no process namespace has ended it: whoever loses its parent becomes a child of this one."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                for child in children():
                    os.kill(child, SIGKILL)
                os.waitpid(-1, 0)
        except ChildProcessError:
            return


def children() -> list[int]:
    """Processes whose parent is this one."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid():
            found.append(int(name))
    return found


def watch(channel: int, order: dict[str, Any]) -> NoReturn:
    """The second process: fork the program's, and say how it ended."""
    try:
        die_with_parent()
        pid = os.fork()
    except OSError as error:
        os.write(channel, f"{error}\n".encode())
        os._exit(1)
    if pid == 0:
        confine(channel, order)
    _, status, usage = os.wait4(pid, 0)
    signal_number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
    os.write(channel, f"\nend {signal_number} {exit_code} {usage.ru_utime + usage.ru_stime:.3f}\n".encode())
    os._exit(0)


def confine(channel: int, order: dict[str, Any]) -> NoReturn:
    """The third process: give up everything, run the program, send the result."""
    try:
        if order["level"] == "namespaces":
            os.setsid()  # signals to its own group must not reach the outermost process; without namespaces, the group's end is its end
        drop_privileges(order["own_user"])
        die_with_parent()
        limit(order["cpu_s"], order["memory"], order["threads"])
        restrict_files(order["rules"])
        filter_calls(order["filter"])
    except OSError as error:
        os.write(channel, f"{error}\n".encode())
        os._exit(1)
    token = order.pop("token")
    os.write(channel, b"ready\n")
    text = run_program(order)
    data = memoryview(f"{token} {text}\n".encode())
    while data:
        data = data[os.write(channel, data) :]
    os._exit(0)


main()
