"""HTTP and websocket routing. Server-neutral: nothing here imports daphne."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import WebsocketDenier
from channels.sessions import CookieMiddleware
from django.core.asgi import get_asgi_application
from django.urls import path, re_path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recursive_web.settings")
http = get_asgi_application()  # loads the models, which the consumer needs

from research.api.gate import McpGate  # noqa: E402
from research.consumers import LiveConsumer  # noqa: E402

sockets = URLRouter([path("ws/", LiveConsumer.as_asgi()), re_path("", WebsocketDenier.as_asgi())])
requests = URLRouter([path("mcp", McpGate()), re_path("", http)])  # type: ignore[arg-type]  # ASGI applications
application = ProtocolTypeRouter({"http": requests, "websocket": CookieMiddleware(sockets)})
