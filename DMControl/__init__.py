"""SAC + MLR on the DeepMind Control Suite."""

import os
import signal
import sys

# Read when torch is loaded: threads that wait spin for a moment and then sleep. With a second process on the machine, spinning
# on makes an update many times slower; alone, this costs nothing that could be measured. A value of the user's stays.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def _interrupted(*_: object) -> None:
    os.write(2, b"interrupted before anything was begun\n")
    os._exit(130)


if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupted)  # while `python -m` loads libraries; core.run.Stop takes over
