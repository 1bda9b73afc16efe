"""`python -m circuitdsl`."""

from circuitdsl.cli import main

main()
