"""Where arrays live. The only module that knows about devices.

Two ways to map a step over them, with one interface: `Jit` (jax.jit over a named mesh, the
default) and `Pmap` (jax.pmap over a leading device axis, a replicated state). Both run the
same per-device gradient function and differ only in what surrounds it.
"""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from flax import jax_utils
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"  # what a training step runs over, in both maps
STATE_MIN = 2**20  # elements; smaller leaves are not worth splitting


class Jit:
    """jax.jit over a (data, fsdp) mesh; large leaves of the state are split over fsdp.

    Attributes:
      size: devices that a batch is split over.
    """

    def __init__(self, *, fsdp: int = 1, devices=None):
        devices = jax.devices() if devices is None else devices
        self.size = len(devices)
        if self.size % fsdp:
            raise ValueError(f"devices.fsdp {fsdp}: does not divide the {self.size} devices")
        # Auto axes: the compiler shards what lies between our annotations.
        auto = (AxisType.Auto,)
        self._mesh = jax.make_mesh(
            (self.size // fsdp, fsdp), (AXIS, "fsdp"), axis_types=2 * auto, devices=devices
        )
        # A batch is split over both, so it sees the same devices as one axis.
        self._flat = Mesh(self._mesh.devices.reshape(-1), (AXIS,), axis_types=auto)
        self._rows = NamedSharding(self._flat, P(AXIS))

    def _where(self, shapes):
        """The sharding of each leaf: split along its longest divisible axis if large."""

        def rule(x):
            spec, parts = [None] * len(x.shape), self._mesh.shape["fsdp"]
            if parts > 1 and np.prod(x.shape) >= STATE_MIN:
                for axis in np.argsort(x.shape)[::-1]:
                    if x.shape[axis] % parts == 0:
                        spec[axis] = "fsdp"
                        break
            return NamedSharding(self._mesh, P(*spec))

        return jax.tree.map(rule, shapes)

    def init(self, make: Callable, *args):
        """make(*args), computed where it stays."""
        where = self._where(jax.eval_shape(make, *args))
        return jax.jit(make, out_shardings=where)(*args)

    def gradients(self, fn: Callable) -> Callable:
        """Maps a per-device function of (state, batch) whose results are the same everywhere."""
        # check_vma=False: the function averages over AXIS by itself, as under pmap.
        specs = {"in_specs": (P(), P(AXIS)), "out_specs": P()}
        return jax.shard_map(fn, mesh=self._flat, check_vma=False, **specs)

    def train(self, step: Callable, state) -> Callable:
        where = self._where(state)
        everywhere = NamedSharding(self._mesh, P())
        return jax.jit(
            step,
            in_shardings=(where, self._rows),
            out_shardings=(where, everywhere),
            donate_argnums=0,
        )

    def predict(self, fn: Callable) -> Callable:
        return jax.jit(fn, out_shardings=self._rows)

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process's rows of a batch -> arrays over all devices."""
        make = partial(jax.make_array_from_process_local_data, self._rows)
        return jax.tree.map(make, batch)

    def fetch(self, outputs) -> dict[str, np.ndarray]:
        """Per-image outputs of all processes, in the batch's order."""
        if jax.process_count() > 1:
            return multihost_utils.process_allgather(outputs, tiled=True)
        return jax.device_get(outputs)

    def single(self, state):
        """The state as a checkpoint holds it."""
        return state

    def spread(self, state):
        """A checkpoint's state, where the devices want it."""
        return jax.device_put(state, self._where(state))


class Pmap:
    """jax.pmap: a leading device axis on the replicated state and on every batch."""

    def __init__(self, *, fsdp: int = 1, devices=None):
        if fsdp != 1:
            raise ValueError(f"devices.fsdp {fsdp}: pmap replicates the state; use map 'jit'")
        self._devices = jax.local_devices() if devices is None else devices
        self.size = len(self._devices) * (jax.process_count() if devices is None else 1)

    def init(self, make: Callable, *args):
        return self.spread(jax.jit(make)(*args))

    def gradients(self, fn: Callable) -> Callable:
        return fn  # already inside the map

    def train(self, step: Callable, state) -> Callable:
        return jax.pmap(step, AXIS, devices=self._devices, donate_argnums=0)

    def predict(self, fn: Callable) -> Callable:
        return jax.pmap(fn, AXIS, devices=self._devices)

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        split = lambda x: x.reshape(len(self._devices), -1, *x.shape[1:])
        return jax.tree.map(split, batch)

    def fetch(self, outputs) -> dict[str, np.ndarray]:
        outputs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(outputs))
        if jax.process_count() > 1:
            return multihost_utils.process_allgather(outputs, tiled=True)
        return outputs

    def single(self, state):
        return jax.tree.map(lambda x: x.addressable_shards[0].data[0], state)

    def spread(self, state):
        # The axis name makes the sharding equal to what pmap returns: one compilation, not two.
        return jax_utils.replicate(state, self._devices, axis_name=AXIS)


MAPS = {"jit": Jit, "pmap": Pmap}


def make(map: str, fsdp: int = 1, devices=None) -> Jit | Pmap:
    """The devices as `map` uses them; `devices` restricts them (default: all)."""
    if map not in MAPS:
        raise ValueError(f"devices.map {map!r}: known are {sorted(MAPS)}")
    return MAPS[map](fsdp=fsdp, devices=devices)
