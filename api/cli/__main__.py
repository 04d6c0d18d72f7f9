"""`python -m api.cli` is `efface`."""

from api.cli import main

main()
