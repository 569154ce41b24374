#!/usr/bin/env python
"""Django's command line for the lab."""

import os
import signal
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recursive_web.settings")
    hears_interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if hears_interrupts:  # while modules load, nothing has to be tidied up
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        import django
        from django.conf import settings
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit("Django is not installed in this Python: run `make setup`, then use .venv/bin/python.")
    try:
        django.setup()
        if hears_interrupts:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        if settings.configured:  # a mistake of ours, not of the environment
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # before a command has set its own handler
        sys.exit(130)
