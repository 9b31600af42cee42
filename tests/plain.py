"""Every fast path of core written out plainly: fp32, whole batches, one thing after the other."""

import importlib

import torch

PATHS = ("crops", "convolutions", "attention", "targets")


def make_plain(patch, tree: str, paths=PATHS) -> None:
    """Replace the named paths of a tree's core for the length of a test."""
    core = {name: importlib.import_module(f"{tree}.core.method.{name}") for name in ("frames", "encoder", "decoder", "momentum")}
    frames, trunk = core["frames"].Frames, core["encoder"].Trunk

    def crop(self, rows, left, width):
        return gather(self, rows, left + torch.arange(width, device=left.device))

    def gather(self, rows, columns):
        out = []
        for n, stack in enumerate(self.index):
            dense = torch.cat([self.store[i] for i in stack])  # (S*C, H, W)
            ys, xs = rows[n if len(rows) > 1 else 0], columns[n if len(columns) > 1 else 0]
            out.append(dense[:, ys][:, :, xs])
        return torch.stack(out)

    def convolve(self, image, scale=1 / 255):
        x = (image.float().contiguous() - self.centre[:, None, None]) * scale
        for number, conv in enumerate(self.convs):
            x = torch.nn.functional.conv2d(x, conv.weight.contiguous(), conv.bias, conv.stride)
            x = x.relu() if number < len(self.convs) - 1 or self.last_relu else x
        return x

    def attend(q, k, v):
        return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v

    def move(self):
        with torch.no_grad():
            for online, target, tau in self.groups:
                for o, t in zip(online, target, strict=True):
                    t.copy_((1 - tau) * t + tau * o)

    if "crops" in paths:
        patch.setattr(frames, "crop", crop)
        patch.setattr(frames, "gather", gather)
    if "convolutions" in paths:
        patch.setattr(trunk, "forward", convolve)
    if "attention" in paths:
        patch.setattr(core["decoder"].F, "scaled_dot_product_attention", attend)
    if "targets" in paths:
        patch.setattr(core["momentum"].Momentum, "step", move)


def plain_adam(optimizer) -> None:
    """The same Adam, parameter by parameter."""
    settings = {k: optimizer.inner.defaults[k] for k in ("lr", "betas", "eps", "weight_decay")}
    optimizer.inner = torch.optim.Adam(optimizer.parameters, **settings, fused=False, foreach=False)


def follow(agent, update, modules, updates: int = 6) -> list[tuple[dict, list]]:
    """Losses, and every parameter of the modules, after each of some updates."""
    out = []
    for _ in range(updates):
        metrics = update()
        losses = {k: v.item() for k, v in metrics.items() if k.startswith(("loss", "grad", "agent"))}
        out.append((losses, [p.detach().clone() for m in modules for p in m.parameters()]))
    return out


def assert_agreement(one, two, loss: float, parameter: float) -> None:
    """Losses within `loss`, relatively; parameters on average within `parameter`."""
    moved = 0.0
    for (losses, weights), (others, expected) in zip(one, two, strict=True):
        assert losses.keys() == others.keys()
        for name, value in losses.items():
            assert abs(value - others[name]) <= loss * (abs(others[name]) + 0.01), (name, value, others[name])
        for a, b in zip(weights, expected, strict=True):
            assert (a - b).abs().mean() <= parameter, (a.shape, (a - b).abs().mean())
        moved = max((a - b).abs().max().item() for a, b in zip(weights, one[0][1], strict=True))
    assert moved > 100 * parameter  # there was something to disagree on


def apart(one, two) -> tuple[float, float]:
    """How far the parameters are from each other at the end, and how far the second ones have come: means."""

    def mean(weights, others):
        return torch.cat([(a - b).flatten().abs() for a, b in zip(weights, others, strict=True)]).mean().item()

    return mean(one[-1][1], two[-1][1]), mean(two[-1][1], two[0][1])
