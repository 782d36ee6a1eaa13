import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax import pixels, rng
from diffv2iqa_jax.tasks import restorers
from tests import tiny

RESTORER = restorers.make(**tiny.restorer())
KEY = rng.stream(0, "train")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def weights(restorer, seed=0):
    shapes = jax.eval_shape(restorer.init, jax.random.key(0), tiny.batch(count=1))
    return tiny.random(shapes, seed)


@pytest.fixture(scope="module")
def views():
    """Batch -> its views as one array, compiled once for each shape."""
    own = weights(RESTORER)
    run = jax.jit(RESTORER.views)
    return lambda batch: np.asarray(run(own, batch).image_BVHWC)


def take(batch, rows):
    return {name: x[jnp.asarray(rows)] for name, x in batch.items()}


def test_views_are_the_image_the_restored_one_and_the_kept_states(views):
    batch = tiny.batch()
    made = views(batch)
    assert made.shape == (8, 4, 16, 16, 3)
    np.testing.assert_allclose(made[:, 0], batch["image"] / 127.5 - 1, atol=1e-6)
    assert np.all(np.abs(made[:, 1]) <= 1)
    assert np.all(np.abs(made[:, 3]).max((1, 2, 3)) > 1)  # noise is not clipped


def test_views_do_not_depend_on_batch_order_or_padding():
    # An untrained eps divides the last bits by a level near 0: "x0" shows the dependence alone.
    restorer = restorers.make(**tiny.restorer(prediction="x0"))
    own, run = weights(restorer), jax.jit(restorer.views)

    def views(batch):
        return np.asarray(run(own, batch).image_BVHWC)

    batch = tiny.batch()
    made, order = views(batch), [3, 1, 7, 0, 2, 6, 5, 4]
    np.testing.assert_allclose(views(take(batch, order)), made[order], **CLOSE)
    np.testing.assert_allclose(views(take(batch, [5])), made[[5]], **CLOSE)
    padded = take(batch, [0, 1, 2, 2, 2, 2, 2, 2]) | {"mask": np.array([1.0] * 3 + [0.0] * 5)}
    np.testing.assert_allclose(views(padded)[:3], made[:3], **CLOSE)


def test_same_pixels_have_same_views_whatever_their_row(views):
    batch = take(tiny.batch(), [0] * 8)
    batch |= {"id": jnp.arange(8), "draw": jnp.arange(8), "mos": jnp.arange(8.0)}
    made = views(batch)
    np.testing.assert_allclose(made, np.broadcast_to(made[:1], made.shape), **CLOSE)
    other = views(batch | {"content": batch["content"] + 1})
    assert np.abs(other - made)[:, 1:].mean() > 0.01


@pytest.mark.parametrize("size", [(13, 18), (1, 7), (16, 24)])
def test_an_image_of_any_sides_comes_back_at_its_own_size(views, size):
    g = np.random.default_rng(0)
    batch = tiny.batch(count=1) | {"image": g.integers(0, 256, (1, *size, 3), np.uint8)}
    assert views(batch).shape == (1, 4, *size, 3)


def test_padding_reflects_and_repeats_only_what_is_too_short():
    x = jnp.arange(3.0)[None, :, None, None]
    np.testing.assert_array_equal(restorers._pad(x, 4)[0, :, 0, 0], [0, 1, 2, 2])
    wide = jnp.tile(jnp.arange(3.0)[None, :, None, None], (1, 1, 3, 1))
    np.testing.assert_array_equal(restorers._pad(wide, 4)[0, :, 0, 0], [0, 1, 2, 1])
    assert restorers._pad(x, 1) is x or restorers._pad(x, 1).shape == x.shape


@pytest.mark.parametrize("dtype", pixels.STORED)
def test_cached_views_are_the_computed_ones(dtype):
    restorer = restorers.make(**tiny.restorer(views_dtype=dtype))
    both, own, batch = restorers.cached(restorer), weights(restorer), tiny.batch()
    made = jax.jit(restorer.views)(own, batch).image_BVHWC
    stored = pixels.store(made[:, 1:], dtype)
    again = both.views(own, batch | {"views": np.asarray(stored)}).image_BVHWC
    # The last bit: a compiled division is a multiplication by the reciprocal.
    np.testing.assert_allclose(again, made, atol=2e-7)
    np.testing.assert_array_equal(jax.jit(both.views)(own, batch).image_BVHWC, made)


