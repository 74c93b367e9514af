"""`python -m edge_rt` is `edge-rt`."""

from __future__ import annotations

import sys

from edge_rt.cli import main

sys.exit(main())
