"""dm_control reads MUJOCO_GL once, when it is imported: the renderer is chosen before any test imports it."""

from DMControl.renderer import choose_renderer

choose_renderer()
