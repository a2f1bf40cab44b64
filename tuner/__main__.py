"""`python -m tuner`: the command `foretune`."""

from tuner.cli import main

main()
