"""Takes itself away in favour of Latens. See ``python -m latens.compat --path``."""

import sys
from importlib import import_module

from latens import compat

del sys.modules[__name__]
compat.install()
import_module(__name__)  # this time, it is found in Latens
