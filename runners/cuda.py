"""The CUDA driver by ctypes: device memory that two processes share, and one real kernel to show that the device works.

Standard library only: the judge's side imports it outside the sandbox, the harness inside it, where the lab does not
exist. Memory is shared as a descriptor (`cuMemCreate` with a POSIX handle) that travels over a socket, since CUDA's
older handles do not cross pid namespaces. docs/decisions/0009 says why.

Source of the calls: NVIDIA, CUDA Driver API, "Virtual Memory Management" and "Module Management".
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_PINNED, _POSIX_DESCRIPTOR, _ON_DEVICE, _READ_WRITE = 1, 1, 1, 3
_ZERO = ctypes.c_ulonglong()
_SQUARES = b"""
.version 7.0
.target sm_60
.address_size 64
.visible .entry squares(.param .u64 out)
{
    .reg .b32 %r<3>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [out];
    cvta.to.global.u64 %rd1, %rd1;
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;
    mul.lo.u32 %r2, %r1, %r1;
    st.global.u32 [%rd3], %r2;
    ret;
}
"""
_THREADS = 256
_SM_CLOCK, _OF_CHIP = 1, 0


class CudaError(OSError):
    """The driver refused a call; the text names it and the reason."""


class _Location(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("id", ctypes.c_int)]


class _Properties(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("handle_types", ctypes.c_int),
        ("location", _Location),
        ("win32", ctypes.c_void_p),
        ("flags", ctypes.c_ubyte * 8),
    ]


class _Access(ctypes.Structure):
    _fields_ = [("location", _Location), ("flags", ctypes.c_int)]


@dataclass(frozen=True)
class DeviceMemory:
    """`size` bytes at `pointer`, mapped into this process. Speaks `__cuda_array_interface__`, as bytes."""

    pointer: int
    size: int

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.size,), "typestr": "|u1", "data": (self.pointer, False), "version": 3}


class Device:
    """One device, in its primary context: the one that torch uses too."""

    def __init__(self, ordinal: int = 0) -> None:
        try:
            self._driver = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise CudaError(f"no CUDA driver: {error}") from None
        self._call("cuInit", 0)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), ordinal)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self._where = _Location(_ON_DEVICE, device.value)

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._driver, name)(*arguments):
            said = ctypes.c_char_p()
            self._driver.cuGetErrorName(code, ctypes.byref(said))
            raise CudaError(f"{name}: {(said.value or b'error').decode()} ({code})")

    def share(self, size: int) -> tuple[int, DeviceMemory]:
        """New memory of at least `size` bytes, and the descriptor under which another process may map it."""
        wanted = _Properties(type=_PINNED, handle_types=_POSIX_DESCRIPTOR, location=self._where)
        grain, handle, descriptor = ctypes.c_size_t(), ctypes.c_ulonglong(), ctypes.c_int(-1)
        self._call("cuMemGetAllocationGranularity", ctypes.byref(grain), ctypes.byref(wanted), 0)
        rounded = -(-size // grain.value) * grain.value
        self._call("cuMemCreate", ctypes.byref(handle), ctypes.c_size_t(rounded), ctypes.byref(wanted), _ZERO)
        self._call("cuMemExportToShareableHandle", ctypes.byref(descriptor), handle, _POSIX_DESCRIPTOR, _ZERO)
        return descriptor.value, self._map(handle, rounded)

    def free(self, memory: DeviceMemory) -> None:
        """Unmap shared memory. It ends when no process maps it and its descriptors are closed."""
        pointer, length = ctypes.c_ulonglong(memory.pointer), ctypes.c_size_t(memory.size)
        self._call("cuMemUnmap", pointer, length)
        self._call("cuMemAddressFree", pointer, length)

    def attach(self, descriptor: int, size: int) -> DeviceMemory:
        """Map the memory that another process shares; `size` is what its `share` returned."""
        handle = ctypes.c_ulonglong()
        self._call(
            "cuMemImportFromShareableHandle", ctypes.byref(handle), ctypes.c_void_p(descriptor), _POSIX_DESCRIPTOR
        )
        return self._map(handle, size)

    def _map(self, handle: ctypes.c_ulonglong, size: int) -> DeviceMemory:
        pointer, length, none = ctypes.c_ulonglong(), ctypes.c_size_t(size), ctypes.c_size_t()
        self._call(
            "cuMemAddressReserve", ctypes.byref(pointer), length, none, ctypes.c_ulonglong(), ctypes.c_ulonglong()
        )
        self._call("cuMemMap", pointer, length, none, handle, _ZERO)
        self._call("cuMemRelease", handle)  # the mapping keeps it alive
        access = _Access(self._where, _READ_WRITE)
        self._call("cuMemSetAccess", pointer, length, ctypes.byref(access), ctypes.c_size_t(1))
        return DeviceMemory(pointer.value, size)

    def synchronize(self) -> None:
        """Wait for all that this process has told the device, on every stream."""
        self._call("cuCtxSynchronize")

    def reset_persisting(self) -> None:
        """Let nothing stay in the L2 cache for longer than the rest."""
        self._call("cuCtxResetPersistingL2Cache")

    def squares(self) -> list[int]:
        """Run one kernel of 256 threads, each of which stores the square of its number; what came back."""
        module, kernel, out = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_ulonglong()
        self._call("cuModuleLoadData", ctypes.byref(module), _SQUARES)
        self._call("cuModuleGetFunction", ctypes.byref(kernel), module, b"squares")
        self._call("cuMemAlloc_v2", ctypes.byref(out), ctypes.c_size_t(4 * _THREADS))
        parameters = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.pointer(out), ctypes.c_void_p))
        self._call("cuLaunchKernel", kernel, 1, 1, 1, _THREADS, 1, 1, 0, None, parameters, None)
        found = (ctypes.c_uint * _THREADS)()
        self._call("cuMemcpyDtoH_v2", found, out, ctypes.c_size_t(4 * _THREADS))
        self._call("cuMemFree_v2", out)
        return list(found)

    def works(self) -> bool:
        """Whether a real kernel ran and its answer is right: nodes that can be opened are no proof."""
        return self.squares() == [number * number for number in range(_THREADS)]


def nodes(number: int = 0) -> tuple[str, ...]:
    """The device nodes that a CUDA process needs for one GPU, as far as this machine has them; empty without it."""
    if number not in range(len(gpus := _gpus())):
        return ()
    shared = (f"/dev/{name}" for name in ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"))
    return (gpus[number], *(path for path in shared if os.path.exists(path)))


def count() -> int:
    """How many GPUs this machine has device nodes for."""
    return len(_gpus())


def number_of(devices: Sequence[str]) -> int:
    """Which GPU of this machine, counted as the driver does, the nodes in `devices` belong to. Raises CudaError."""
    for number, path in enumerate(_gpus()):
        if path in devices:
            return number
    raise CudaError(f"no GPU among {', '.join(devices) or 'no devices'}")


def condition(number: int) -> dict[str, str]:
    """Clock in MHz, temperature and power of a GPU at this moment, as NVIDIA's management library tells them."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return {}
    handle, value, found = ctypes.c_void_p(), ctypes.c_uint(), {}
    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)):
        return {}
    for name, call, arguments in (
        ("gpu_megahertz", library.nvmlDeviceGetClockInfo, (_SM_CLOCK,)),
        ("gpu_celsius", library.nvmlDeviceGetTemperature, (_OF_CHIP,)),
        ("gpu_milliwatts", library.nvmlDeviceGetPowerUsage, ()),
    ):
        if not call(handle, *arguments, ctypes.byref(value)):
            found[name] = str(value.value)
    return found


def environment(number: int) -> dict[str, str]:
    """What a process outside every sandbox is told, so that this GPU is its only one."""
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(number)}


def _gpus() -> list[str]:
    """Nodes of the GPUs in the order of the PCI bus, which their numbers follow."""
    found = [name for name in os.listdir("/dev") if re.fullmatch(r"nvidia\d+", name)]
    return [f"/dev/{name}" for name in sorted(found, key=lambda name: int(name.removeprefix("nvidia")))]
