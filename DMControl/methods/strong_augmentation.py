"""The strong augmentation of a run, with its overlay images."""

import torch

from ..core.method.strong_augmentation import StrongAugmentation
from ..core.run.config import Config
from ..worlds.images import overlay_images

BANK_SIDE = 128


def make(config: Config, device: torch.device) -> StrongAugmentation:
    """As the block `strong_augmentation` says; the overlay images wait on the device that trains."""
    settings, bank = config.strong_augmentation, None
    if settings.kind == "overlay":
        bank = torch.from_numpy(overlay_images(config.data.images, settings.images, BANK_SIDE)).to(device)
    return StrongAugmentation(settings.kind, settings.alpha, bank)
