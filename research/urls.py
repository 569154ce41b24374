"""Every address of the lab. Public ids and project names only; each page restores itself from its address."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from research.views import (
    compare,
    experiment,
    graph,
    health,
    lessons,
    machines,
    overview,
    palette,
    people,
    project,
    review,
    series,
    signin,
    thread,
)  # fmt: skip

urlpatterns = [
    path("", overview.page, name="overview"),
    path("projects/new/", project.new, name="new-project"),
    path("p/<slug:name>/", project.page, name="project"),
    path("p/<slug:name>/state/", project.state, name="project-state"),
    path("p/<slug:name>/threads/", project.add_thread, name="add-thread"),
    path("p/<slug:name>/graph/", graph.page, name="graph"),
    path("t/<slug:id>/", thread.page, name="thread"),
    path("t/<slug:id>/steer/", thread.steer, name="steer"),
    path("t/<slug:id>/state/", thread.state, name="thread-state"),
    path("e/<slug:id>/", experiment.page, name="experiment"),
    path("e/<slug:id>/more-seeds/", experiment.more_seeds, name="more-seeds"),
    path("e/<slug:id>/log/<slug:trial>/", experiment.log, name="trial-log"),
    path("compare/", compare.page, name="compare"),
    path("review/", review.queue, name="review"),
    path("review/<slug:id>/", review.page, name="merge-request"),
    path("review/<slug:id>/diff/<int:number>/", review.diff, name="request-diff"),
    path("review/<slug:id>/decide/", review.decide, name="decide"),
    path("machines/", machines.page, name="machines"),
    path("machines/<slug:id>/override/", machines.override, name="override-machine"),
    path("lessons/", lessons.page, name="lessons"),
    path("lessons/<int:pk>/", lessons.decide, name="lesson"),
    path("series/", series.history, name="series"),
    path("palette/", palette.search, name="palette"),
    path("settings/", people.settings, name="settings"),
    path("sign-in/", LoginView.as_view(redirect_authenticated_user=True), name="sign-in"),
    path("sign-in/<str:token>/", signin.by_link, name="sign-in-link"),
    path("sign-out/", LogoutView.as_view(next_page="sign-in"), name="sign-out"),
    path("healthz", health.alive, name="healthz"),
    path("readyz", health.ready, name="readyz"),
]
