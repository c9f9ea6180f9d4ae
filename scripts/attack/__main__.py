"""`python3 -m scripts.attack`."""

import sys

from .run import main

sys.exit(main())
