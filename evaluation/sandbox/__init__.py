"""Running programs that nobody has read.

One program runs in a process of its own that sees no network, no other process, no environment and only the files a
Python needs, and that is ended when it takes too much time or memory. What it computes comes back as text and is
compared here, in the parent: expected values never enter the process, so nothing a program does there can make it pass.
`Sandbox.level` is the better level of two that works on the machine:

- `namespaces`: user, mount, network, process, IPC and host-name namespaces of Linux; a root folder of Python and system
  libraries, read-only, with a small private /tmp; no capabilities, and no way to get any. Needs no root, but a kernel
  that lets users make namespaces, which many containers forbid.
- `rlimits`: only limits on CPU time, memory, file size and open files, and what follows.

Both add, where the kernel has them:

- rules on files (`Sandbox.ruled`; Landlock): Python and its libraries can be read, a private folder written to, nothing
  else opened; in particular not /proc, where the memory of other processes of the user lies;
- a filter of system calls (`Sandbox.filtered`; x86-64 only): no processes beside the program's own, no other program in
  its place, no sockets but connected pairs, no signals to others, no tracing, no mounts, no session of its own. Threads
  work, at the level `namespaces` up to 256.

`Sandbox.unprotected` says what is missing on a machine. Never covered are faults of the kernel itself, channels such as
the time things take, and cores that a program keeps busy until its limit. The process that grades is not shut against
tracing as the sandbox's own are (PR_SET_DUMPABLE), or its user would lose debuggers and core dumps.
"""

from evaluation.sandbox.cases import CaseResult
from evaluation.sandbox.compiler import CompileError, NoCompiler, find_compiler
from evaluation.sandbox.packages import UnknownPackage, find_packages
from evaluation.sandbox.result import ProgramResult, SandboxError
from evaluation.sandbox.sandbox import Job, Level, Sandbox
from evaluation.sandbox.values import UNSENDABLE

__all__ = [
    "UNSENDABLE",
    "CaseResult",
    "CompileError",
    "Job",
    "Level",
    "NoCompiler",
    "ProgramResult",
    "Sandbox",
    "SandboxError",
    "UnknownPackage",
    "find_compiler",
    "find_packages",
]
