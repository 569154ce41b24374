"""For whoever watches the lab from outside: does the process live, and can it do its work? No sign-in, no secrets."""

from __future__ import annotations

import shutil
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Max
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from research.models import Machine
from runners.queues import last_beat

BEAT_SECONDS = 30.0  # the control worker beats every 3 s, a machine every 4 s
DISK_BYTES = 200 << 20


@login_not_required
@never_cache
@require_safe
def alive(request: HttpRequest) -> HttpResponse:
    """This process answers. Asks nobody, so that a slow database does not get a live server restarted."""
    return HttpResponse("ok\n", content_type="text/plain")


@login_not_required
@never_cache
@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """200 where database, migrations, control worker and disk are as they should be; 503 with what is not.

    Machines are told of, but the lab is ready without one.
    """
    try:
        migrated, seen = _migrated(), Machine.objects.aggregate(seen=Max("seen"))["seen"]
    except Error:
        return JsonResponse({"ready": False, "database": False}, status=503)
    beat, free = last_beat(), shutil.disk_usage(settings.DATA_DIR).free
    state = {
        "database": True,
        "migrations": migrated,
        "control": beat is not None and beat < BEAT_SECONDS,
        "disk": free > DISK_BYTES,
    }
    good = all(state.values())
    machine = seen is not None and timezone.now() - seen < timedelta(seconds=BEAT_SECONDS)
    return JsonResponse({"ready": good, **state, "machine": machine}, status=200 if good else 503)


def _migrated() -> bool:
    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())
