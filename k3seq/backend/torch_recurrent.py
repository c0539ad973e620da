"""Recurrent layers on PyTorch: the fused kernels of ATen, where their conditions hold."""

from typing import Any

import torch

from k3seq.typing import Tensor


def lstm_sequence(
    x: Tensor, lengths: Tensor | None, h: Tensor, c: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """All steps of an LSTM in one fused call, `torch.lstm` (see `reference`)."""
    if lengths is not None and x.device.type == "cpu":
        return _held_lstm(x, lengths, h, c, kernel, recurrent_kernel, bias)
    weights = [kernel.T, recurrent_kernel.T, bias, torch.zeros_like(bias)]
    return _fused(torch.lstm, x, lengths, (h, c), weights)


# Added to the gates at padding. It is far larger than any other term, and fits into float16.
_HOLD = 1e4


def _held_lstm(x, lengths, h, c, kernel, recurrent_kernel, bias):
    """`lstm_sequence` over whole rows, padding included: an additional input is 1 at padding, where it closes i and opens f.

    On a CPU, torch runs whole rows in oneDNN's kernel, forward and backward, and packed rows in a loop of small operations.
    """
    d = h.shape[1]
    padding = (torch.arange(x.shape[1], device=x.device)[None] >= lengths[:, None])[:, :, None]
    hold = torch.cat([kernel.new_full((d,), -_HOLD), kernel.new_full((d,), _HOLD), kernel.new_zeros(2 * d)])
    x = torch.cat([x.masked_fill(padding, 0.0), padding.to(x.dtype)], -1)  # padding may hold anything, NaN too
    outputs, _, (c,) = torch.lstm(
        x,
        (h[None], c[None]),
        [torch.cat([kernel, hold[None]]).T, recurrent_kernel.T, bias, torch.zeros_like(bias)],
        *(True, 1, 0.0, torch.is_grad_enabled(), False, True),
    )
    ends = (lengths.long() - 1).clamp(min=0)[:, None, None].expand(-1, 1, d)
    h = torch.where(lengths[:, None] > 0, outputs.gather(1, ends)[:, 0], h)
    return outputs.masked_fill(padding, 0.0), h, c


def gru_sequence(
    x: Tensor, lengths: Tensor | None, h: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """All steps of a GRU in one fused call, `torch.gru` (see `reference`)."""

    def torch_order(weight):  # r, z, h
        z, r, candidate = weight.chunk(3, -1)
        return torch.cat([r, z, candidate], -1)

    weights = [torch_order(kernel).T, torch_order(recurrent_kernel).T, torch_order(bias[0]), torch_order(bias[1])]
    return _fused(torch.gru, x, lengths, (h,), weights)


def _fused(kernel, x, lengths, states, weights) -> Any:
    """(outputs, *states) of `torch.lstm` or `torch.gru`: over whole rows, or packed rows where there are lengths."""

    def hidden(order: Any = slice(None)):
        chosen: Any = tuple(state[None, order] for state in states)
        return chosen if len(chosen) > 1 else chosen[0]

    options = (weights, True, 1, 0.0, torch.is_grad_enabled(), False)
    if lengths is None:
        outputs, *last = kernel(x, hidden(), *options, True)
        return outputs, *(state[0] for state in last)
    # A packed row needs at least one step. An empty row takes one, and its results are then replaced: initial state and zeros.
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
    data, *last = kernel(packed.data, packed.batch_sizes, hidden(packed.sorted_indices), *options)
    back = packed.unsorted_indices
    packed = torch.nn.utils.rnn.PackedSequence(data, packed.batch_sizes, packed.sorted_indices, back)
    outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
    filled = (lengths > 0)[:, None]
    ends = (torch.where(filled, state[0, back], before) for state, before in zip(last, states, strict=True))
    return torch.where(filled[:, :, None], outputs, 0.0), *ends
