"""A key without an effect is an error: the run would be called by a setting that it does not have."""

import pytest

from DMControl.core.errors import UserError
from DMControl.core.run import config as configuration
from scripts.trees import ATARI, DMCONTROL, TREES

WITHOUT_EFFECT = [
    (DMCONTROL, ["method=playvirtual", "playvirtual.weight=0", "playvirtual.ramp=9"], "ramp has no effect with playvirtual.weight=0"),
    (DMCONTROL, ["method=playvirtual", "playvirtual.weight=0", "spr.weight=0", "spr.tau=1"], "spr.weight=0 and playvirtual.weight=0"),
    (DMCONTROL, ["method=spr", "spr.weight=0", "quirks.two_adams=false"], "quirks.two_adams has no effect with spr.weight=0"),
    (DMCONTROL, ["method=curl", "curl.weight=0", "curl.lr=0.1"], "curl.lr has no effect with curl.weight=0"),
    (DMCONTROL, ["method=sac_ae", "sac_ae.weight=0", "sac_ae.decoder_lr=0.1"], "sac_ae.decoder_lr has no effect with sac_ae.weight=0"),
    (DMCONTROL, ["mlr.momentum=false", "mlr.tau=0.5"], "mlr.tau has no effect with mlr.momentum=false: it takes mlr.momentum=true"),
    (DMCONTROL, ["mlr.target=pixels", "mlr.tau=0.5"], "mlr.tau has no effect with mlr.target=pixels"),
    (DMCONTROL, ["mlr.warmup=0", "mlr.decay=constant"], "mlr.decay has no effect with mlr.warmup=0: it takes another one"),
    (DMCONTROL, ["mlr.mask.strategy=temporal", "mlr.mask.patch=20"], "mlr.mask.patch has no effect with mlr.mask.strategy=temporal"),
    (DMCONTROL, ["mlr.mask.strategy=spatial", "mlr.mask.block=2"], "mlr.mask.block has no effect with mlr.mask.strategy=spatial"),
    (DMCONTROL, ["mlr.decoder.depth=0", "mlr.decoder.heads=2"], "mlr.decoder.heads has no effect with mlr.decoder.depth=0"),
    (DMCONTROL, ["augment.pad=2"], r"augment.pad has no effect with augment.order=\['crop', 'intensity'\]: it is of shift"),
    (DMCONTROL, ["method=baseline", "augment.intensity=0.1"], "no effect with method=baseline and quirks.rl_without_intensity=true"),
    (DMCONTROL, ["method=sac", "augment.next_obs=false"], r"augment.next_obs has no effect with augment.order=\[\]"),
    (DMCONTROL, ["eval.worlds=[video_easy]", "eval.intensities=[0.5]"], "eval.intensities has no effect"),
    (ATARI, ["method=drq", "replay.beta=[1.0,1.0]"], "replay.beta has no effect with replay.alpha=0.0: it takes another one"),
    (ATARI, ["replay.alpha=0", "replay.enter_at=largest"], "replay.enter_at has no effect with replay.alpha=0.0"),
    (ATARI, ["method=curl", "replay.alpha=0", "quirks.objective_in_priorities=false"], "no effect with replay.alpha=0.0"),
    (ATARI, ["method=playvirtual", "playvirtual.weight=0", "playvirtual.ramp=9"], "ramp has no effect with playvirtual.weight=0"),
    (ATARI, ["method=curl", "curl.weight=0", "curl.tau=0.1"], "curl.tau has no effect with curl.weight=0"),
    (ATARI, ["rainbow.clip=0", "quirks.unclipped_heads=false"], "quirks.unclipped_heads has no effect with rainbow.clip=0.0"),
    (ATARI, ["env.noops=0", "env.fewest_noops=0"], "env.fewest_noops has no effect with env.noops=0"),
]  # fmt: skip
WITH_EFFECT = [
    (DMCONTROL, ["method=playvirtual", "playvirtual.weight=0", "spr.tau=0.1"]),  # SPR goes on
    (DMCONTROL, ["method=playvirtual", "spr.weight=0", "spr.tau=0.1", "playvirtual.ramp=0"]),  # and so does the cycle
    (DMCONTROL, ["method=baseline", "augment.intensity=0.1", "quirks.rl_without_intensity=false"]),
    (DMCONTROL, ["mlr.mask.strategy=temporal", "mlr.mask.block=2"]),
    (DMCONTROL, ["method=curl", "curl.weight=0"]),
    (DMCONTROL, ["preset=madi", "method=madi", "eval.intensities=[0.5]"]),
    (ATARI, ["method=drq", "replay.alpha=0.5", "replay.beta=[1.0,1.0]"]),
    (ATARI, ["method=spr", "spr.weight=0", "spr.steps=3"]),  # the replay keeps its windows
]


@pytest.mark.parametrize(("tree", "words", "says"), WITHOUT_EFFECT, ids=lambda part: part[-1] if isinstance(part, list) else None)
def test_a_key_without_an_effect_is_refused(tree, words, says):
    with pytest.raises(UserError, match=says):
        tree.read_config(words)


@pytest.mark.parametrize(("tree", "words"), WITH_EFFECT, ids=lambda part: part[-1] if isinstance(part, list) else None)
def test_a_key_with_an_effect_is_taken(tree, words):
    assert tree.read_config(words)


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.name)
def test_no_learning_rate_may_be_negative(tree):
    settings = tree.load("settings")
    rates = [key for key in configuration._schema(settings.CONFIGS)[0] if key.endswith("lr") and not key.startswith("quirks.")]
    assert len(rates) > 1 and {settings.RANGES[key] for key in rates} == {(0, 1)}
