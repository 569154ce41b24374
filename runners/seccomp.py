"""The system call filter of the sandbox, as classic BPF bytes. No state, no I/O.

A deny-list: what torch, numpy and Triton call stays open, what reaches another process, outlives a process
(SysV shared memory, message queues, keys) or is a known way into the kernel is refused. It runs on x86-64 and
aarch64; any other ABI (i386, x32) kills the process, since its numbers would mean something else here.
Costs nothing measurable on Linux >= 5.11: the kernel caches the answer for numbers that do not look at
arguments.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

# name: (x86-64, aarch64); -1 where the architecture has no such call.
DENIED: dict[str, tuple[int, int]] = {
    # other processes, and the zygote above all
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "sched_setaffinity": (203, 122),  # a trial stays on the core it was pinned to
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # objects that outlive the process that made them
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmdt": (67, 197),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "mq_timedsend": (242, 182),
    "mq_timedreceive": (243, 183),
    "mq_notify": (244, 184),
    "mq_getsetattr": (245, 185),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # namespaces and mounts
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "setns": (308, 268),
    "unshare": (272, 97),
    # large kernel surfaces a training run has no use for
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "memfd_secret": (447, 447),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "lookup_dcookie": (212, 18),
    "personality": (135, 92),
    "vhangup": (153, 58),
    "syslog": (103, 116),
    "modify_ldt": (154, -1),
    "uselib": (134, -1),
    "iopl": (172, -1),
    "ioperm": (173, -1),
    # the machine
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "nfsservctl": (180, 42),
}
# name: (x86-64, aarch64) of the calls whose arguments decide.
CLONE, CLONE3, IOCTL, PRLIMIT, SOCKET = (56, 220), (435, 435), (16, 29), (302, 261), (41, 198)
NEWEST_KNOWN = 450  # what came later answers ENOSYS, and libc falls back
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
X32_BIT = 0x40000000

_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW NS|CGROUP|UTS|IPC|USER|PID|NET
_TERMINAL_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16


def _op(code: int, k: int, when: int = 0, unless: int = 0) -> bytes:
    return struct.pack("<HBBI", code, when, unless, k)


def _refuse(error: int) -> bytes:
    return _op(_RETURN, _ERRNO | error)


def _argument(index: int) -> bytes:
    """Load the low half of one argument; both architectures are little endian."""
    return _op(_LOAD, 16 + 8 * index)


def _case(number: int, body: list[bytes]) -> list[bytes]:
    """`body` for one call; it may fall out of its end, which means allowed."""
    block = [*body, _op(_RETURN, _ALLOW)]
    return [_op(_EQUAL, number, 0, len(block)), *block]


def program(machine: str | None = None, *, loopback: bool = False) -> bytes:
    """The filter for `machine` (default: this one) as packed `sock_filter` rows.

    Without `loopback` only unix sockets can be made. Even in a network namespace of its own, TCP to itself
    would leave TIME_WAIT entries and counters behind that the next step can read; and AF_VSOCK is not
    namespaced at all. Raises KeyError on an architecture without a table.
    """
    column, audit = ARCHITECTURES[machine or platform.machine()]
    rows = [_op(_LOAD, 4), _op(_EQUAL, audit, 1, 0), _op(_RETURN, _KILL_PROCESS), _op(_LOAD, 0)]
    rows += [_op(_GREATER_EQUAL, X32_BIT, 0, 1), _op(_RETURN, _KILL_PROCESS)]
    rows += [_op(_GREATER_EQUAL, NEWEST_KNOWN + 1, 0, 1), _refuse(errno.ENOSYS)]
    for pair in DENIED.values():
        if pair[column] >= 0:
            rows += [_op(_EQUAL, pair[column], 0, 1), _refuse(errno.EPERM)]
    # The flags of clone3 lie behind a pointer, which BPF cannot follow: libc falls back to clone.
    rows += [_op(_EQUAL, CLONE3[column], 0, 1), _refuse(errno.ENOSYS)]
    rows += _case(CLONE[column], [_argument(0), _op(_ANY_BIT, _NEW_NAMESPACES, 0, 1), _refuse(errno.EPERM)])
    terminal = [_argument(1)]
    for request in _TERMINAL_INJECTION:
        terminal += [_op(_EQUAL, request, 0, 1), _refuse(errno.EPERM)]
    rows += _case(IOCTL[column], terminal)
    # Limits of oneself only: the kernel lets a child set those of the zygote, which has the same uid.
    rows += _case(PRLIMIT[column], [_argument(0), _op(_EQUAL, 0, 1, 0), _refuse(errno.EPERM)])
    families = [_UNIX, *((_INET, _INET6, _NETLINK) if loopback else ())]
    sockets = [_argument(0)]
    for position, family in enumerate(families):
        sockets.append(_op(_EQUAL, family, len(families) - position, 0))
    rows += _case(SOCKET[column], [*sockets, _refuse(errno.EAFNOSUPPORT)])
    rows.append(_op(_RETURN, _ALLOW))
    return b"".join(rows)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("rows", ctypes.c_char_p))


def install(filter_bytes: bytes) -> None:
    """Put the calling thread and all it will fork under the filter, for good. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    loaded = _Program(len(filter_bytes) // 8, filter_bytes)
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, mode_filter, ctypes.byref(loaded), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel refused the seccomp filter")
