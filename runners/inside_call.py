"""What a harness module finds inside the sandbox: `import inside_call`. Filled before its `main()` runs.

Standard library only: this file is mounted into the sandbox, where the rest of the lab does not exist.
"""

from __future__ import annotations

from typing import Any

step: str = ""  # the name given to Sandbox.spawn
args: dict[str, Any] = {}  # its JSON arguments
fds: dict[str, int] = {}  # its named descriptors
repo: str = ""  # the candidate's files, already extracted; also the working directory
scratch: str = ""  # the one writable folder
cache: str = ""  # in it: where compilers keep what they made; see runners/cache.py
