"""The processor seconds of one `robustjax` process for each line of words, as a JSON list.

All of them are forked from a process that has imported the training methods, which is what takes
long: for a command that does not import them the number is an upper bound.
"""

import json
import os
import shlex
import sys
import time

from robustjax import cli, training  # noqa: F401


def seconds(line):
    """Those of a child that runs this line."""
    if not (child := os.fork()):
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        try:
            cli.main(shlex.split(line))
        finally:
            os._exit(0)
    _, _, used = os.wait4(child, 0)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    begun = time.process_time()
    print(json.dumps([begun + seconds(line) for line in sys.argv[1:]]))
