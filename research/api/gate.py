"""The MCP server within the web process: started by the first request, behind the same tokens as the HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.conf import settings

from research.api.door import TooOften, Unknown, token_of
from research.api.entrance import problem

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class McpGate:
    """An ASGI application. Every request stands alone, so a restart of the web process ends nobody's session."""

    def __init__(self) -> None:
        self.manager: StreamableHTTPSessionManager | None = None
        self.running: asyncio.Task[None] | None = None
        self.starting = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        address = (scope.get("client") or ("",))[0]
        try:
            await sync_to_async(token_of)(header, address)
        except Unknown as error:
            await _refuse(send, 401, str(error), "make a token on the settings page")
        except TooOften as error:
            await _refuse(send, 429, str(error), f"wait {error.seconds:.0f} s")
        else:
            manager = await self._manager()
            await manager.handle_request(scope, receive, send)

    async def _manager(self) -> StreamableHTTPSessionManager:
        async with self.starting:
            if self.manager is None or self.running is None or self.running.done():
                ready: asyncio.Future[StreamableHTTPSessionManager] = asyncio.get_running_loop().create_future()
                self.running = asyncio.create_task(self._run(ready))
                self.manager = await ready
        return self.manager

    async def _run(self, ready: asyncio.Future[StreamableHTTPSessionManager]) -> None:
        # In a thread: the SDK takes half a second to import, in which no live page would hear anything.
        make = (await asyncio.to_thread(import_module, "research.api.mcp")).make
        from mcp.server.transport_security import TransportSecuritySettings

        hosts = [name for host in settings.ALLOWED_HOSTS for name in (host, f"{host}:*")]
        origins = [f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")]
        safe = TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=origins)
        server = make()
        server.streamable_http_app(json_response=True, stateless_http=True, transport_security=safe)
        async with server.session_manager.run():
            ready.set_result(server.session_manager)
            await asyncio.Event().wait()


async def _refuse(send: Send, status: int, error: str, do: str) -> None:
    body = problem(error, do)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
