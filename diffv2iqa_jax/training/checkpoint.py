"""Checkpoints of a run: asynchronous, atomic, self-describing, and checked when read.

Every step folder holds three items: `weights` (averaged parameters and statistics: all that
scoring needs), `train` (what else resuming needs) and `meta` (the resolved configuration and a
digest of every leaf). Orbax restores flipped bytes without a word; the digests notice.
"""

import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from diffv2iqa_jax.training.state import TrainState, partition
from diffv2iqa_jax.types import Weights

LOG = logging.getLogger(__name__)
# Odd multipliers and shifts of MurmurHash3's finaliser.
_MIX = ((0x85EBCA6B, 13), (0xC2B2AE35, 16))


def _checksum(x, xp=jnp):
    """Two 32-bit sums over the mixed bits of every element and its index.

    Integer sums do not depend on the order, so they are the same on any number of devices,
    and nothing leaves the devices but the sums. One changed element always changes both.

    Args:
      xp: jax.numpy, or numpy for an array on the host.
    """
    x = x.astype(xp.uint8) if x.dtype == bool else x
    unsigned = {1: xp.uint8, 2: xp.uint16, 4: xp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, unsigned) if xp is jnp else x.view(unsigned)
    bits, index, stride = bits.astype(xp.uint32), xp.zeros(x.shape, xp.uint32), 1
    for axis in reversed(range(x.ndim)):
        beside = [x.shape[axis] if i == axis else 1 for i in range(x.ndim)]
        place = xp.arange(x.shape[axis], dtype=xp.uint32).reshape(beside)
        index = index + place * xp.uint32(stride % 2**32)
        stride *= x.shape[axis]
    sums = []
    for start in (0x9E3779B1, 0x27D4EB2F):
        h = bits ^ (index * xp.uint32(start))
        for factor, shift in _MIX:
            h = (h * xp.uint32(factor)) ^ (h * xp.uint32(factor) >> shift)
        sums.append(xp.sum(h, dtype=xp.uint32))
    return xp.stack(sums)


_on_devices = jax.jit(_checksum)  # leaf by leaf: a model has many leaves of few shapes


def _sums(x):
    """The checksum of a leaf, computed where it is; a CPU would compile it for every shape."""
    devices = getattr(x, "sharding", None) and x.sharding.device_set
    if devices and not (x.is_fully_addressable and all(d.platform == "cpu" for d in devices)):
        return _on_devices(x)
    with np.errstate(over="ignore"):  # the sums wrap around, as they do on a device
        return _checksum(np.ascontiguousarray(x).reshape(x.shape), np)


def digest(tree) -> dict[str, str]:
    """Path of each leaf -> its dtype, shape and 64-bit checksum, as text."""
    sums = jax.device_get(jax.tree.map(_sums, tree))
    named = lambda t: {jax.tree_util.keystr(k): v for k, v in jax.tree.leaves_with_path(t)}
    leaves = named(tree)
    form = lambda x: f"{x.dtype}{list(x.shape)}"
    return {k: f"{form(leaves[k])} {int(v[0]):08x}{int(v[1]):08x}" for k, v in named(sums).items()}


