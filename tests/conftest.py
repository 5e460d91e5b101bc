"""What all tests share."""

import os
import sys

from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # no timed assertions: a busy machine is no failure
settings.load_profile("untimed")

# Python is to keep what it has compiled, also where the surroundings say otherwise: a third of an agent's start went into compiling.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
