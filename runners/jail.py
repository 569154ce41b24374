"""What a sandbox is made of: mounts, environment, bwrap command line or landlock rules. Plans only."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runners import cache, seccomp
from runners.guardian import SLOT_ROOT

FIRST_UID = 1777  # slot N runs as uid FIRST_UID + N, a number without an account
HERE = Path(__file__).resolve().parent
INSIDE_FILES = ("zygote.py", "inside_call.py", "probe.py", "cuda.py")
PLAIN_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/sys/devices/system/cpu")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Limits:
    """What one sandbox may use. `processes` counts threads, the zygote and bwrap too."""

    memory_bytes: int = 4 << 30
    processes: int = 64
    scratch_bytes: int = 512 << 20  # counts as memory as well
    open_files: int = 1024
    file_bytes: int = 512 << 20  # the largest single file
    cache_bytes: int = cache.LARGEST  # of the compile cache that may be kept
    cache_entries: int = cache.MOST_ENTRIES


@dataclass(frozen=True)
class Jail:
    """Everything that decides what one sandbox can see. `environment` is added to the clean one."""

    slot: int
    inside: Path
    limits: Limits
    devices: tuple[str, ...] = ()
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    loopback: bool = False

    @property
    def uid(self) -> int | None:
        """The user to become, None where the lab itself is an ordinary user."""
        return FIRST_UID + self.slot if os.geteuid() == 0 else None

    @property
    def guardian(self) -> Path:
        """The program between the lab and the sandbox."""
        return HERE / "guardian.py"

    @property
    def slot_folder(self) -> Path:
        """Where the guardian gathers what an ordinary user could not reach; in its mount namespace only."""
        return SLOT_ROOT / f"slot-{self.slot}"

    def sources(self) -> dict[str, str]:
        """Name below the slot folder: what lies there."""
        found = {f"zygote/{name}": str(HERE / name) for name in INSIDE_FILES}
        found["inside"] = str(self.inside.resolve(strict=True))
        found |= {f"python-{number}": str(path) for number, path in enumerate(interpreter_folders())}
        return found | {f"dev{node}": node for node in (*PLAIN_DEVICES, *self.devices)}

    def interpreter(self) -> dict[str, str]:
        return {name: path for name, path in self.sources().items() if name.startswith("python-")}

    def source(self, name: str) -> str:
        """The path to mount from: below the slot folder as root, the original otherwise."""
        return self.sources()[name] if self.uid is None else str(self.slot_folder / name)

    def clean_environment(self, scratch: str) -> dict[str, str]:
        variables = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": scratch,
            "TMPDIR": scratch,
            "USER": "candidate",  # torch's caches ask for a user name, and the uid has none
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TORCHINDUCTOR_CACHE_DIR": f"{scratch}/cache/inductor",
            "TRITON_CACHE_DIR": f"{scratch}/cache/triton",
            **dict.fromkeys(_THREAD_VARIABLES, str(self.threads)),
        }
        if "OPENBLAS_CORETYPE" in os.environ:
            variables["OPENBLAS_CORETYPE"] = os.environ["OPENBLAS_CORETYPE"]
        return variables | dict(self.environment)

    def python(self, zygote: str, control: int) -> list[str]:
        return [sys.executable, "-I", "-B", "-W", "ignore", zygote, str(control)]

    def bwrap(self, program: str, control: int, info: int, filter_fd: int) -> list[str]:
        """The command line of bubblewrap; all is read-only but /scratch and the data of device nodes."""
        argv = [
            program,
            "--unshare-all",
            "--unshare-user",
            "--die-with-parent",
            "--new-session",
            "--as-pid-1",
        ]
        argv += ["--hostname", "sandbox", "--info-fd", str(info), "--seccomp", str(filter_fd)]
        if knows_disable_userns(program):  # before 0.8 the system call filter alone stops nested namespaces
            argv.append("--disable-userns")
        argv += self._system_mounts()
        for name in (f"zygote/{file}" for file in INSIDE_FILES):
            argv += ["--ro-bind", self.source(name), f"/{name}"]
        argv += ["--ro-bind", self.source("inside"), "/inside"]
        for name, path in self.interpreter().items():
            argv += ["--ro-bind", self.source(name), path]
        argv += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--tmpfs", "/dev"]
        for node in (*PLAIN_DEVICES, *self.devices):
            argv += ["--dev-bind", self.source(f"dev{node}"), node]
        argv += ["--symlink", "/proc/self/fd", "/dev/fd", "--symlink", "/scratch", "/dev/shm"]
        argv += ["--symlink", "/scratch/cache", "/cache"]
        if not any(Path(path).is_relative_to("/tmp") for path in self.interpreter().values()):
            argv += ["--symlink", "/scratch", "/tmp"]
        argv += ["--size", str(self.limits.scratch_bytes), "--tmpfs", "/scratch"]
        argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/scratch", "--clearenv"]
        for key, value in self.clean_environment("/scratch").items():
            argv += ["--setenv", key, value]
        return [*argv, "--", *self.python("/zygote/zygote.py", control)]

    def _system_mounts(self) -> list[str]:
        argv = ["--ro-bind", "/usr", "/usr"]
        for top in map(Path, _SYSTEM):
            if top.is_symlink():
                argv += ["--symlink", str(top.readlink()), str(top)]
            elif top.is_dir():
                argv += ["--ro-bind", str(top), str(top)]
        for path in _SYSTEM_FILES:
            argv += ["--ro-bind-try", path, path]
        return argv + (["--ro-bind", "/sys", "/sys"] if self.devices else [])

    def fence(self, scratch: str, *, landlocked: bool) -> dict[str, object]:
        """The rules of the fallback without namespaces."""
        own = [self.source("inside"), str(Path(self.source("zygote/zygote.py")).parent)]
        readable = ["/usr", *_SYSTEM, *_SYSTEM_FILES, "/proc", *self.interpreter().values(), *own]
        return {
            "landlock": landlocked,
            "readable": [*readable, "/sys"] if self.devices else readable,
            "devices": [*PLAIN_DEVICES, *self.devices],
            "writable": [scratch],
            "seccomp": base64.b64encode(self.filter()).decode(),
        }

    def filter(self) -> bytes:
        return seccomp.program(loopback=self.loopback)


def interpreter_folders() -> list[Path]:
    """Every folder this interpreter needs at its own path: prefixes, libraries, the links that lead to it."""
    wanted = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
    wanted += [os.path.realpath(path) for path in wanted]
    wanted += [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    link = Path(sys.executable)
    while True:
        wanted.append(str(link.parent))
        if not link.is_symlink():
            break
        link = Path(os.path.normpath(link.parent / link.readlink()))
    kept: list[Path] = []
    for path in sorted({Path(item) for item in wanted}, key=lambda item: len(item.parts)):
        system = (Path("/usr"), *map(Path, _SYSTEM))
        if path.is_dir() and not any(path.is_relative_to(above) for above in (*system, *kept)):
            kept.append(path)
    return kept


def find_bwrap() -> str | None:
    return shutil.which("bwrap", path="/usr/bin:/usr/local/bin:/bin")


def knows_disable_userns(program: str) -> bool:
    text = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=10, check=False)
    return "--disable-userns" in text.stdout + text.stderr
