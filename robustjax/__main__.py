"""`python -m robustjax`."""

from robustjax.cli import main

main()
