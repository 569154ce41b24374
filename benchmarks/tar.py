"""A candidate's files as the tar that a sandbox takes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Mapping


def pack(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def only(tree: bytes, folders: Collection[str]) -> bytes:
    """The files of these folders of a tree, in order; of the same files the same bytes."""
    with tarfile.open(fileobj=io.BytesIO(tree)) as tar:
        files = {
            entry.name: tar.extractfile(entry)
            for entry in sorted(tar.getmembers(), key=lambda entry: entry.name)
            if entry.isfile() and entry.name.partition("/")[0] in folders
        }
        return pack({name: file.read() for name, file in files.items() if file is not None})
