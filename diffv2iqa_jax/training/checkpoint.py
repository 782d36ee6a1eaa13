"""Checkpoints of a run: asynchronous, atomic, self-describing, and checked when read.

Every step's folder holds three items: `weights` (averaged parameters and statistics, all that
scoring needs), `train` (what resuming needs beside them) and `meta` (the resolved configuration
and a checksum of every leaf). Orbax restores flipped bytes without a word; the checksums notice.
"""

import contextlib
import errno
import functools
import json
import logging
import os
import shutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from diffv2iqa_jax import storage
from diffv2iqa_jax.data import order
from diffv2iqa_jax.training import processes
from diffv2iqa_jax.training.state import TrainState, partition
from diffv2iqa_jax.types import Weights

LOG = logging.getLogger(__name__)
Array = jax.Array | np.ndarray
MARGIN = 2**20  # bytes of a checkpoint beside its arrays
Tree = Any  # of arrays, or of their shapes and dtypes

# Odd multipliers and shifts of MurmurHash3's finaliser.
_MIX = ((0x85EBCA6B, 13), (0xC2B2AE35, 16))


def _checksum(x: Array, xp: ModuleType = jnp) -> Array:
    """Two 32-bit sums over the mixed bits of every element and its index.

    Integer sums do not depend on the order, so they are the same on any number of devices, and
    only the sums leave the devices. A single changed element always changes both.

    Args:
      xp: jax.numpy, or numpy for an array on the host.
    """
    x = x.astype(xp.uint8) if x.dtype == bool else x
    unsigned = {1: xp.uint8, 2: xp.uint16, 4: xp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, unsigned) if xp is jnp else x.view(unsigned)
    bits, index, stride = bits.astype(xp.uint32), xp.zeros(x.shape, xp.uint32), 1
    for axis in reversed(range(x.ndim)):
        along_axis = [x.shape[axis] if i == axis else 1 for i in range(x.ndim)]
        position = xp.arange(x.shape[axis], dtype=xp.uint32).reshape(along_axis)
        index = index + position * xp.uint32(stride % 2**32)
        stride *= x.shape[axis]
    sums = []
    for multiplier in (0x9E3779B1, 0x27D4EB2F):
        mixed = bits ^ (index * xp.uint32(multiplier))
        for factor, shift in _MIX:
            mixed = (mixed * xp.uint32(factor)) ^ (mixed * xp.uint32(factor) >> shift)
        sums.append(xp.sum(mixed, dtype=xp.uint32))
    return xp.stack(sums)


_checksum_on_device = jax.jit(_checksum)  # leaf by leaf: a model has many leaves of few shapes


_finite_on_device = jax.jit(lambda x: jnp.isfinite(x).all())


def _is_on_cpu(x: Array) -> bool:
    devices = getattr(x, "sharding", None) and x.sharding.device_set
    return not devices or (x.is_fully_addressable and all(d.platform == "cpu" for d in devices))


def _checksum_where_it_is(x: Array) -> Array:
    """Sums a GPU's or TPU's array there; a CPU's with NumPy, which compiles nothing per shape."""
    if not _is_on_cpu(x):
        return _checksum_on_device(x)
    with np.errstate(over="ignore"):  # the sums wrap around, as they do on a device
        return _checksum(np.ascontiguousarray(x).reshape(x.shape), np)


def _finite_where_it_is(x: Array) -> Array | bool:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return True
    return np.isfinite(x).all() if _is_on_cpu(x) else _finite_on_device(x)


def not_finite(tree: Tree) -> list[str]:
    """Paths of the arrays in which a number is not finite."""
    finite = jax.device_get(jax.tree.map(_finite_where_it_is, tree))
    return [path for path, holds in _by_path(finite).items() if not holds]


def checksums(tree: Tree) -> dict[str, str]:
    """Path of each leaf -> "DTYPE[SHAPE] CHECKSUM", the checksum as 16 hexadecimal digits."""
    forms = _forms(tree)
    sums = _by_path(jax.device_get(jax.tree.map(_checksum_where_it_is, tree)))
    return {path: f"{forms[path]} {int(a):08x}{int(b):08x}" for path, (a, b) in sums.items()}


def _forms(tree: Tree) -> dict[str, str]:
    """Path of each leaf -> "DTYPE[SHAPE]"."""
    return {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in _by_path(tree).items()}


def _by_path(tree: Tree) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


