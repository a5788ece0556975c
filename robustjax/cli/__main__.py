"""`python -m robustjax.cli`."""

from robustjax.cli import main

main()
