"""The live path: what a web process tells browsers while they watch. The protocol is docs/decisions/0007.

`doorbell` says that a row has changed, `tail` reads what is new at the places that sockets stand at, `access` says what
a person may hear of, `messages` and `frames` are the two directions of the wire, `sockets` holds what is known of each
tab, `hub` brings them together. The websocket itself is research/consumers.py. Nothing here writes a row.
"""
