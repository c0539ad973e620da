"""`k3seq summary`: the layers of a model and their parameters."""

from collections.abc import Iterable, Iterator
from typing import Any

from k3seq.commands.consoles import results_console
from k3seq.typing import Json


def summary(name: str, depth: int = 1) -> dict[str, Json]:
    """Prints a table of the model's layers with their parameters.

    Args:
        name: a name of `k3seq.models.registry` or `package.module:factory`.
        depth: levels of nested layers to show. A layer's count includes the layers inside it.

    Returns:
        `{"name", "total", "trainable", "non_trainable", "layers"}`; a layer is `{"path", "class", "depth", "output_shape",
        "parameters", "trainable"}`, `output_shape` None where the model does not know it.

    Raises:
        UsageError: there is no model of the name; the message names the choices.
    """
    from rich.table import Table
    from rich.text import Text

    from k3seq.models import registry

    model = registry.create(name)
    layers = list(rows(model, depth))
    trainable, total = size(model.trainable_weights), size(model.weights)
    table = Table(title=f"{name} ({type(model).__name__})")
    for column in ("layer", "class", "output shape"):
        table.add_column(column, overflow="fold")
    for column in ("parameters", "trainable"):
        table.add_column(column, justify="right")
    for row in layers:
        shape = "" if row["output_shape"] is None else _shown(row["output_shape"])
        name_cell = Text("  " * (row["depth"] - 1) + row["path"])
        table.add_row(name_cell, row["class"], Text(shape), f"{row['parameters']:,}", f"{row['trainable']:,}")
    console = results_console()
    console.print(table)
    console.print(f"Total {total:,} · trainable {trainable:,} · not trainable {total - trainable:,}")
    return {"name": name, "total": total, "trainable": trainable, "non_trainable": total - trainable, "layers": layers}


def rows(holder: Any, depth: int, level: int = 1) -> Iterator[dict[str, Any]]:
    """The layers of a model or layer in the order of creation, each before its sub-layers, `depth` levels down."""
    from k3seq.backend.keras_internals import layers_of

    held = getattr(holder, "layers", None)  # Keras has no public list for a layer that is no model
    for layer in layers_of(holder, include_self=False, recursive=False) if held is None else held:
        yield {
            "path": layer.path or layer.name,  # a layer that was never built has no path
            "class": type(layer).__name__,
            "depth": level,
            "output_shape": output_shape(layer),
            "parameters": size(layer.weights),
            "trainable": size(layer.trainable_weights),
        }
        if level < depth:
            yield from rows(layer, depth, level + 1)


def size(weights: Iterable[Any]) -> int:
    """The number of scalars. A shared weight counts once."""
    import math

    return sum(math.prod(weight.shape) for weight in {id(weight): weight for weight in weights}.values())


def output_shape(layer: Any) -> Any:
    """The shape (or structure of shapes) of a layer in a functional graph; None where it was not called on symbolic inputs."""
    from keras import tree

    try:
        output = layer.output
    except (AttributeError, ValueError):
        return None
    return tree.map_structure(lambda tensor: list(tensor.shape), output)


def _shown(shape):
    if isinstance(shape, dict):
        return ", ".join(f"{name}: {_shown(part)}" for name, part in shape.items())
    if shape and isinstance(shape[0], list):
        return ", ".join(_shown(part) for part in shape)
    return str(tuple(shape)).replace("None", "-")
