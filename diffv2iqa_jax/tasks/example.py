"""What a batch looks like, without reading data: for building models."""

import numpy as np


def example(size: int, reference: bool = True) -> dict[str, np.ndarray]:
    """A batch of one all-zero picture of (size, size), with the keys of a training batch."""
    picture = np.zeros((1, size, size, 3), np.uint8)
    batch = {
        "image": picture,
        "mos": np.zeros(1, np.float32),
        "id": np.zeros(1, np.int32),
        "content": np.zeros(1, np.uint32),
        "draw": np.zeros(1, np.uint32),
        "mask": np.zeros(1, np.float32),
    }
    return batch | ({"reference": picture.copy()} if reference else {})
