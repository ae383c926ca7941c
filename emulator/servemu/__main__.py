"""`python -m servemu`."""

from servemu.cli import main

main()
