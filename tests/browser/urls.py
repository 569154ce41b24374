"""The lab's addresses, and a page that shows whatever charts a test asks for."""

from django.urls import include, path

from tests.browser import views

urlpatterns = [
    path("test/charts/", views.charts),
    path("test/news/", views.news),
    path("", include("recursive_web.urls")),
]
