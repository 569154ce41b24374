"""Landlock, the second-best fence: file system and TCP rules a process puts on itself, no namespace needed.

Used where user namespaces are switched off or bubblewrap is missing. It hides no process and caps nothing.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

NEEDED_ABI = 4  # Linux 6.7: the first with TCP rules
_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same numbers on x86-64 and aarch64
_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE = 1, 2, 4, 8, 1 << 14
_EVERY_FILE_RIGHT = (1 << 15) - 1
_BIND_TCP_AND_CONNECT_TCP = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3
_NO_NEW_PRIVILEGES = 38


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The Landlock version of this kernel, 0 where there is none."""
    return max(0, int(_libc().syscall(_CREATE, None, ctypes.c_size_t(0), 1)))


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        rights &= _EXECUTE | _WRITE | _READ | _TRUNCATE
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, beneath), 0):
            raise OSError(ctypes.get_errno(), f"landlock refused a rule for {path}")
    finally:
        os.close(beneath)


def restrict(readable: Iterable[Path], devices: Iterable[Path], writable: Iterable[Path]) -> None:
    """Close the file system but for these paths, and TCP altogether, for this process and its descendants.

    Raises OSError where the kernel has no Landlock of the needed version.
    """
    version = abi()
    if version < NEEDED_ABI:
        raise OSError(f"landlock version {version}, needed {NEEDED_ABI}")
    libc = _libc()
    scopes = _ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0
    attributes = struct.pack("=QQQ", _EVERY_FILE_RIGHT, _BIND_TCP_AND_CONNECT_TCP, scopes)
    if version < 6:
        attributes = attributes[:16]
    ruleset = libc.syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock refused the ruleset")
    try:
        for path in readable:
            _allow(libc, ruleset, path, _EXECUTE | _READ | _LIST)
        for path in devices:
            _allow(libc, ruleset, path, _READ | _WRITE)
        for path in writable:
            _allow(libc, ruleset, path, _EVERY_FILE_RIGHT)
        if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.syscall(_RESTRICT, ruleset, 0):
            raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    finally:
        os.close(ruleset)
