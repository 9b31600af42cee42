"""Floating-point work of an update as the official code does it: convolutions and matrix products."""

import itertools
from typing import Any


def dmcontrol_flops(config: Any, action_dim: int) -> float:
    """GFLOP of a mean update of SAC as published: convolutions and matrix products, multiply-add = 2."""
    d, hidden, n = config.encoder.dim, config.sac.hidden, config.sac.batch_size
    first, rest, head = encoder_products(config)
    e = first + rest + head
    q = (d + action_dim) * hidden + hidden**2 + hidden
    p = d * hidden + hidden**2 + 2 * hidden * action_dim
    views, target_views = views_of(config)
    critic = n * (target_views * ((e + p) + (e + 2 * q)) + views * (3 * (e + 2 * q) - first))
    actor = n * (2 * e + 2 * head + 3 * p + 6 * q) / config.sac.actor_every
    mlr = 0
    if "mlr" in config:
        b, t = config.mlr.batch_size, config.mlr.window
        blocks = config.mlr.decoder.depth * (16 * t * d**2 + 8 * t**2 * d)
        mlr = b * (t * e + 2 * t * e - t * first + t * e + 3 * blocks + 14 * t * d * config.mlr.hidden + 2 * t * action_dim * d)
    if "svea" in config and config.strong_augmentation.kind != "none":  # the augmented half
        critic += n * 3 * (e + 2 * q)
    if "masker" in config and config.masker.get("enabled", True):
        m, pixels = config.masker, config.image.stack * config.image.crop**2
        widths = [3] + [m.width] * (m.depth - 1) + [1]
        per_image = pixels * 9 * sum(i * o for i, o in itertools.pairwise(widths))
        halves = 2 if "svea" in config and config.strong_augmentation.kind != "none" else 1
        critic += n * per_image * (1 + 3 * halves)
        actor += n * per_image / config.sac.actor_every
        mlr += 2 * config.mlr.batch_size * config.mlr.window * per_image if "mlr" in config else 0
    own = spr_products(config, e, first, action_dim) if "spr" in config else 0
    if "curl" in config:  # anchors and positives; positives get no gradient
        own += n * (3 * e - first + e + 3 * d**2 + 3 * n * d)
    if "sac_ae" in config:  # the decoder has the encoder's products, in reverse
        own += n * (3 * e - first + 3 * e)
    return 2 * (critic + mlr + own + actor) / 1e9


def views_of(config: Any) -> tuple[int, int]:
    """DrQ's views of an observation and of the next one."""
    return (config.drq.views, config.drq.target_views) if "drq" in config else (1, 1)


def image_passes(config: Any) -> float:
    """GFLOP of the passes through an encoder in a mean update: a backward pass counts as two, a decoder's as an encoder's.

    0 for agents without SAC.
    """
    if "sac" not in config:
        return 0.0
    n, (views, target_views) = config.sac.batch_size, views_of(config)
    images = n * (2 * target_views + 3 * views + 2 / config.sac.actor_every)
    if "mlr" in config:
        images += 4 * config.mlr.batch_size * config.mlr.window
    if "spr" in config:  # the online branch, and the targets of all steps
        copies = config.playvirtual.copies if "playvirtual" in config else 0
        images += config.spr.batch_size * (3 + config.spr.steps + 1 + copies)
    if "curl" in config:
        images += 4 * n
    if "sac_ae" in config:
        images += 6 * n
    if "svea" in config and config.strong_augmentation.kind != "none":
        images += 3 * n
    return 2 * images * sum(encoder_products(config)) / 1e9


def encoder_products(config: Any) -> tuple[int, int, int]:
    """Multiply-adds of one image: the first convolution, the others, and the head."""
    sides, side, f = [], config.image.crop, config.encoder.filters
    for stride in config.encoder.strides:
        side = (side - 3) // stride + 1
        sides.append(side)
    first = sides[0] ** 2 * f * 27 * config.image.stack  # 3 x 3 x 3S inputs of each of F filters
    return first, sum(s**2 for s in sides[1:]) * f * f * 9, f * side**2 * config.encoder.dim


