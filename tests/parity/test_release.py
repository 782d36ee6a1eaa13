import numpy as np
import pytest

from diffv2iqa_jax.types import Views
from tests.parity import nets
from tests.parity.golden import Golden, close, near, to_nchw

UNUSED = {"noise_embedding.weight": (4, 768), "rq_score.0.weight": (8, 8), "bn1.weight": (4,)}


@pytest.mark.slow
def test_the_release_and_each_of_its_parts():
    golden = Golden("diffv2iqa_release_9001")
    names = ("x_dis", "y_0", "y_t1", "y_t2")
    views = Views(np.stack([golden.image(n) for n in names], axis=1))
    # Published files carry three entries that nothing uses.
    tensors = golden.tensors() | {name: np.ones(shape) for name, shape in UNUSED.items()}
    out, taps = nets.run("diffv2iqa_release", tensors, views, features=True)

    golden.check("Z", taps["guidance:features"][0], 2e-4)
    (first, in_difference_0), (second, in_difference_1) = taps["tablock1_0"], taps["tablock1_1"]
    golden.check("guidance_tab1_0", first, 2e-4)
    golden.check("guidance_tab1_1", second, 2e-4)
    golden.check("guidance_tab2", taps["guidance/tablock2_1"][0], 2e-4)
    maps = {"guidance_conv": "guidance/conv1_1", "guidance_swin1": "guidance/swin1"}
    maps["guidance_swin2"] = "guidance/swin2"
    nets.each(golden, taps, maps, 2e-4, to_nchw)

    _, logits = taps["difference/resnet"][0]
    for i, name in enumerate(("g_dis", "g_0", "g_t1", "g_t2")):
        close(logits[i], golden[name][0], 2e-4)
    assert in_difference_0.shape == in_difference_1.shape == (1, 1, 784)
    close(in_difference_1, golden["difference_after_tabs"], 2e-4)
    for branch in ("guidance", "difference"):
        close(out[f"map_score_{branch}"], golden[f"{branch}_patch_score"], 2e-4)
        close(out[f"map_weight_{branch}"], golden[f"{branch}_patch_weight"], 2e-4)
    near(out["score_guidance"], golden["S1"], 1e-4, relative=True)
    near(out["score_difference"], golden["S2"], 1e-4, relative=True)
    near(out["score"], golden["sum_w2_5"], 1e-4, relative=True)
    total = out["score_guidance"] + out["score_difference"]
    near(total, golden["sum_w2_1"], 1e-4, relative=True)
