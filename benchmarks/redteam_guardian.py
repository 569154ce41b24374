"""The guardian without its refusal to start a sandbox as root. Only where the guard `own_user` is taken away."""

import os
import runpy
from pathlib import Path

os.geteuid = lambda: 1  # the one question behind the refusal
runpy.run_path(str(Path(__file__).parents[1] / "runners" / "guardian.py"), run_name="__main__")