@pytest.mark.parametrize("levels", ["per_batch", "per_image"])
def test_the_loss_of_an_image_does_not_depend_on_its_place(levels):
    restorer = restorers.make(**tiny.restorer(levels=levels))
    own, batch, order = weights(restorer), tiny.batch(), [3, 1, 7, 0, 2, 6, 5, 4]
    loss = jax.jit(lambda batch: restorer.loss(own, batch, KEY)[0])
    here = loss(batch)
    assert here.shape == (8,) and np.all(here > 0)
    np.testing.assert_allclose(loss(take(batch, order)), here[np.array(order)], rtol=1e-5)
    redrawn = loss(batch | {"draw": batch["draw"] + 100})
    assert np.all(np.abs(redrawn - here) > 1e-4)


def silent(prediction, batch, **settings):
    """Per-image loss of a net that puts out zeros."""
    net = {"inner": 4, "multipliers": (1,)}
    restorer = restorers.make(**tiny.restorer(prediction=prediction, net=net, **settings))
    zeros = jax.tree.map(jnp.zeros_like, weights(restorer))
    return np.asarray(jax.jit(lambda batch: restorer.loss(zeros, batch, KEY)[0])(batch))


def test_the_loss_compares_with_the_target():
    batch = tiny.batch()
    y0 = np.asarray(pixels.to_float(jnp.asarray(batch["reference"])))
    np.testing.assert_allclose(silent("x0", batch), np.abs(y0).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(silent("x0", batch, loss="mse"), (y0**2).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(silent("eps", batch), np.sqrt(2 / np.pi), rtol=0.1)
    perfect = batch | {"image": batch["reference"]}  # nothing to add: zeros are the answer
    np.testing.assert_array_equal(silent("x0", perfect, residual=True), 0)


def test_levels_are_drawn_for_the_batch_or_for_each_image():
    """The target "v" of a white image is eps at level 1 and -1 at level 0: its size tells."""
    white = tiny.batch(count=32)
    white["reference"] = np.full_like(white["reference"], 255)
    spread = {
        levels: silent("v", white, levels=levels).std() for levels in ("per_batch", "per_image")
    }
    assert spread["per_batch"] < 0.03 < 0.05 < spread["per_image"]


def test_without_its_condition_a_net_never_sees_the_image():
    """The start noise is the content's: other pixels of the same content restore alike."""
    batch = tiny.batch()
    for conditional in (True, False):
        restorer = restorers.make(**tiny.restorer(conditional=conditional))
        run = jax.jit(restorer.views)
        own = weights(restorer)
        other = batch | {"image": 255 - batch["image"]}
        one, two = (run(own, b).image_BVHWC[:, 1:] for b in (batch, other))
        assert bool(jnp.all(one == two)) != conditional


def test_a_net_told_steps_is_told_those_it_was_trained_on():
    made = restorers.Diffusion(**without_kind(tiny.restorer(net={"embedding": "step"})))
    trained = made.chain().level[1:]  # 4 of 100 steps
    full = restorers.schedules.make(**made.schedule).level[1:]
    told = np.asarray(made._steps(jnp.asarray(trained, jnp.float32)))
    np.testing.assert_array_equal(told, [np.abs(full - level).argmin() for level in trained])
    every = jnp.asarray(full, jnp.float32)
    np.testing.assert_array_equal(made._steps(every), np.arange(100))


def test_a_net_told_steps_learns_at_their_exact_levels(monkeypatch):
    restorer = restorers.make(**tiny.restorer(net={"embedding": "step", "multipliers": (1,)}))
    seen = []
    monkeypatch.setattr(
        restorers.chains, "diffuse", lambda y, eps, level_B: seen.append(level_B) or y
    )
    restorer.loss(weights(restorer), tiny.batch(), KEY)
    levels = restorers.schedules.make("cosine", 100).level[1:].astype(np.float32)
    assert len(set(np.asarray(seen[0]).tolist())) > 1
    assert np.all(np.isin(seen[0], levels))


AUTOENCODER = {
    "kind": "autoencoder",
    "net": {"width": 2},
    "loss": "l1",
    "noise": (0.3, 0.6),
    "views_dtype": "float32",
    "seed": 0,
    "dtype": "float32",
}


def without_kind(settings):
    return {k: v for k, v in settings.items() if k != "kind"}


def test_an_autoencoder_restores_in_one_pass_and_adds_noise():
    restorer = restorers.make(**AUTOENCODER)
    own, run = weights(restorer), jax.jit(restorer.views)
    batch = tiny.batch(count=4) | {"image": tiny.batch(count=4, size=20)["image"]}
    made = np.asarray(run(own, batch).image_BVHWC)
    assert made.shape == (4, restorers.count(**AUTOENCODER), 20, 20, 3)
    assert np.abs(made[:, 1]).max() <= 1
    for view, deviation in ((2, 0.3), (3, 0.6)):
        noise = made[:, view] - (1 - deviation**2) ** 0.5 * made[:, 1]
        np.testing.assert_allclose(noise.std(), deviation, rtol=0.05)
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(run(own, take(batch, order)).image_BVHWC, made[order], **CLOSE)


def test_an_autoencoder_learns_and_keeps_its_statistics():
    restorer = restorers.make(**AUTOENCODER)
    own, batch = weights(restorer), tiny.batch()
    # BatchNorm averages over the mapped axes of a training step.
    mapped = tiny.over_devices(lambda b: restorer.loss(own, b, KEY))
    split = {k: x.reshape(2, 4, *x.shape[1:]) for k, x in batch.items()}
    loss, stats = jax.jit(mapped)(split)
    assert loss.shape == (2, 4) and np.all(loss > 0)
    changed = jax.tree.map(lambda new, old: bool(np.any(new[0] != old)), stats, own.stats)
    assert all(jax.tree.leaves(changed))


def test_without_a_restorer_the_image_is_the_only_view():
    restorer, batch = restorers.make("none"), tiny.batch()
    empty = restorer.init(jax.random.key(0), batch)
    assert not jax.tree.leaves(empty)
    made = restorer.views(empty, batch).image_BVHWC
    np.testing.assert_allclose(made[:, 0], batch["image"] / 127.5 - 1, atol=1e-6)
    assert made.shape[1] == 1
    with pytest.raises(ValueError, match="nothing to train"):
        restorer.loss(empty, batch, KEY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "gan"}, "kind 'gan': known are .*diffusion.*none"),
        ({"prediction": "score"}, "prediction 'score': known are"),
        ({"residual": True}, "residual with prediction 'eps': only 'x0'"),
        ({"loss": "l3"}, "loss 'l3': known are .*huber"),
        ({"levels": "all"}, "levels 'all': known are"),
        ({"views_dtype": "int8"}, "views_dtype 'int8': known are .*float16"),
        ({"sampling": {"keep": (4,)}}, r"keep \(4,\): .*\[1, 3\]"),
        ({"sampling": {"sampler": "heun"}}, "sampler 'heun': known are"),
        ({"sampling": {"eta": 0.0}}, r"sampling \[.*'eta'.*\]: must be exactly"),
        ({"sampling": {"steps": 101, "spacing": "quad"}}, r"\[1, 100\], the trained steps"),
        ({"conditional": False, "prediction": "x0", "residual": True}, "no image to add to"),
        (AUTOENCODER | {"noise": (0.3, 1.0)}, "must lie between 0 and 1"),
        (AUTOENCODER | {"loss": "l3"}, "loss 'l3': known are"),
        ({"net": {"groups": 3}}, "groups 3: does not divide"),
        ({"net": {"attn_res": (5,)}}, r"attn_res \[5\]: .*\[16, 8\]"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        restorers.make(**(changes if "noise" in changes else tiny.restorer(**changes)))
