"""What a function would compute, read off its trace."""

from collections.abc import Iterator

import jax


def sizes(fn, *args) -> set[int]:
    """How many elements each value has, inside loops and derivatives too."""
    return {int(value.aval.size) for value in _values(jax.make_jaxpr(fn)(*args).jaxpr)}


def _values(jaxpr) -> Iterator:
    def inner(x):
        return hasattr(x, "eqns") or hasattr(x, "jaxpr")

    for eqn in jaxpr.eqns:
        yield from (v for v in (*eqn.invars, *eqn.outvars) if hasattr(v.aval, "size"))
        for param in jax.tree.leaves(eqn.params, is_leaf=inner):
            if inner(param):
                yield from _values(getattr(param, "jaxpr", param))
