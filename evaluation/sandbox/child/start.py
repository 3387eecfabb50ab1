"""The script that a child begins with: loads the other modules of this folder, compiled and by path, and serves.

`sys.path` names the standard library alone and `sys.modules` none of these, so a program can neither import them nor
have another module taken for one of them.
"""

import marshal
import sys

PACKAGE, HEADER_BYTES = "evaluation.sandbox.child", 16  # of a .pyc file; the code follows
FOLDER = __file__.rpartition("/")[0]

package = sys.modules[PACKAGE] = type(sys)(PACKAGE)
for name in ("isolation", "packages", "program", "cases", "native", "main"):  # each after those that it imports
    module = sys.modules[f"{PACKAGE}.{name}"] = type(sys)(name)
    setattr(package, name, module)
    with open(f"{FOLDER}/{name}.pyc", "rb") as file:
        exec(marshal.loads(file.read()[HEADER_BYTES:]), module.__dict__)
for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
    del sys.modules[name]
with open(f"{FOLDER}/packages", "rb") as file:
    found = marshal.loads(file.read())
module.serve(found)
