"""Environments of Gymnasium as users may bring them. gym.import=tests.toy_gym registers them."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

WIDTH, HEIGHT, GOAL = 24, 20, 3.0


class Dot(gymnasium.Env):
    """A bright column moves along a picture. Each step's reward is where it stands. At the goal, on the left, the episode ends."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    start = 12.0

    def __init__(self, render_mode=None, actions=None, seen=True):
        self.action_space = actions or Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 4.0], np.float32))
        self.observation_space = Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8) if seen else Box(0, WIDTH, (1,), np.float32)
        self.render_mode, self.seen, self.taken = render_mode, seen, []

    def observe(self):
        return self.picture() if self.seen else np.array([self.x], np.float32)

    def picture(self):
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        picture[:, int(self.x)] = (250, 100, 50)
        return picture

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.start + self.np_random.uniform(0, 6)
        return self.observe(), {}

    def step(self, action):
        self.taken.append(action)
        move = action[0] if isinstance(self.action_space, Box) else (-1.0, 0.0, 1.0)[action - self.action_space.start]
        self.x = float(np.clip(self.x + move + self.np_random.uniform(-0.2, 0.2), 0, WIDTH - 1))
        return self.observe(), self.x, self.x < GOAL, False, {}

    def render(self):
        return self.picture()


class Noisy(Dot):
    """Its noise has no seed."""

    def step(self, action):
        out = super().step(action)
        self.x = float(np.clip(self.x + np.random.default_rng().uniform(-1, 1), GOAL, WIDTH - 1))
        return out


class Growing(Dot):
    def render(self):
        return np.zeros((HEIGHT + len(self.taken), WIDTH, 3), np.uint8)


class Blind(Dot):
    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self):
        super().__init__(seen=False)


class Silent(Dot):
    """Its observations are pictures, and it renders nothing."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, render_mode=None):
        if render_mode is not None:
            raise ValueError(f"render_mode={render_mode}")
        super().__init__()

    render = gymnasium.Env.render


class Quiet(Silent):
    """It takes any mode, and renders nothing all the same."""

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode


class Broken(Dot):
    def __init__(self, render_mode=None):
        raise FileNotFoundError("no map")


class Floating(Dot):
    def render(self):
        return np.zeros((HEIGHT, WIDTH, 4), np.float32)


def register():
    keys = {"actions": Discrete(3, start=1), "seen": False}
    for name, made, how in (
        ("Dot", Dot, {}),
        ("Keys", Dot, keys),
        ("Noisy", Noisy, {}),
        ("NoisyKeys", Noisy, keys),
        ("Growing", Growing, {"seen": False}),
        ("GrowingKeys", Growing, keys),
        ("Floating", Floating, {"seen": False}),
        ("Blind", Blind, {}),
        ("Silent", Silent, {}),
        ("Quiet", Quiet, {}),
        ("Broken", Broken, {}),
        ("Unbounded", Dot, {"actions": Box(-np.inf, np.inf, (1,), np.float32)}),
        ("Whole", Dot, {"actions": Box(0, 3, (1,), np.int32)}),
        ("Missing", "a_package_of_nobody:Env", {}),
    ):
        gymnasium.register(f"Toy/{name}-v0", entry_point=made, kwargs=how, max_episode_steps=40)


register()
