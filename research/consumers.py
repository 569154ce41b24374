"""The websocket of a browser tab: who may open it, and what it may say. What it is told comes from the hub."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from urllib.parse import urlsplit

from channels.consumer import get_handler_name
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.security.websocket import OriginValidator
from django.conf import settings
from django.db import Error

from research.live.frames import COMPACT
from research.live.hub import Hub
from research.live.messages import Ack, BadMessage, Message, Ping, Points, Watch, parse
from research.live.sockets import Socket, refusal
from research.models import Event

PROTOCOL = 1
OTHER_ORIGIN, TOO_MANY, TRY_LATER = 4403, 4429, 1013
MESSAGES_A_SECOND, BURST = 50, 250


class LiveConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    async def dispatch(self, message: dict[str, object]) -> None:
        """Channels would visit Django's shared thread before every message; nothing here reads rows there."""
        await getattr(self, get_handler_name(message))(message)

    async def connect(self) -> None:
        await self.accept()  # a browser is shown the closing code of an accepted socket only
        self.hub, self.allowance, self.heard = Hub.here(), float(BURST), monotonic()
        self.socket = Socket(self.scope["cookies"].get(settings.SESSION_COOKIE_NAME), self.tell, self.close)
        if not self.is_same_origin():
            return await self.socket.close(OTHER_ORIGIN)
        self.hub.join(self.socket)
        try:
            if await self.hub.look(self.socket) is not None:
                head = await self.hub.ask(Event.objects.head)
                await self.socket.send(COMPACT({"hello": PROTOCOL, "seq": head}))
        except Error:
            await self.socket.close(TRY_LATER)

    async def disconnect(self, code: int) -> None:
        await self.hub.leave(self.socket)

    async def tell(self, message: str | bytes) -> None:
        kind = "text" if isinstance(message, str) else "bytes"
        await self.base_send({"type": "websocket.send", kind: message})

    def is_same_origin(self) -> bool:
        """As Django has it for forms: the page's address is this server's, or a trusted one."""
        headers = dict(self.scope["headers"])
        origin, host = headers.get(b"origin", b"").decode("latin1"), headers.get(b"host", b"").decode("latin1")
        try:
            page = urlsplit(origin)
            is_allowed = OriginValidator(None, settings.ALLOWED_HOSTS).valid_origin(page if origin else None)
        except ValueError:
            return False
        return origin in settings.CSRF_TRUSTED_ORIGINS or (is_allowed and page.netloc == host)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        now = monotonic()
        self.allowance = min(self.allowance + (now - self.heard) * MESSAGES_A_SECOND, BURST) - 1
        self.heard = now
        if self.socket.is_closed:  # and the browser does not know yet
            return None
        if self.allowance < 0:
            return await self.socket.close(TOO_MANY)
        try:
            await self.answer(parse(text_data))
        except BadMessage as error:
            await self.socket.send(COMPACT({"error": str(error)}))
        except Error:
            await self.socket.close(TRY_LATER)

    async def answer(self, message: Message) -> None:
        match message:
            case Ack(number):
                if not self.socket.ack(number):
                    raise BadMessage(f"frame {number} was not sent")
            case Ping(number):
                await self.socket.send(COMPACT({"pong": number, "seq": self.socket.seq}))
            case Watch(topics):
                self.socket.watch(message, await self.admit(topics, trials=False))
            case Points(trials):
                self.socket.follow(message, await self.admit(trials.keys(), trials=True))
        if self.socket.behind:
            self.hub.wake()

    async def admit(self, topics: Iterable[str], *, trials: bool) -> dict[str, int]:
        """Those of the topics that are of this sort and may be heard of; the others are refused."""
        asked = {topic for topic in topics if topic.startswith("trial:") == trials}
        visible = await self.hub.look(self.socket, *asked) or {}
        found = {topic: visible[topic] for topic in asked if topic in visible}
        await self.socket.send(*(refusal(topic) for topic in sorted(set(topics) - found.keys())))
        return found
