"""Where arrays live. The only module that knows about devices.

Two ways to map a step over the devices share one interface: `Jit` (jax.jit over a named mesh,
the default) and `Pmap` (jax.pmap over a leading device axis, with a replicated state). Both run
the same per-device gradient function, which sees its device's shares of the parameters.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import jax_utils
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from diffv2iqa_jax.models.layers import BATCH_AXES
from diffv2iqa_jax.training.state import Flat, TrainState

# A training step is mapped over both axes, by both; large leaves are split over the second.
DATA, FSDP = BATCH_AXES
STATE_MIN = 2**20  # elements; smaller leaves are not worth splitting
Tree = Any  # of arrays, or of their shapes and dtypes


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _whole(share: jax.Array, axis: int | None) -> jax.Array:
    """The leaf of which each device along FSDP has a share of this axis; None: all have it whole.

    What flows back is this device's share of the gradient, averaged over all devices: devices
    exchange gradients here and nowhere else, each as soon as it is known.
    """
    return share if axis is None else jax.lax.all_gather(share, FSDP, axis=axis, tiled=True)


def _whole_forward(share: jax.Array, axis: int | None) -> tuple[jax.Array, None]:
    return _whole(share, axis), None


def _whole_backward(axis: int | None, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    if axis is None:
        return (jax.lax.pmean(gradient, BATCH_AXES),)
    share = jax.lax.psum_scatter(gradient, FSDP, scatter_dimension=axis, tiled=True)
    return (jax.lax.pmean(share / jax.lax.axis_size(FSDP), DATA),)


_whole.defvjp(_whole_forward, _whole_backward)


@dataclasses.dataclass(frozen=True)
class Shares:
    """Which part of the parameters a device holds.

    Attributes:
      axes: path -> the axis along which the leaf is split over FSDP; None: it is not.
      shapes: of the leaves that are split, when whole and of a device's share.
    """

    axes: dict[str, int | None]
    shapes: frozenset[tuple[int, ...]]

    def whole(self, shares: Flat) -> Flat:
        """Gathers the split leaves. Its gradient is averaged over the devices, see `_whole`."""
        return {name: _whole(share, self.axes[name]) for name, share in shares.items()}

    def regather(self, loss: Callable) -> Callable:
        """The same loss, which keeps no gathered leaf for the backward pass: it gathers twice."""
        return jax.checkpoint(loss, policy=self._keeps) if self.shapes else loss

    def _keeps(self, _: Any, *operands: Any, **__: Any) -> bool:
        # Neither a gathered leaf nor what is made of it alone, as its copy in another dtype.
        return not operands or getattr(operands[0], "shape", None) not in self.shapes


class Jit:
    """jax.jit over a (data, fsdp) mesh, which splits large leaves of the state over fsdp.

    Attributes:
      size: number of devices that share a batch.
    """

    def __init__(self, *, fsdp: int = 1, devices: Sequence[jax.Device] | None = None):
        devices = jax.devices() if devices is None else devices
        self.size = len(devices)
        if self.size % fsdp:
            raise ValueError(f"devices.fsdp {fsdp}: does not divide the {self.size} devices")
        # Auto axes: the compiler shards what lies between our annotations.
        shape, auto = (self.size // fsdp, fsdp), 2 * (AxisType.Auto,)
        self._mesh = jax.make_mesh(shape, BATCH_AXES, axis_types=auto, devices=devices)
        self._rows = NamedSharding(self._mesh, P(BATCH_AXES))

    def _axis(self, leaf: Any) -> int | None:
        """The axis along which a leaf is split: the longest divisible one of a large leaf."""
        shares = self._mesh.shape[FSDP]
        if shares > 1 and np.prod(leaf.shape) >= STATE_MIN:
            for axis in np.argsort(leaf.shape)[::-1]:
                if leaf.shape[axis] % shares == 0:
                    return int(axis)
        return None

    def _specs(self, tree: Tree) -> Tree:
        """The part of each leaf that a device holds."""

        def spec(leaf: Any) -> P:
            axis = self._axis(leaf)
            return P() if axis is None else P(*[None] * axis, FSDP)

        return jax.tree.map(spec, tree)

    def _shardings(self, tree: Tree) -> Tree:
        return jax.tree.map(partial(NamedSharding, self._mesh), self._specs(tree))

    def init(self, make: Callable[..., Tree], *args: Any) -> Tree:
        """Computes make(*args) on the devices where it stays."""
        shardings = self._shardings(jax.eval_shape(make, *args))
        return jax.jit(make, out_shardings=shardings)(*args)

    def gradients(self, fn: Callable) -> Callable:
        """Maps a per-device function of (shares, state, batch), as `steps.make_gradients` makes."""

        def mapped(state: TrainState, batch: Tree) -> Tree:
            params, specs = {**state.trainable, **state.fixed}, self._specs(state)
            axes = {name: self._axis(leaf) for name, leaf in params.items()}
            split = {name: axis for name, axis in axes.items() if axis is not None}
            shapes = {params[name].shape for name in split}
            for name, axis in split.items():
                share = list(params[name].shape)
                share[axis] //= self._mesh.shape[FSDP]
                shapes.add(tuple(share))
            # check_vma=False: the function averages over the devices by itself, as under pmap.
            return jax.shard_map(
                partial(fn, Shares(axes, frozenset(shapes))),
                mesh=self._mesh,
                in_specs=(specs, P(BATCH_AXES)),
                out_specs=(specs.trainable, P(), P()),
                check_vma=False,
            )(state, batch)

        return mapped

    def train(self, step: Callable, state: Tree) -> Callable:
        """Compiles (state, batch) -> (state, metrics), which reuses the memory of its state."""
        shardings = self._shardings(state)
        replicated = NamedSharding(self._mesh, P())
        return jax.jit(
            step,
            in_shardings=(shardings, self._rows),
            out_shardings=(shardings, replicated),
            donate_argnums=0,
        )

    def predict(self, fn: Callable) -> Callable:
        """Compiles (weights, batch) -> per-image outputs."""
        return jax.jit(fn, out_shardings=self._rows)

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """Makes arrays over all devices from this process's rows of a batch."""
        make = partial(jax.make_array_from_process_local_data, self._rows)
        return jax.tree.map(make, batch)

    def fetch(self, outputs: dict[str, jax.Array]) -> dict[str, np.ndarray]:
        """Gathers the per-image outputs of all processes, in the batch's order."""
        if jax.process_count() > 1:
            return multihost_utils.process_allgather(outputs, tiled=True)
        return jax.device_get(outputs)

    def single(self, state: Tree) -> Tree:
        """The state as a checkpoint holds it."""
        return state

    def spread(self, state: Tree) -> Tree:
        """Puts a checkpoint's state on the devices."""
        return jax.device_put(state, self._shardings(state))


