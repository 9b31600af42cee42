"""An environment whose calls have a time limit."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from DMControl.core.errors import Crash
from DMControl.core.run.timed_env import TimedEnv
from DMControl.env import EVALUATE
from DMControl.evaluate import make_env
from DMControl.settings import read_config, worlds_of


class Env:
    """Hangs when it is told so; knows the thread of each call."""

    def __init__(self):
        self.threads, self.steps, self.closed = {threading.get_ident()}, 0, False

    def step(self, hang=False):
        self.threads.add(threading.get_ident())
        if hang:
            time.sleep(3600)
        self.steps += 1
        return self.steps

    def fail(self):
        raise KeyError("no such thing")

    def state_dict(self):
        return {"steps": self.steps}

    def close(self):
        self.threads.add(threading.get_ident())
        self.closed = True


def test_all_calls_run_in_one_thread_of_its_own():
    env = TimedEnv(Env, 60)
    assert env.step() == 1 and env.step() == env.steps == 2
    with pytest.raises(KeyError, match="no such thing"):
        env.fail()
    assert env.step() == 3  # an error is no end
    env.close()
    assert env.closed and len(env.threads) == 1 and threading.get_ident() not in env.threads


def test_a_call_that_hangs_is_a_crash_and_the_state_before_it_remains():
    env = TimedEnv(Env, 0.2)
    env.step()
    begun = time.monotonic()
    with pytest.raises(Crash, match=r"no answer from the environment's step for 0\.2 seconds \(env_timeout\)"):
        env.step(hang=True)
    assert time.monotonic() - begun < 30
    assert env.state_dict() == {"steps": 1}
    env.close()  # has nobody to wait for
    assert not env.closed


def python(code):
    code = f"import os, re, signal, time\nfrom DMControl.core.run.timed_env import TimedEnv\n{code}"
    return subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)


def test_what_computes_for_ever_and_keeps_the_lock_ends_the_process_with_a_traceback():
    spin = 'class Env:\n  def step(self): re.match("(a+)+$", "a" * 60 + "b")\nTimedEnv(Env, 0.5).step()'
    process = python(spin)
    message = process.communicate(timeout=120)[1]
    assert process.returncode == -signal.SIGPROF
    assert re.search(r'File "<string>", line \d+ in step\n', message)


def test_the_time_for_which_the_process_was_stopped_does_not_count():
    stop = "class Env:\n  def step(self): os.kill(os.getpid(), signal.SIGSTOP); time.sleep(0.3)\nTimedEnv(Env, 2).step()"
    process = python(stop)
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    time.sleep(2.5)
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 0


def test_an_environment_that_cannot_be_made():
    with pytest.raises(ZeroDivisionError):
        TimedEnv(lambda: 1 / 0, 60)
    with pytest.raises(Crash, match="environment's start"):
        TimedEnv(lambda: time.sleep(3600), 0.1)


def test_a_closed_task_has_freed_its_renderer():
    """dm_control's own close does nothing; what it leaves is freed in the wrong thread when the process ends, with a traceback."""
    config = read_config(["preset=debug"])
    env = make_env(config, 1, EVALUATE, worlds_of(config)[0])
    env.reset(0)
    drawing = env.inner.physics.contexts.gl
    assert isinstance(env, TimedEnv) and not drawing.terminated
    env.close()
    env.close()
    assert drawing.terminated and env.fps == 12.5


def test_its_thread_ends_with_it():
    before = set(threading.enumerate())
    env = TimedEnv(Env, 60)
    (own,) = set(threading.enumerate()) - before
    assert own.daemon and own.is_alive()
    del env
    own.join(30)
    assert not own.is_alive()
