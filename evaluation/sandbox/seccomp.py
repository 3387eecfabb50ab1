"""The filter of system calls of every program: threads, files and memory work, processes and sockets do not, save pairs
of sockets that reach each other alone.

A limit on the number of processes (RLIMIT_NPROC) does not hold for root; a filter that refuses to make any does. The
program of the filter (classic BPF, see seccomp(2)) is made here and handed to the child, which imports nothing of this.
"""

import platform
import struct
from collections.abc import Collection

REFUSED = {
    # other programs and processes; `clone` is looked at more closely below
    "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "kill": 62, "tkill": 200, "rt_sigqueueinfo": 129,
    "rt_tgsigqueueinfo": 297, "pidfd_send_signal": 424, "pidfd_open": 434, "pidfd_getfd": 438, "ptrace": 101,
    "process_vm_readv": 310, "process_vm_writev": 311,
    # network and what else reaches other programs
    "socket": 41, "connect": 42, "accept": 43, "sendmsg": 46, "sendmmsg": 307, "bind": 49, "listen": 50,
    "accept4": 288, "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240, "memfd_create": 319,
    # another view of files
    "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442,
    "name_to_handle_at": 303, "open_by_handle_at": 304, "quotactl": 179,
    # parts of the kernel that no such program needs and that many attacks begin with
    "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "init_module": 175, "finit_module": 313,
    "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320, "reboot": 169, "swapon": 167, "swapoff": 168,
    "acct": 163, "personality": 135, "settimeofday": 164, "clock_settime": 227, "adjtimex": 159, "iopl": 172,
    "ioperm": 173, "modify_ldt": 154, "syslog": 103,
    # out of reach of who ends it, or in the way of others
    "setsid": 112, "setpgid": 109, "setpriority": 141, "ioprio_set": 251, "sync": 162, "syncfs": 306, "kcmp": 312,
    "process_madvise": 440, "process_mrelease": 448, "migrate_pages": 256, "move_pages": 279,
}  # fmt: skip
"""System calls that fail with EPERM, with their numbers on x86-64."""
REFUSED_ON_SHARED_FILES = {
    "chmod": 90, "fchmod": 91, "fchmodat": 268, "fchmodat2": 452, "chown": 92, "fchown": 93, "lchown": 94,
    "fchownat": 260, "utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280, "setxattr": 188, "lsetxattr": 189,
    "fsetxattr": 190, "setxattrat": 463, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199,
    "removexattrat": 466,
}  # fmt: skip
"""Refused as well where the user's files can be named: Landlock does not reach these."""
ONLY_WITH = {
    # the process that stands for the caller
    "prlimit64": (302, 0, 0), "sched_setaffinity": (203, 0, 0), "sched_setscheduler": (144, 0, 0),
    "sched_setparam": (142, 0, 0), "sched_setattr": (314, 0, 0),
    # AF_UNIX, a pair of sockets that reach each other alone, as asyncio needs it; and no address to send to
    "socketpair": (53, 0, 1), "sendto": (44, 4, 0),
}  # fmt: skip
"""Allowed only where one argument has one value: number of the call, place of the argument, value."""
REFUSED_OPTIONS = {
    # PR_SET_PDEATHSIG: to outlive the process that watches it; PR_SET_DUMPABLE: to be dumped where it crashes
    "prctl": (157, 0, (1, 4)),
    # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to others by way of a descriptor
    "fcntl": (72, 1, (8, 10, 15)),
}
"""Refused where one argument has one of these values: number of the call, place of the argument, values."""
CLONE, CLONE3, TGKILL, CLONE_THREAD, CLONE_NAMESPACES = 56, 435, 234, 0x10000, 0x7E020000
ARCHITECTURE = 0xC000003E  # x86-64
OTHER_ABI = 0x40000000  # numbers of the x32 calls, which would pass by the list
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, ERROR = 0x7FFF0000, 0x00050000
EPERM, ENOSYS = 1, 38
NUMBER, ARCH, ARGUMENT = 0, 4, 16  # offsets in what a filter sees; of an argument, its lower half


def program(*, shared_files: bool, allowed: Collection[str] = ()) -> tuple[bytes, int] | None:
    """The filter, and the offset of four bytes where the child writes its own process number; None but on x86-64.

    Args:
        shared_files: for a program that can name files that are not its own.
        allowed: calls of `REFUSED` that are let pass; with `fork`, also `clone`, but for namespaces.
    """
    if platform.machine() != "x86_64":
        return None
    allow, refuse, unknown = ((RETURN, answer, 0, 0) for answer in (ALLOW, ERROR | EPERM, ERROR | ENOSYS))
    code = [(LOAD, ARCH, 0, 0), (EQUAL, ARCHITECTURE, 1, 0), refuse]
    code += [(LOAD, NUMBER, 0, 0), (AT_LEAST, OTHER_ABI, 0, 1), refuse]

    def on(call: int, *steps: tuple[int, int, int, int]) -> None:
        """What to do on one system call; the others go on behind it."""
        code.extend([(EQUAL, call, 0, len(steps)), *steps])

    first = (LOAD, ARGUMENT, 0, 0)
    for name, call in (REFUSED | (REFUSED_ON_SHARED_FILES if shared_files else {})).items():
        if name not in allowed:
            on(call, refuse)
    for call, place, only in ONLY_WITH.values():
        lower, upper = ((LOAD, ARGUMENT + 8 * place + half, 0, 0) for half in (0, 4))
        on(call, lower, (EQUAL, only, 0, 2), upper, (EQUAL, 0, 1, 0), refuse, allow)
    for call, place, options in REFUSED_OPTIONS.values():
        among = [step for option in options for step in ((EQUAL, option, 0, 1), refuse)]
        on(call, (LOAD, ARGUMENT + 8 * place, 0, 0), *among, allow)
    if "fork" in allowed:
        on(CLONE, first, (ANY_BIT, CLONE_NAMESPACES, 0, 1), refuse, allow)
    else:
        on(CLONE, first, (ANY_BIT, CLONE_THREAD, 1, 0), refuse, allow)
    on(CLONE3, unknown)  # its flags lie in memory, out of sight; the C library then takes clone
    on(TGKILL, first, (EQUAL, 0, 1, 0), refuse, allow)  # abort() signals its own process
    own_number = 8 * (len(code) - 3) + 4
    code.append(allow)
    # For each step: its code, how many steps to skip where it is true and where it is false, and its value.
    return b"".join(struct.pack("=HBBI", step, true, false, value) for step, value, true, false in code), own_number
