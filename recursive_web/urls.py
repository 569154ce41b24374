"""Mounts the pages of the lab and the admin."""

from django.contrib import admin
from django.urls import include, path, re_path

from research.api import entrance
from research.views.signin import admin_door

urlpatterns = [
    path("admin/login/", admin_door),
    path("admin/", admin.site.urls),
    re_path(r"^api/v1/(?P<rest>(?s:.+))\Z", entrance.version_1),  # `path:` ends at a line break
    path("", include("research.urls")),
]
