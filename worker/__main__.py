"""`python -m worker`: what `efface worker` becomes."""

from worker.app import main

main()
