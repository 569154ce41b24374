"""Mounts the admin; the pages of the lab join it in `research.urls`."""

from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
