"""The names of :mod:`latens.layers`, under the module name that code written for CompressAI imports them from."""

from latens.layers import *  # noqa: F403
from latens.layers import __all__  # noqa: F401
