"""Where arrays live. The only module that knows about devices.

Two ways to map a step over the devices share one interface: `Jit` (jax.jit over a named mesh,
the default) and `Pmap` (jax.pmap over a leading device axis, with a replicated state). Both run
the same per-device gradient function.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import jax_utils
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"  # the axis over which a training step is mapped, by both
STATE_MIN = 2**20  # elements; smaller leaves are not worth splitting
Tree = Any  # of arrays, or of their shapes and dtypes


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
        auto = (AxisType.Auto,)
        self._mesh = jax.make_mesh(
            (self.size // fsdp, fsdp), (AXIS, "fsdp"), axis_types=2 * auto, devices=devices
        )
        # A batch is split over both axes, so it sees the same devices as one axis.
        self._flat = Mesh(self._mesh.devices.reshape(-1), (AXIS,), axis_types=auto)
        self._rows = NamedSharding(self._flat, P(AXIS))

    def _shardings(self, tree: Tree) -> Tree:
        """The sharding of each leaf; a large one is split along its longest divisible axis."""

        def sharding(leaf: Any) -> NamedSharding:
            spec, shares = [None] * len(leaf.shape), self._mesh.shape["fsdp"]
            if shares > 1 and np.prod(leaf.shape) >= STATE_MIN:
                for axis in np.argsort(leaf.shape)[::-1]:
                    if leaf.shape[axis] % shares == 0:
                        spec[axis] = "fsdp"
                        break
            return NamedSharding(self._mesh, P(*spec))

        return jax.tree.map(sharding, tree)

    def init(self, make: Callable[..., Tree], *args: Any) -> Tree:
        """Computes make(*args) on the devices where it stays."""
        shardings = self._shardings(jax.eval_shape(make, *args))
        return jax.jit(make, out_shardings=shardings)(*args)

    def gradients(self, fn: Callable) -> Callable:
        """Maps a per-device function of (state, batch) whose results are the same everywhere."""
        # check_vma=False: the function averages over AXIS by itself, as under pmap.
        specs = {"in_specs": (P(), P(AXIS)), "out_specs": P()}
        return jax.shard_map(fn, mesh=self._flat, check_vma=False, **specs)

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
        self.size = len(self._devices) * (jax.process_count() if devices is None else 1)

    def init(self, make: Callable[..., Tree], *args: Any) -> Tree:
        return self.spread(jax.jit(make)(*args))

    def gradients(self, fn: Callable) -> Callable:
        return fn  # already inside the map

    def train(self, step: Callable, state: Tree) -> Callable:
        return jax.pmap(step, AXIS, devices=self._devices, donate_argnums=0)

    def predict(self, fn: Callable) -> Callable:
        return jax.pmap(fn, AXIS, devices=self._devices)

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        devices = len(self._devices)
        return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)

    def fetch(self, outputs: dict[str, jax.Array]) -> dict[str, np.ndarray]:
        outputs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(outputs))
        if jax.process_count() > 1:
            return multihost_utils.process_allgather(outputs, tiled=True)
        return outputs

    def single(self, state: Tree) -> Tree:
        return jax.tree.map(lambda x: x.addressable_shards[0].data[0], state)

    def spread(self, state: Tree) -> Tree:
        # The axis name makes the sharding equal to what pmap returns: one compilation, not two.
        return jax_utils.replicate(state, self._devices, axis_name=AXIS)


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