class Damaged(ValueError):
    """A checkpoint that does not read back as it was written."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
      workdir: the run's folder, local or a bucket.
      keep: how many of the newest to keep.
    """

    def __init__(self, workdir: str, *, keep: int = 3):
        storage.check(workdir)
        self._home = epath.Path(storage.path(workdir))
        if not self._home.is_absolute():  # a gs:// path counts as absolute
            self._home = epath.Path(self._home).resolve()
        self._folder = self._home / "checkpoints"
        self._keep = keep
        self._manager = None

    @property
    def manager(self) -> ocp.CheckpointManager:
        """Orbax's manager; opened late, since it creates the folder."""
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._keep, create=True, cleanup_tmp_directories=True
            )
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        return self._manager

    def steps(self) -> list[int]:
        """The saved steps, newest first; reads only names and creates nothing."""
        if not self._folder.exists():
            return []
        return sorted(int(p.name) for p in self._folder.iterdir() if p.name.isdigit())[::-1]

    def save(self, state: TrainState, config: dict) -> None:
        """Starts saving, unless this step is saved already; training may go on at once.

        Raises:
          FloatingPointError: an array is not finite; nothing is saved.
          OSError: there is no room for this checkpoint, or for the one before it.
        """
        if int(state.step) in self.manager.all_steps():
            return
        weights, train = state.weights(), self._train(state)
        if bad := not_finite((weights, train)):
            raise FloatingPointError(
                f"step {int(state.step)}: {len(bad)} arrays, first {bad[0]}; the last checkpoint "
                "is intact"
            )
        meta = {
            "config": config,
            "step": int(state.step),
            "order": order.VERSION,
            "weights": checksums(weights),
            "train": checksums(train),
        }
        self._check_room(sum(x.nbytes for x in jax.tree.leaves((weights, train))))
        args = ocp.args.Composite(
            weights=ocp.args.StandardSave(weights),
            train=ocp.args.StandardSave(train),
            meta=ocp.args.JsonSave(meta),
        )
        with self._writing():
            self.manager.save(int(state.step), args=args, force=True)

    def restore(self, like: TrainState, frozen: str) -> TrainState | None:
        """Reads the newest intact state, shaped and placed as `like`; None if there is none.

        Moves a damaged checkpoint to the folder `damaged` and tries the one before it.
        """
        for step in self.steps():
            problem = ""
            try:
                weights = self._read(step, "weights", like.weights())
                train = self._read(step, "train", self._train(like))
            except Damaged as error:
                problem = str(error)
            problems = [text for text in processes.exchange("restored", problem) if text]
            if problems:  # for one process, so for all
                processes.first(functools.partial(self._set_aside, step, problems[0]))
                continue
            self._check_order(step)
            average, fixed = partition(weights.params, frozen)
            return TrainState(average=average, fixed=fixed, stats=weights.stats, **train)
        return None

    def weights(self, like: Weights, step: int | None = None) -> tuple[Weights, int]:
        """Reads the newest intact weights (or those of `step`); returns them and their step.

        Raises:
          FileNotFoundError: there is no intact checkpoint.
        """
        for candidate in self.steps() if step is None else [step]:
            try:
                return self._read(candidate, "weights", like), candidate
            except Damaged as error:
                LOG.error("checkpoint %d of %s is damaged: %s", candidate, self._home, error)
        raise FileNotFoundError(f"{self._home}: holds no intact checkpoint; train it first")

    def config(self) -> dict:
        """The resolved configuration of the newest readable checkpoint.

        Raises:
          FileNotFoundError: there is no readable checkpoint.
        """
        for step in self.steps():
            try:
                return self._meta(step)["config"]
            except Damaged as error:
                LOG.error("checkpoint %d of %s is damaged: %s", step, self._home, error)
        raise FileNotFoundError(f"{self._home}: holds no checkpoint; train it first")

    def close(self) -> None:
        """Waits for the last save. Raises OSError as `save` does."""
        if self._manager is not None:
            with self._writing():
                self._manager.wait_until_finished()
                self._manager.close()

    def _check_room(self, size: int) -> None:
        """Refuses to begin what will not fit: Orbax half-way complains of each array."""
        if not storage.is_remote(self._home) and processes.index() == 0:
            free = shutil.disk_usage(self._home).free
            if free < size + MARGIN:
                raise self._full(f"{free / 1e6:.1f} of {(size + MARGIN) / 1e6:.1f} MB")

    def _full(self, why: str) -> OSError:
        text = f"{os.strerror(errno.ENOSPC)}, a checkpoint is not written ({why})"
        return OSError(errno.ENOSPC, text, str(self._folder))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Within it Orbax writes, or says what an earlier save came to."""
        try:
            yield
            return
        except Exception as error:  # TensorStore says it in the words of its own error classes
            if "RESOURCE_EXHAUSTED" not in str(error) and error.args[:1] != (errno.ENOSPC,):
                raise
        # Without the cause: its traceback holds Orbax's unfinished writes.
        raise self._full("it was begun")

    @staticmethod
    def _train(state: TrainState) -> dict:
        """The item `train`: what `state.weights()` does not hold."""
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

    def _read(self, step: int, item: str, like: Tree) -> Tree:
        """Reads one item of a step and compares every leaf with its saved checksum."""
        saved = self._meta(step)[item]
        saved_forms = {path: text.rsplit(" ", 1)[0] for path, text in saved.items()}
        self._check_forms(step, _forms(like), saved_forms)
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
        bad = [path for path, text in checksums(tree).items() if saved[path] != text]
        if bad:
            raise Damaged(f"{len(bad)} of {len(saved)} arrays differ from their digest: {bad[:3]}")
        if bad := not_finite(tree):
            raise Damaged(f"{len(bad)} of {len(saved)} arrays are not finite: {bad[:3]}")
        return tree

    def _check_forms(self, step: int, now: dict[str, str], saved: dict[str, str]) -> None:
        """Raises ValueError where the saved arrays are not those of this configuration."""
        paths = sorted(k for k in now.keys() | saved.keys() if now.get(k) != saved.get(k))
        if not paths:
            return
        examples = "; ".join(f"{k}: saved {saved.get(k)}, now {now.get(k)}" for k in paths[:3])
        raise ValueError(
            f"checkpoint {step} of {self._home} does not fit this configuration: "
            f"{len(paths)} arrays differ ({examples}); use another workdir"
        )

    def _check_order(self, step: int) -> None:
        """Says so where the records came in another order up to here."""
        saved = self._meta(step).get("order", 1)
        if saved != order.VERSION:
            LOG.warning(
                "checkpoint %d: up to here records came in the order of version %d, from here in "
                "that of %d; numbers are not those of an unbroken run, which a new workdir gives",
                *(step, saved, order.VERSION),
            )

    def _set_aside(self, step: int, problem: str) -> None:
        LOG.error("checkpoint %d is damaged (%s); trying the one before it", step, problem)
        aside = self._home / "damaged"
        aside.mkdir(parents=True, exist_ok=True)
        storage.move_folder(self._folder / str(step), aside / str(step))
