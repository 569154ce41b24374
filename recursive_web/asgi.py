"""HTTP (and, with the live pages, websocket) routing. Server-neutral: nothing here imports daphne."""

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recursive_web.settings")

application = ProtocolTypeRouter({"http": get_asgi_application()})
