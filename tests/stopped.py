"""A run that a signal stops at an agent step of one's choice."""

import signal


def train(made, stop_at=None):
    """Train until SIGTERM comes at that agent step, or to the end. Returns the trainer and its exit code."""
    choose = made.choose

    def stopping(random):
        if made.step == stop_at:
            made.stop.signal = signal.SIGTERM
        return choose(random)

    made.choose = stopping
    code = made.train()
    made.folder.lock.close()
    return made, code
