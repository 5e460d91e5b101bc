"""What all tests share."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # no timed assertions: a busy machine is no failure
settings.load_profile("untimed")
