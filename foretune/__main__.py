"""`python -m foretune`: the command `foretune`."""

from foretune.tuner.cli.main import main

main()