class Damaged(ValueError):
    """A checkpoint that cannot be read back as it was written."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
      workdir: the run's folder, local or a bucket.
      keep: how many of the newest to keep.
    """

    def __init__(self, workdir: str, *, keep: int = 3):
        self._home = epath.Path(workdir)
        if not self._home.is_absolute():  # a gs:// path counts as absolute
            self._home = epath.Path(self._home).resolve()
        self._folder = self._home / "checkpoints"
        self._keep = keep
        self._manager = None

    @property
    def manager(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._keep, create=True, cleanup_tmp_directories=True
            )
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        return self._manager

    def steps(self) -> list[int]:
        """Steps that were saved, newest first; reads only names, creates nothing."""
        if not self._folder.exists():
            return []
        return sorted(int(p.name) for p in self._folder.iterdir() if p.name.isdigit())[::-1]

    def save(self, state: TrainState, config: dict) -> None:
        """Starts saving, unless this step is saved; training may go on at once."""
        if int(state.step) in self.manager.all_steps():
            return
        weights, train = state.weights(), self._train(state)
        meta = {"config": config, "step": int(state.step), "weights": digest(weights)}
        args = ocp.args.Composite(
            weights=ocp.args.StandardSave(weights),
            train=ocp.args.StandardSave(train),
            meta=ocp.args.JsonSave({**meta, "train": digest(train)}),
        )
        self.manager.save(int(state.step), args=args, force=True)

    def restore(self, like: TrainState, frozen: str) -> TrainState | None:
        """The newest intact state, shaped and placed as `like`; None if there is none.

        A damaged checkpoint is moved to the folder `damaged`, and the one before is tried.
        """
        for step in self.steps():
            try:
                weights = self._read(step, "weights", like.weights())
                train = self._read(step, "train", self._train(like))
            except Damaged as error:
                self._set_aside(step, error)
                continue
            average, fixed = partition(weights.params, frozen)
            return TrainState(average=average, fixed=fixed, stats=weights.stats, **train)
        return None

    def weights(self, like: Weights, step: int | None = None) -> tuple[Weights, int]:
        """The newest intact weights (or those of `step`), and their step.

        Raises:
          FileNotFoundError: there is no intact checkpoint.
        """
        for found in self.steps() if step is None else [step]:
            try:
                return self._read(found, "weights", like), found
            except Damaged as error:
                LOG.error("checkpoint %d of %s is damaged: %s", found, self._home, error)
        raise FileNotFoundError(f"{self._home}: holds no intact checkpoint; train it first")

    def config(self) -> dict:
        """The resolved configuration that the newest readable checkpoint was trained with."""
        for step in self.steps():
            try:
                return self._meta(step)["config"]
            except Damaged as error:
                LOG.error("checkpoint %d of %s is damaged: %s", step, self._home, error)
        raise FileNotFoundError(f"{self._home}: holds no checkpoint; train it first")

    def close(self) -> None:
        """Waits for the last save."""
        if self._manager is not None:
            self._manager.wait_until_finished()
            self._manager.close()

    @staticmethod
    def _train(state: TrainState) -> dict:
        return {
            "step": state.step,
            "trainable": state.trainable,
            "opt_state": state.opt_state,
        }

    def _meta(self, step: int) -> dict:
        try:
            return json.loads((self._folder / str(step) / "meta" / "metadata").read_text())
        except (OSError, ValueError) as error:
            raise Damaged(f"meta: {error}") from error

    def _read(self, step: int, item: str, like):
        """One item of a step, every leaf compared with the digest it was saved with."""
        want = self._meta(step)[item]
        form = lambda text: text.rsplit(" ", 1)[0]
        shapes = {k: form(v) for k, v in _forms(like).items()}
        if shapes != {k: form(v) for k, v in want.items()}:
            self._misfit(step, shapes, {k: form(v) for k, v in want.items()})
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        handler, why = ocp.StandardCheckpointer(), None
        try:
            tree = handler.restore(self._folder / str(step) / item, target=target)
        except Exception as error:  # tensorstore raises whatever the damage looks like
            why = str(error).splitlines()[0][:200]
        finally:
            handler.close()
        if why is not None:  # without the cause: its traceback holds Orbax's unfinished reads
            raise Damaged(why)
        bad = [k for k, v in digest(tree).items() if want[k] != v]
        if bad:
            raise Damaged(f"{len(bad)} of {len(want)} arrays differ from their digest: {bad[:3]}")
        return tree

    def _misfit(self, step: int, have: dict, want: dict):
        names = sorted(k for k in have.keys() | want.keys() if have.get(k) != want.get(k))
        first = "; ".join(f"{k}: saved {want.get(k)}, now {have.get(k)}" for k in names[:3])
        raise ValueError(
            f"checkpoint {step} of {self._home} does not fit this configuration: "
            f"{len(names)} arrays differ ({first}); use another workdir"
        )

    def _set_aside(self, step: int, error: Damaged) -> None:
        LOG.error("checkpoint %d is damaged (%s); trying the one before it", step, error)
        if jax.process_index() == 0:
            aside = self._home / "damaged"
            aside.mkdir(parents=True, exist_ok=True)
            shutil.move(str(self._folder / str(step)), str(aside / str(step)))


def _forms(tree) -> dict[str, str]:
    """As `digest`, with an empty checksum."""
    named = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(k): f"{v.dtype}{list(v.shape)} -" for k, v in named}
