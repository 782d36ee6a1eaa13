import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax.models.quality import QualityModel
from diffv2iqa_jax.models.unet import UNet
from diffv2iqa_jax.types import Views
from tests import tiny

VIEWS = Views(tiny.images(0, 3, 4, 16, 16, 3))


def test_the_score_is_the_weighted_sum_of_the_branches():
    for w2 in (5.0, "learned"):
        net = QualityModel(**tiny.model(w2=w2))
        variables = tiny.variables(net, VIEWS)
        if w2 == "learned":
            variables["params"]["w2"] = jnp.float32(2.5)
        out = jax.jit(net.apply)(variables, VIEWS)
        weight = 2.5 if w2 == "learned" else w2
        want = out["score_guidance"] + weight * out["score_difference"]
        np.testing.assert_allclose(out["score"], want, rtol=1e-6)
        np.testing.assert_array_equal(out["weight_guidance"], np.ones(3))
        np.testing.assert_array_equal(out["weight_difference"], np.full(3, weight))
        assert np.ptp(out["score"]) > 0
        for name in ("guidance", "difference"):
            weights, patches = out[f"map_weight_{name}"], out[f"map_score_{name}"]
            mean = [np.average(s, weights=w) for s, w in zip(patches, weights, strict=True)]
            np.testing.assert_allclose(out[f"score_{name}"], mean, rtol=1e-5)


@pytest.mark.parametrize("name", ["guidance", "difference"])
def test_a_branch_alone_is_not_weighted_and_the_other_is_not_built(name):
    net = QualityModel({name: getattr(tiny, name)()}, w2=5.0)
    variables = tiny.variables(net, VIEWS)
    out = jax.jit(net.apply)(variables, VIEWS)
    assert set(variables["params"]) == {name}
    np.testing.assert_array_equal(out["score"], out[f"score_{name}"])
    np.testing.assert_array_equal(out[f"weight_{name}"], np.ones(3))


def test_shared_tabs_serve_both_branches():
    logits = tiny.difference(form="logits", positions=16, resnet=tiny.resnet(classes=5))
    net = QualityModel({"guidance": tiny.guidance(), "difference": logits}, share_tabs=True)
    variables = tiny.variables(net, VIEWS)
    run = jax.jit(net.apply)
    before = run(variables, VIEWS)
    tab = jax.tree.map(lambda x: -x, variables["params"]["tablock1_0"])
    after = run({"params": {**variables["params"], "tablock1_0": tab}}, VIEWS)
    for name in ("guidance", "difference"):
        assert before[f"map_score_{name}"].shape == after[f"map_score_{name}"].shape
        assert np.any(before[f"map_weight_{name}"] != after[f"map_weight_{name}"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"branches": {}}, "branches none: known are"),
        ({"branches": {"gidance": {}}}, r"\['gidance'\]: known are .*'vcrnet'"),
        ({"branches": {"difference": {}}, "share_tabs": True}, "no guidance branch to share"),
        ({"branches": {"guidance": {}}, "w2": "two"}, "w2 'two': must be a number or 'learned'"),
    ],
)
def test_settings_that_make_no_model_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        QualityModel(**settings).check()


def test_bfloat16_keeps_float32_parameters_and_agrees():
    """Eight bits of mantissa: each value within a few percent of the spread of the float32 ones."""

    def score(out):
        return out["score"]

    net = {**tiny.restorer(net={"attn_res": (8,)})["net"]}
    y, level = VIEWS.image_BVHWC[:, 0], jnp.array([0.9, 0.5, 0.1])
    cases = [
        (lambda dtype: UNet(**net, dtype=dtype), (y, -y, level), lambda out: out),
        (lambda dtype: QualityModel(**tiny.model(dtype=dtype), w2=5.0), (VIEWS,), score),
    ]
    for make, args, pick in cases:
        variables = tiny.variables(make("float32"), *args)
        shapes = jax.eval_shape(make("bfloat16").init, jax.random.key(0), *args)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(
            lambda x: (x.shape, jnp.dtype("float32")), variables
        )
        full, half = (
            pick(jax.jit(make(dtype).apply)(variables, *args)) for dtype in ("float32", "bfloat16")
        )
        assert half.dtype == jnp.float32
        error = np.abs(half - full).max() / max(np.std(full), 0.1 * np.abs(full).max())
        assert 1e-6 < error < 0.1
