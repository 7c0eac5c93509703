"""`python -m tutelage`, and so `torchrun -m tutelage`: the command line."""

from tutelage.cli import run

run()
