"""Mounts the pages of the lab and the admin."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("", include("research.urls"))]