def spr_products(config: Any, e: float, first: float, action_dim: int) -> float:
    """Multiply-adds of SPR and of PlayVirtual's cycle. e, first: of the encoder and of its first convolution, for one image."""
    spr, d = config.spr, config.encoder.dim
    copies = config.playvirtual.copies if "playvirtual" in config and config.playvirtual.weight else 0
    if not spr.weight and not copies:
        return 0
    step, head = (d + action_dim) * spr.width + spr.width * d, 2 * d * spr.hidden
    ahead = spr.steps + 1  # the official code also encodes, predicts and compares the step 0, and drops it
    images = 3 * e - first + (ahead + copies) * e
    steps = 3 * step * (spr.steps + 2 * copies * spr.steps)  # there and back
    heads = 3 * 2 * head * (ahead + copies) + head * (ahead + copies)
    return spr.batch_size * (images + steps + heads)


def atari_flops(config: Any, n_actions: int) -> float:
    """GFLOP of an update as published."""
    side, channels, e, first, r = config.env.size, config.env.stack, 0, 0, config.rainbow
    for filters, kernel, stride in zip(config.encoder.filters, config.encoder.kernels, config.encoder.strides, strict=True):
        side = -(-side // stride) if config.encoder.padding == "same" else (side - kernel) // stride + 1
        e += side**2 * filters * channels * kernel**2
        first = first or e
        channels = filters
    d, hidden, b = side**2 * channels, r.hidden, r.batch_size
    layers, outputs = 2 if r.head == "streams" else 1, r.atoms if r.value == "distribution" else 1
    head = (1 + r.noisy) * hidden * (layers * d + outputs * (n_actions + (r.head != "plain")))  # means and noise
    total = b * ((1 + r.double) * (e + head) + 3 * (e + head) - first)
    if "curl" in config and config.curl.weight:  # anchors and keys; keys get no gradient
        c = config.curl
        total += b * (4 * e - first + 4 * (d * c.hidden + c.hidden * c.size) + 3 * c.size**2 + 3 * b * c.size)
    if "mlr" in config:
        t, w = config.mlr.window, config.mlr.decoder.width or d
        blocks = config.mlr.decoder.depth * (16 * t * w**2 + 8 * t**2 * w) + (0 if w == d else 3 * t * d * w)
        total += b * (
            t * e + 3 * t * e - t * first + 3 * blocks + 4 * t * d * 2 * hidden + 3 * t * (2 * hidden) ** 2 + 3 * t * n_actions * d
        )
    if "strong_augmentation" in config and config.strong_augmentation.kind != "none":  # the augmented half
        total += b * 3 * (e + head)
    if "masker" in config and config.masker.enabled:
        widths = [1] + [config.masker.width] * (config.masker.depth - 1) + [1]
        per_image = config.env.stack * config.env.size**2 * 9 * sum(i * o for i, o in itertools.pairwise(widths))
        halves = 2 if config.strong_augmentation.kind != "none" else 1
        total += b * per_image * (2 + 3 * halves)
        total += 2 * b * config.mlr.window * per_image if "mlr" in config else 0
    if "spr" in config:
        total += b * atari_spr_products(config, e, channels, side, n_actions)
    return 2 * total / 1e9


def atari_spr_products(config: Any, e: float, channels: int, side: int, n_actions: int) -> float:
    """Multiply-adds of SPR and of PlayVirtual's cycle for one window. e: of the encoder, for one image."""
    k, projected, places = config.spr.steps, 2 * config.rainbow.hidden, side**2
    copies = config.playvirtual.copies_per_action * n_actions if "playvirtual" in config and config.playvirtual.weight else 0
    if not config.spr.weight and not copies:
        return 0
    projection = places * channels * projected
    step = places * 9 * channels * (2 * channels + n_actions)
    ahead = k + 1  # the official code also encodes, predicts and compares the step 0, and drops it
    return (ahead + copies) * (e + projection + 3 * (projection + projected**2)) + 3 * (k + 2 * k * copies) * step  # there and back
