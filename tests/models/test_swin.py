import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax.models import swin
from tests import tiny


def test_the_bias_table_is_read_by_offset():
    window = 4
    index = swin.relative_index(window)
    assert index.shape == (16, 16)
    for i in range(16):
        for j in range(16):
            down, right = i // 4 - j // 4 + 3, i % 4 - j % 4 + 3
            assert index[i, j] == 7 * down + right
    assert set(index.ravel()) == set(range(49))


@pytest.mark.parametrize(("height", "width", "window", "shift"), [(8, 8, 4, 2), (6, 9, 3, 1)])
def test_the_mask_joins_only_what_was_side_by_side_before_the_roll(height, width, window, shift):
    row, column = np.mgrid[:height, :width]
    rolled = [np.roll(x, (-shift, -shift), (0, 1)) for x in (row, column)]
    mask = swin.shift_mask(height, width, window, shift)
    assert mask.shape == (height * width // window**2, window**2, window**2)
    number = 0
    for top in range(0, height, window):
        for left in range(0, width, window):
            part = np.s_[top : top + window, left : left + window]
            for now, before in zip((row, column), rolled, strict=True):

                def step(x, part=part):
                    return x[part].reshape(-1, 1) - x[part].reshape(1, -1)

                torn = step(now) != step(before)
                assert np.all(mask[number][torn] == -100)
            whole = all(
                np.array_equal(
                    np.diff(x[part], axis=axis), np.ones_like(np.diff(x[part], axis=axis))
                )
                for axis, x in enumerate(rolled)
            )
            assert np.any(mask[number] < 0) is not np.bool(whole)
            number += 1
    assert set(mask.ravel()) == {0.0, -100.0}


def test_windows_are_cut_in_row_major_order_and_put_back():
    x = np.arange(2 * 6 * 9 * 2).reshape(2, 6, 9, 2)
    windows = swin._windows(x, 3)
    assert windows.shape == (2 * 6, 9, 2)
    np.testing.assert_array_equal(windows[1].reshape(3, 3, 2), x[0, :3, 3:6])
    np.testing.assert_array_equal(windows[3].reshape(3, 3, 2), x[0, 3:, :3])
    np.testing.assert_array_equal(swin._unwindows(windows, x.shape, 3), x)


@pytest.mark.parametrize(("shift", "reach"), [(0, np.s_[4:, 4:]), (2, np.s_[6:, 6:])])
def test_a_block_sees_its_window_and_nothing_across_the_edge(shift, reach):
    block = swin.SwinBlock(2, 4, shift, 16, 0.0, "float32")
    x = tiny.images(0, 1, 8, 8, 4)
    variables = tiny.variables(block, x)
    change = block.apply(variables, x.at[:, 7, 7, 0].add(1.0)) - block.apply(variables, x)
    changed = np.abs(np.asarray(change[0])).max(-1) > 1e-6
    want = np.zeros((8, 8), bool)
    want[reach] = True
    np.testing.assert_array_equal(changed, want)


def test_a_map_within_one_window_is_not_shifted():
    x = tiny.images(0, 2, 4, 4, 4)
    blocks = [swin.SwinBlock(2, 4, shift, 16, 0.0, "float32") for shift in (0, 2)]
    variables = tiny.variables(blocks[0], x)
    plain, shifted = (block.apply(variables, x) for block in blocks)
    np.testing.assert_array_equal(plain, shifted)


def test_a_layer_is_a_scaled_residual():
    x = tiny.images(0, 2, 8, 8, 4)

    def net(scale):
        return swin.ScaleSwin((2,), (2,), mlp=8, scale=scale)

    variables = tiny.variables(net(0.0), x)
    part = net(1.0).apply(variables, x) - x
    np.testing.assert_array_equal(net(0.0).apply(variables, x), x)
    np.testing.assert_allclose(net(0.5).apply(variables, x) - x, 0.5 * part, atol=1e-6)
    assert np.all(part >= -1e-6)  # it ends in a ReLU


def test_drop_path_drops_a_whole_image():
    block = swin.SwinBlock(2, 4, 0, 16, 0.5, "float32")
    x = tiny.images(0, 16, 4, 4, 4)
    out = block.apply(
        tiny.variables(block, x), x, drop_key_B=jax.random.split(jax.random.key(0), 16)
    )
    kept = np.any(out != x, axis=-1)
    assert set(np.asarray(kept).mean((1, 2))) == {0.0, 1.0}


def test_what_does_not_divide_is_refused():
    def init(net, *shape):
        return jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(shape))

    with pytest.raises(ValueError, match="window 4: does not divide the 6 x 8"):
        init(swin.ScaleSwin((1,), (2,)), 1, 6, 8, 4)
    with pytest.raises(ValueError, match=r"heads \[3\]: do not divide the width 4"):
        init(swin.ScaleSwin((1, 1), (2, 3)), 1, 8, 8, 4)