class Pmap:
    """jax.pmap, with a leading device axis on the replicated state and on every batch.

    Methods and attributes are those of `Jit`.
    """

    def __init__(self, *, fsdp: int = 1, devices: Sequence[jax.Device] | None = None):
        if fsdp != 1:
            raise ValueError(f"devices.fsdp {fsdp}: pmap replicates the state; use map 'jit'")
        self._devices = jax.local_devices() if devices is None else devices
        self._all = devices  # None: those of all processes, as jax.pmap has it
        self.size = len(self._devices) * (jax.process_count() if devices is None else 1)

    def init(self, make: Callable[..., Tree], *args: Any) -> Tree:
        return self.spread(jax.jit(make)(*args))

    def gradients(self, fn: Callable) -> Callable:
        # Already inside the map over DATA; along FSDP there is one device.
        def alone(state: TrainState, batch: Tree) -> Tree:
            shares = Shares(dict.fromkeys([*state.trainable, *state.fixed]), frozenset())
            along = dict(in_axes=None, out_axes=None, axis_name=FSDP, axis_size=1)
            return jax.vmap(partial(fn, shares), **along)(state, batch)

        return alone

    def train(self, step: Callable, state: Tree) -> Callable:
        return jax.pmap(step, DATA, devices=self._all, donate_argnums=0)

    def predict(self, fn: Callable) -> Callable:
        return jax.pmap(fn, DATA, devices=self._all)

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        devices = len(self._devices)
        return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)

    def fetch(self, outputs: dict[str, jax.Array]) -> dict[str, np.ndarray]:
        own = jax.tree.map(lambda x: np.concatenate(_own(x)), outputs)
        if jax.process_count() > 1:
            return multihost_utils.process_allgather(own, tiled=True)
        return own

    def single(self, state: Tree) -> Tree:
        one = jax.tree.map(lambda x: x.addressable_shards[0].data[0], state)
        # Of several processes the first writes: Orbax takes an array of one host only from NumPy.
        return one if jax.process_count() == 1 else jax.device_get(one)

    def spread(self, state: Tree) -> Tree:
        if jax.process_count() > 1:  # Orbax leaves it on the devices of all
            state = jax.device_get(state)
        # The axis name makes the sharding equal to what pmap returns: one compilation, not two.
        return jax_utils.replicate(state, self._devices, axis_name=DATA)


def _own(x: jax.Array | np.ndarray) -> list[np.ndarray]:
    """The rows of each of this process's devices, of an array with a leading device axis."""
    if isinstance(x, np.ndarray):
        return list(x)
    return [row for shard in x.addressable_shards for row in np.asarray(shard.data)]


MAPS = {"jit": Jit, "pmap": Pmap}


def make(map: str, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Jit | Pmap:
    """The devices, as one of MAPS uses them.

    Args:
      map: a key of MAPS.
      fsdp: number of shares that "jit" splits large leaves of the state into.
      devices: those to use; None takes all.

    Raises:
      ValueError: an unknown map, or an `fsdp` that does not fit the devices.
    """
    if map not in MAPS:
        raise ValueError(f"devices.map {map!r}: known are {sorted(MAPS)}")
    return MAPS[map](fsdp=fsdp, devices=devices)
