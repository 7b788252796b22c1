"""Registers the toy work in every Python that has this folder on its PYTHONPATH, without an edit of the product.

With TOY_WITHOUT_SRC, the image experiment cannot be imported there.
"""

import os
import sys

if os.environ.get("TOY_WITHOUT_SRC"):
    sys.modules["src"] = None  # type: ignore[assignment]

if not sys.flags.no_site:
    try:
        import jobs
    except ImportError:
        pass  # A Python without the product, such as a tool of SLURM.
    else:
        from toy_counting import COUNT

        jobs.WORKS[COUNT.name] = COUNT
