"""`python -m tutelage`, and so `torchrun -m tutelage`: the command line."""

import sys

from tutelage.cli import main

sys.exit(main())
