"""How many float32 values a framework holds for the gradient of a loss: by its own account, without running a clock."""

import keras
import numpy as np

from k3seq import backend


def most_held(loss, weights, steps):
    """The most values that are held at a time, roughly: temporaries of the program (JAX), or what the backward pass keeps
    and the largest tensor that appears (PyTorch, TensorFlow).

    Args:
        loss: weights -> scalar. weights: {name: array}. steps: of a loop, if the loss has one.
    """
    return ACCOUNTS[keras.backend.backend()](loss, weights, steps)


def _jax(loss, weights, steps):
    import jax

    program = jax.jit(backend.value_and_grad(loss)).lower(weights).compile()
    return program.memory_analysis().temp_size_in_bytes // 4


def _torch(loss, weights, steps):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    kept, largest = {}, [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for leaf in result if isinstance(result, tuple | list) else [result]:
                if torch.is_tensor(leaf):
                    largest[0] = max(largest[0], leaf.numel())
            return result

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    point = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}
    with Watch(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss(point)
        at_the_end = sum(kept.values())
        value.backward()
    return max(largest[0], at_the_end)


def _tensorflow(loss, weights, steps):
    import tensorflow as tf

    point = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in weights.items()}
    program = tf.function(backend.value_and_grad(loss), autograph=False).get_concrete_function(point).graph
    written = program.as_graph_def(add_shapes=True)
    found = []
    for nodes in (written.node, *(function.node_def for function in written.library.function)):
        sizes = {node.name: [_size(shape) for shape in node.attr["_output_shapes"].list.shape] for node in nodes}
        found += [size for outputs in sizes.values() for size in outputs]
        # What a loop keeps for the backward pass, once for each step.
        pushed = [node.input[1].partition(":")[0] for node in nodes if node.op == "TensorListPushBack"]
        found += [steps * max(sizes.get(name, [0]), default=0) for name in pushed]
    return max(found)


def _size(shape):
    return 0 if shape.unknown_rank else int(np.prod([max(d.size, 0) for d in shape.dim]))


ACCOUNTS = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}
