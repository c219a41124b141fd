"""Makes ``python -m revlib`` the same as ``revlib``."""

import sys

from revlib.cli import main

sys.exit(main())
