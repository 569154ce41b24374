"""Mounts the pages of the lab and the admin."""

from django.contrib import admin
from django.urls import include, path

from research.api import entrance
from research.views.signin import admin_door

urlpatterns = [
    path("admin/login/", admin_door),
    path("admin/", admin.site.urls),
    path("api/v1/<path:rest>", entrance.version_1),
    path("", include("research.urls")),
]
