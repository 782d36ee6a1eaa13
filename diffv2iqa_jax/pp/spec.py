"""The mini-language of pipelines: "op(settings)|op(settings)"."""

import ast
from collections.abc import Callable
from typing import Any


def head(pipeline: str) -> tuple[str, str]:
    """What a pipeline does to a picture before it is restored, and what it does to all views.

    The first is a `resize` at its start, where there is one: a smaller picture is restored in
    less time, and its views are of its own size.
    """
    first, _, rest = pipeline.partition("|")
    return (first.strip(), rest) if first.strip().startswith("resize") else ("", pipeline)


def build(pipeline: str, ops: dict[str, Callable]) -> list[Any]:
    """Calls the makers that a pipeline string names, "op(settings)|op(settings)", in order.

    Raises:
      ValueError: no such op, or settings that it does not take.
    """
    texts = [text.strip() for text in pipeline.split("|")] if pipeline.strip() else []
    return [_make(text, pipeline, ops) for text in texts]


def _make(text: str, pipeline: str, ops: dict[str, Callable]):
    where = f"{text!r} in {pipeline!r}"
    try:
        call = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{where}: write op(settings)|op(settings)") from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"{where}: write op(settings); known are {sorted(ops)}")
    if call.func.id not in ops:
        raise ValueError(f"{where}: no such op; known are {sorted(ops)}")
    try:
        args = [ast.literal_eval(a) for a in call.args]
        kwargs = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        return ops[call.func.id](*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}; known are {sorted(ops)}") from error


def check_size(op: str, size: int) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"{op} takes whole numbers from 1; got {size!r}")
