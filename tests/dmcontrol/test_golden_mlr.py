"""The masked-latent objective against the official code's numbers."""

import pytest
import torch
from official import assert_close, below, interleave, make_decoder, make_encoder, make_mlp, norm, tensor, to_ours
from torch import nn

from DMControl.core.method.augment import Augmentation, Gather, View
from DMControl.core.method.frames import Frames
from DMControl.core.method.masks import Masks
from DMControl.core.method.momentum import Momentum
from DMControl.core.method.optim import Adam, warmup_factor
from DMControl.core.method.reconstruction import MaskedSequence, Reconstruction
from DMControl.core.method.sequence import Sequence

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("device")]


class Case:
    """Our objective with the given weights and inputs, batch-major as ours are."""

    def __init__(self, g, intensity: bool = False) -> None:
        t, b, channels, size, _ = g["obs"].shape
        self.t, self.b, self.g = t, b, g
        out = g["image_masked_branch_first"].shape[-1]
        encoder = make_encoder(below(g, "w/encoder."), out)
        target_encoder = make_encoder(below(g, "w/target_encoder."), out)
        embed = nn.Linear(g["action"].shape[2], encoder.head.fc.out_features)
        embed.load_state_dict(below(g, "w/action_emb."))
        projection, prediction, target_projection = (
            make_mlp(below(g, f"w/{name}.")) for name in ("global_classifier", "global_final_classifier", "global_target_classifier")
        )
        self.objective = Reconstruction(
            batch_size=b,
            masks=Masks(t, size, 1, t, 0.5),
            augment=Augmentation(("crop", "intensity"), size, out),
            encoder=encoder,
            embed_action=embed,
            decoder=make_decoder(below(g, "w/transformer."), t),
            projection=projection,
            prediction=prediction,
            target_encoder=target_encoder,
            target_projection=target_projection,
            targets=Momentum((encoder, target_encoder, 0.05), (projection, target_projection, 0.05)),
        )
        # frames one by one in the store, as the replay keeps them; n = b * T + t
        obs = tensor(g["obs"]).transpose(0, 1).reshape(b * t, channels // 3, 3, size, size)
        stack = channels // 3
        store = obs.reshape(b * t * stack, 3, size, size).contiguous()
        frames = Frames(store, torch.arange(b * t * stack).view(b * t, stack))
        step, each = torch.zeros(b, t), torch.ones(b)
        sequence = Sequence(frames, tensor(g["action"]).transpose(0, 1), reward=step, done=step, valid=each, weight=each)
        hidden = tensor(g["mask"])[:, 0].bool().repeat(b, 1, 1)

        def view(name: str) -> View:
            corner = tensor(g[f"crop_{name}"]).view(t, b, 2).transpose(0, 1).reshape(-1, 2)
            factor = tensor(g[f"intensity_{name}"]).view(t, b).t().reshape(-1) if intensity else None
            inner = torch.arange(out)
            return View((Gather(corner[:, :1] + inner, corner[:, 1:] + inner, factor),))

        self.part = MaskedSequence(sequence, hidden, view("masked"), view("target"))

    def time_major(self, x):
        """(B*T, d) -> (T, B, d), the official order."""
        return x.view(self.b, self.t, -1).transpose(0, 1)

    def names(self):
        o = self.objective
        blocks = {f"block{i}": list(block.parameters()) for i, block in enumerate(o.decoder.blocks)}
        return {
            "encoder_convs": list(o.encoder.trunk.parameters()),
            "encoder_fc": list(o.encoder.head.fc.parameters()),
            "encoder_ln": list(o.encoder.head.ln.parameters()),
            "encoder": list(o.encoder.parameters()),
            "action_emb": list(o.embed_action.parameters()),
            "projection": list(o.projection.parameters()),
            "prediction": list(o.prediction.parameters()),
            **blocks,
        }

    def official(self, name: str):
        """Our parameter for one of the official names."""
        o = self.objective
        head, rest = name.split(".", 1)
        if head == "encoder":
            return (o.encoder.trunk if rest.startswith("convs") else o.encoder.head).get_parameter(rest)
        if head == "transformer":
            return o.decoder.blocks.get_parameter(rest.replace("attn.", "").replace("mlp.", ""))
        module = {"action_emb": o.embed_action, "global_classifier": o.projection, "global_final_classifier": o.prediction}[head]
        return module.get_parameter(rest)

    def as_ours(self, name: str, array):
        array = tensor(array)
        return to_ours(array, self.objective.encoder.trunk) if name == "encoder.fc.weight" else array


@pytest.fixture
def case(golden):
    return Case(golden("dmc_mlr"))


def test_mask_then_crop(case):
    o, g = case.objective, case.g
    masked = o.augment.view(case.part.sequence.obs, case.part.masked_view, case.part.hidden)
    clear = o.augment.view(case.part.sequence.obs, case.part.target_view)
    assert torch.equal(masked[0], tensor(g["image_masked_branch_first"]).to(masked))
    assert torch.equal(clear[0], tensor(g["image_target_branch_first"]).to(clear))


def test_encoders(case):
    o, g = case.objective, case.g
    masked = o.augment.view(case.part.sequence.obs, case.part.masked_view, case.part.hidden)
    clear = o.augment.view(case.part.sequence.obs, case.part.target_view)
    assert_close(case.time_major(o.encoder(masked)), g["encoder_out"], 1e-4)
    assert_close(case.time_major(o.target_encoder(clear)), g["target_encoder_out"], 1e-4)


def test_decoder_token_by_token(case):
    o, g = case.objective, case.g
    assert_close(o.decoder.positions, g["position_table"], 1e-5)
    states = tensor(g["encoder_out"]).transpose(0, 1)
    actions = o.embed_action(case.part.sequence.action)
    tokens = o.decoder.tokens(states, actions)
    assert_close(interleave(tokens), g["tokens_in"], 1e-4)
    x = o.decoder.blocks[0](tokens)
    assert_close(interleave(x), g["tokens_after_block1"], 1e-4)
    for block in o.decoder.blocks[1:]:
        x = block(x)
    assert_close(interleave(x), g["tokens_out"], 1e-4)
    decoded = o.decoder(states, actions)
    assert_close(decoded, g["tokens_out"][:, ::2], 1e-4)
    projected = o.projection(decoded)
    assert_close(projected.transpose(0, 1), g["proj"], 1e-4)
    assert_close(o.prediction(projected).transpose(0, 1), g["pred"], 1e-4)


def test_targets_and_distance(case):
    o, g = case.objective, case.g
    assert_close(o.target_projection(tensor(g["target_encoder_out"])), g["target_proj"], 1e-4)
    assert_close(o.compare(tensor(g["pred"]), tensor(g["target_proj"])), g["loss_per_frame"], 1e-4)


def test_loss_and_gradients(case):
    o, g = case.objective, case.g
    loss, metrics = o.loss(case.part)
    assert_close(loss, g["loss_per_frame"].mean(0), 1e-4)
    assert_close(loss.mean(), g["loss"], 1e-4)
    assert_close(metrics["loss/mlr"], g["loss"], 1e-4)
    loss.mean().backward()
    for name, parameters in case.names().items():
        assert_close(norm(parameters), g[f"gradnorm/{name}"], 1e-3)
    assert_close(norm(o.trained()), g["grad_norm_total"], 1e-3)
    for key in (k for k in g if k.startswith("grad/")):
        name = key.removeprefix("grad/")
        assert_close(case.official(name).grad, case.as_ours(name, g[key]), 1e-3)
    assert all(p.grad is None for m in (o.target_encoder, o.target_projection) for p in m.parameters())


def test_intensity(golden):
    case = Case(golden("dmc_mlr"), intensity=True)
    loss, _ = case.objective.loss(case.part)
    assert_close(loss.mean(), case.g["loss_with_intensity"], 1e-4)
    loss.mean().backward()
    assert_close(norm(case.objective.trained()), case.g["grad_norm_total_with_intensity"], 1e-3)


def test_parts_add_up_to_the_whole(case):
    """Images in parts give the gradients of all at once."""
    o, whole = case.objective, case.part
    for b in range(case.b):
        rows = slice(b * case.t, (b + 1) * case.t)
        part = MaskedSequence(whole.sequence[b : b + 1], whole.hidden[rows], whole.masked_view[rows], whole.target_view[rows])
        loss, _ = o.loss(part)
        (loss.sum() / case.b).backward()
    assert_close(norm(o.trained()), case.g["grad_norm_total"], 1e-3)


def test_optimiser_step(case):
    o, g = case.objective, case.g
    base = float(g["lr_second_step"]) / warmup_factor(1, 6000, "inverse_sqrt")
    optimizer = Adam(o.trained(), base, clip=10.0, warmup=6000, decay="inverse_sqrt")
    loss, _ = o.loss(case.part)
    optimizer.zero_grad()
    loss.mean().backward()
    grad_norm = optimizer.step()
    assert_close(grad_norm, g["grad_norm_total"], 1e-3)
    assert float(optimizer.inner.param_groups[0]["lr"]) == pytest.approx(float(g["lr_first_step"]), rel=1e-6)
    for key in (k for k in g if k.startswith("after_step/")):
        name = key.removeprefix("after_step/")
        before, after = case.as_ours(name, g["w/" + name]), case.as_ours(name, g[key])
        ours = case.official(name).detach()
        assert_close(ours, g[key], 1e-5)
        # the step itself, where the stored fp32 numbers can show it
        moved = (after - before).abs() > 1e-8
        assert moved.any() and torch.equal(torch.sign(ours - before)[moved], torch.sign(after - before)[moved])


def test_schedule(golden):
    g = golden("schedule")
    warmup = int(g["warmup_steps"])
    for step, factor, lr in zip(g["steps"], g["factor"], g["lr"], strict=True):
        ours = warmup_factor(int(step), warmup, "inverse_sqrt")
        assert ours == pytest.approx(float(factor), rel=1e-9)
        assert ours * float(g["base_lr"]) == pytest.approx(float(lr), rel=1e-9)
