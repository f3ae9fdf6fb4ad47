"""`python -m ptmkb`."""

from ptmkb.cli import main

main()
