"""What every answer passes: the content security policy, and static files that are read once.

Django 6 brings a policy of its own; this one serves Django 5.2 as well, and is one way for both.
"""

from __future__ import annotations

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpResponse
from django.http.request import HttpRequest
from django.http.response import HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware

POLICY = "Content-Security-Policy"


class ContentSecurityPolicy:
    """Sets the policy of the settings where a view has set none of its own (artifacts have a stricter one)."""

    sync_capable = async_capable = True

    def __init__(self, get_response):  # type: ignore[no-untyped-def]
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest):  # type: ignore[no-untyped-def]
        if iscoroutinefunction(self):
            return self._later(request)
        return self._mark(self.get_response(request))

    async def _later(self, request: HttpRequest) -> HttpResponseBase:
        return self._mark(await self.get_response(request))

    @staticmethod
    def _mark(response: HttpResponseBase) -> HttpResponseBase:
        response.headers.setdefault(POLICY, settings.CONTENT_SECURITY_POLICY)
        return response


class StaticFiles(WhiteNoiseMiddleware):  # type: ignore[misc]  # whitenoise has no types
    """WhiteNoise without a stream: an answer that Django can compress, and that ASGI need not consume in a thread.

    Addresses carry a digest of all static files (`settings.STATIC_URL`), so browsers may keep them for ever.
    """

    @staticmethod
    def serve(static_file, request: HttpRequest) -> HttpResponse:  # type: ignore[no-untyped-def]
        found = static_file.get_response(request.method, request.META)
        body = b""
        if found.file is not None:
            with found.file as file:
                body = file.read()
        headers = dict(found.headers)
        return HttpResponse(body, status=int(found.status), headers=headers)

    def immutable_file_test(self, path: str, url: str) -> bool:
        return not self.autorefresh and url.startswith(self.static_prefix)
