"""The pictures of a report, one file a kind; `all_figures` draws them in their order, `style` is how they look.

May import the report's tables and findings; nothing else draws.
"""

import os
import sys
from contextlib import suppress

if "matplotlib" not in sys.modules and "MPLBACKEND" in os.environ:
    # A notebook names its backend to all that it starts; matplotlib cannot be imported where it is not installed. Files
    # are drawn without one.
    backend = os.environ.pop("MPLBACKEND")
    import matplotlib as mpl

    os.environ["MPLBACKEND"] = backend
    with suppress(ValueError):
        mpl.rcParams["backend"] = backend
