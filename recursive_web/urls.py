"""Mounts the pages of the lab and the admin."""

from django.contrib import admin
from django.urls import include, path

from research.api import http

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/", http.patterns()),
    path("", include("research.urls")),
]
