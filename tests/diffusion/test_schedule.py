import pathlib

import numpy as np
import pytest

from diffv2iqa_jax.diffusion import schedule

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "sr3_schedules_n2000.npz")
COSINE = {"name": "cosine", "steps": 40}
each = pytest.mark.parametrize("name", sorted(schedule.SCHEDULES))


@each
def test_betas_and_levels_are_those_of_sr3(name):
    tabulated = schedule.make(name, 2000, 1e-6, 1e-2)
    np.testing.assert_allclose(tabulated.beta_T, GOLDEN[f"{name}.cfg.betas_f64"], rtol=1e-12)
    # The levels are products of up to 2000 factors.
    want = GOLDEN[f"{name}.cfg.sqrt_alphas_cumprod_prev_f64"]
    np.testing.assert_allclose(tabulated.level, want, rtol=1e-9, atol=1e-17)
    if f"{name}.def.betas_f64" in GOLDEN:  # cosine and jsd ignore the ends
        np.testing.assert_allclose(
            schedule.make(name, 2000).beta_T, GOLDEN[f"{name}.def.betas_f64"], rtol=1e-12
        )


@each
def test_tables_are_those_of_sr3(name):
    for key, table in schedule.buffers(schedule.make(name, 2000, 1e-6, 1e-2)).items():
        stored = f"{name}.cfg.{key}"
        if stored in GOLDEN:
            got, want = table, GOLDEN[stored]
        else:
            want = GOLDEN[f"{stored}.samples"]
            got = table[np.arange(len(want)) * (len(table) - 1) // (len(want) - 1)]
        np.testing.assert_allclose(got.astype(np.float32), want, rtol=1e-6, err_msg=key)


@each
def test_levels_fall_from_the_clean_image(name):
    tabulated = schedule.make(name, 50)
    assert tabulated.level.shape == (51,) and tabulated.level[0] == 1
    assert np.all(np.diff(tabulated.level) < 0) and tabulated.level[-1] >= 0


@pytest.mark.parametrize("spacing", ["uniform", "quad", "tabulate"])
def test_visiting_every_step_is_the_schedule_itself(spacing):
    full = schedule.make(**COSINE)
    np.testing.assert_allclose(schedule.spaced(COSINE, 40, spacing).beta_T, full.beta_T, rtol=1e-9)


@pytest.mark.parametrize("spacing", ["uniform", "quad"])
def test_any_number_of_visited_steps_falls_and_is_among_the_trained(spacing):
    trained = schedule.make(**COSINE).level
    for steps in range(1, 41):
        level = schedule.spaced(COSINE, steps, spacing).level
        assert len(level) == steps + 1 and np.all(np.diff(level) < 0)
        np.testing.assert_allclose(level[-1], trained[-1], rtol=1e-9)
        assert all(np.isclose(trained, one, rtol=1e-9, atol=0).any() for one in level)


def test_quad_is_denser_near_the_image_than_uniform():
    quad, uniform = (schedule.spaced(COSINE, 10, s).level for s in ("quad", "uniform"))
    assert np.all(quad[1:-1] > uniform[1:-1])


def test_tabulate_writes_the_law_down_again():
    assert len(schedule.spaced(COSINE, 7, "tabulate")) == 7
    want = schedule.make("cosine", 7).beta_T
    np.testing.assert_array_equal(schedule.spaced(COSINE, 7, "tabulate").beta_T, want)


def test_unknown_names_and_impossible_lengths_are_refused():
    with pytest.raises(ValueError, match="'sine': known are .*cosine"):
        schedule.make("sine", 10)
    with pytest.raises(ValueError, match="at least 1"):
        schedule.make("cosine", 0)
    with pytest.raises(ValueError, match="'log': known are .*quad"):
        schedule.spaced(COSINE, 5, "log")
    for steps in (0, 41):
        with pytest.raises(ValueError, match=rf"{steps} sampling steps: .*\[1, 40\]"):
            schedule.spaced(COSINE, steps, "uniform")
