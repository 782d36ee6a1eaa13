import numpy as np

from diffv2iqa_jax.data import pipeline
from diffv2iqa_jax.tasks.example import example


def test_the_example_is_like_a_training_batch(tiny):
    batch = next(pipeline.to_train(tiny, [0, 1], pp="crop(16)", batch=1, seed=0, start=0))
    like = example(16)
    assert {k: (x.shape, x.dtype) for k, x in like.items()} == {
        k: (x.shape, x.dtype) for k, x in batch.items()
    }
    assert not any(np.any(x) for x in like.values())
    assert "reference" not in example(16, reference=False)
