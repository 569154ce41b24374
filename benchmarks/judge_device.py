"""What a judge does with its device, whatever the benchmark: say what it is, share memory of it with a candidate."""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

import torch

from runners import cuda


class Shared:
    """Memory that a candidate's process maps too, by its descriptor; `bytes` is uint8 [size].

    On a GPU it is the device's own (docs/decisions/0009). The other end can write to it at any time, but cannot change
    its size: a file that shrinks ends whoever reads it.
    Raises torch.OutOfMemoryError or cuda.CudaError where the device has no room.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._device = self._memory = self._map = None
        if device.type == "cuda":
            self._device = cuda.Device()
            self.descriptor, self._memory = self._device.share(max(size, 1))
            self.bytes = torch.as_tensor(self._memory, device=device)
        else:
            self.descriptor = os.memfd_create("shared", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self.descriptor, max(size, 1))
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._map = mmap.mmap(self.descriptor, max(size, 1), mmap.MAP_SHARED | mmap.MAP_POPULATE)
            self.bytes = torch.frombuffer(self._map, dtype=torch.uint8)
        self.size = len(self.bytes)

    def close(self) -> None:
        """No tensor may be left that lies in it."""
        del self.bytes
        if self._device is not None and self._memory is not None:
            self._device.free(self._memory)
        if self._map is not None:
            self._map.close()
        os.close(self.descriptor)


def about(device: torch.device) -> dict[str, str]:
    """What a judge works on, for the record of a trial."""
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    memory = f"{properties.total_memory / 2**30:.1f} GiB"
    found = {"gpu": properties.name, "gpu_memory": memory, "cuda": str(torch.version.cuda)}
    version = Path("/proc/driver/nvidia/version")
    if version.is_file() and (words := version.read_text().partition("Kernel Module")[2].split()):
        found["gpu_driver"] = next((word for word in words if word[0].isdigit()), "")
    return found
