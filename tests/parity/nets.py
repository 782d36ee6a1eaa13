"""From a state dict in PyTorch's layout to our module's outputs, the way a user goes."""

from functools import partial

import jax
import numpy as np

from diffv2iqa_jax.types import Weights
from diffv2iqa_jax.weights import files, published


def variables(weights: Weights) -> dict:
    return {"params": weights.params, "batch_stats": weights.stats}


def run(kind: str, tensors: dict, *inputs, features: bool = False, **hints):
    """(output, {"block_0/conv": outputs of that submodule's calls, ...}) of a converted net."""
    weights, card, _ = published.convert(kind, tensors, **hints)
    return apply(published.module(card), weights, *inputs, features=features)


def apply(net, weights: Weights, *inputs, features: bool = False):
    names = ("__call__", "features") if features else ("__call__",)

    def chosen(module, method):
        return method in names

    @jax.jit
    def forward(variables, *inputs):
        return net.apply(
            variables, *inputs, capture_intermediates=chosen, mutable=["intermediates"]
        )

    out, state = forward(variables(weights), *inputs)
    return out, _by_name(state["intermediates"])


def _by_name(tree: dict, path: str = "") -> dict:
    out = {}
    for name, value in tree.items():
        if name in ("__call__", "features"):
            out[path if name == "__call__" else f"{path}:{name}"] = value
        else:
            out |= _by_name(value, f"{path}/{name}" if path else name)
    return out


def part(kind: str, golden, prefix: str, at: str, net, *inputs, **settings):
    """Output of a part alone, with the weights of `weights_of_part`."""
    weights = weights_of_part(kind, golden, prefix, at, net, *inputs, **settings)
    return net.apply(variables(weights), *inputs, **settings)


def weights_of_part(kind: str, golden, prefix: str, at: str, net, *inputs, **settings) -> Weights:
    """A part's tensors, renamed as those of a net that holds it.

    Args:
      prefix: what comes before the fixture's names in that net.
      at: where that net of ours has the part.
    """
    shapes = jax.eval_shape(partial(net.init, **settings), jax.random.key(0), *inputs)
    alone = Weights(shapes["params"], shapes.get("batch_stats", {}))

    def inside(name):
        return name.replace("/", f"/{at}/", 1)

    like = files.unflatten({inside(k): x for k, x in files.flatten(alone).items()})
    whole = files.fit(kind, files.rename(kind, golden.tensors(prefix)), like)
    outside = {k.replace(f"/{at}/", "/", 1): x for k, x in files.flatten(whole).items()}
    return files.unflatten(outside)


def each(golden, taps: dict, names: dict[str, str], use: float, layout=np.asarray) -> None:
    """Checks the stored statistics of {their name: our name} against what our net gave there."""
    assert names
    for theirs, ours in names.items():
        golden.check(theirs, layout(taps[ours][0]), use)
