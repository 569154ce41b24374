"""Artifact: immutable bytes named by content hash, kept in the data folder."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from django.conf import settings
from django.db import models
from django.utils import timezone


class Artifact(models.Model):
    sha256 = models.CharField(max_length=64, unique=True)
    size = models.PositiveBigIntegerField()
    created = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.sha256[:12]} ({self.size} bytes)"

    @property
    def path(self) -> Path:
        return Path(settings.DATA_DIR) / "artifacts" / self.sha256[:2] / self.sha256

    @classmethod
    def store(cls, content: bytes) -> Artifact:
        """Keep `content`, once. A half-written file is never visible: it is renamed into place."""
        digest = hashlib.sha256(content).hexdigest()
        artifact = cls(sha256=digest, size=len(content))
        if not artifact.path.exists():
            artifact.path.parent.mkdir(parents=True, exist_ok=True)
            partial = artifact.path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            partial.write_bytes(content)
            partial.replace(artifact.path)
        return cls.objects.get_or_create(sha256=digest, defaults={"size": len(content)})[0]

    def read(self) -> bytes:
        return self.path.read_bytes()
