"""Two small pages: charts by their specs, and a section that the live path refreshes."""

from __future__ import annotations

import json

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from research.models import Event, Project


def charts(request: HttpRequest) -> HttpResponse:
    """`?charts=` is a JSON list of specs; each gets the id `chart-N`. NOTES in it is the number of notes so far."""
    notes = Event.objects.filter(kind=Event.Kind.NOTE)
    text = request.GET.get("charts", "[]").replace("NOTES", str(notes.count()))
    page = "charts_part.html" if request.GET.get("part") else "charts.html"
    specs = [json.dumps(spec) for spec in json.loads(text)]
    return render(request, page, {"specs": specs, "seq": Event.objects.head()})


def news(request: HttpRequest) -> HttpResponse:
    """Sections of the newest events: one plain, one held under the pointer, one far down the page."""
    page = "news_part.html" if request.GET.get("part") else "news.html"
    names = [request.GET["part"]] if request.GET.get("part") else ["held", "plain", "far"]
    topic = f"project:{Project.objects.get().public_id}"
    events = Event.objects.filter(kind=Event.Kind.NOTE)
    return render(request, page, {"names": names, "topic": topic, "events": events, "seq": Event.objects.head()})
