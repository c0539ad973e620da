"""The LSTM models in torch alone, as one writes them by hand: `torch.nn.LSTM`, autograd, `torch.optim.Adam`."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from k3seq.bench.running import Running, Weights
from k3seq.random.bits import Stream
from k3seq.typing import NDArray


class Seq2Seq(nn.Module):
    """Encoder and decoder LSTM, the decoder beginning in the encoder's last states; the weights of k3seq's LSTMSeq2Seq."""

    def __init__(self, source_vocabulary_size: int, target_vocabulary_size: int, embed_dim: int, units: int, weights: Weights):
        super().__init__()
        self.source = nn.Embedding.from_pretrained(tensor(weights.draw(source_vocabulary_size, embed_dim)), freeze=False)
        self.encoder = lstm(embed_dim, units, weights)
        self.target = nn.Embedding.from_pretrained(tensor(weights.draw(target_vocabulary_size, embed_dim)), freeze=False)
        self.decoder = lstm(embed_dim, units, weights)
        self.output = nn.Linear(units, target_vocabulary_size)
        self.output.weight.data = tensor(weights.draw(units, target_vocabulary_size).T)
        self.output.bias.data.zero_()

    def forward(self, source: torch.Tensor, lengths: torch.Tensor | None, target: torch.Tensor) -> torch.Tensor:
        x = self.source(source)
        if lengths is not None:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, state = self.encoder(x)
        outputs, _ = self.decoder(self.target(target), state)
        return self.output(outputs)


def lstm(inputs: int, units: int, weights: Weights, **options: Any) -> nn.LSTM:
    """A `torch.nn.LSTM` with Keras' starting weights: one bias (torch's second one stays zero), 1 for the forget gate."""
    made = nn.LSTM(inputs, units, batch_first=True, **options)
    for end in ("", "_reverse") if made.bidirectional else ("",):
        getattr(made, f"weight_ih_l0{end}").data = tensor(weights.draw(inputs, 4 * units).T)
        getattr(made, f"weight_hh_l0{end}").data = tensor(weights.draw(units, 4 * units).T)
        bias = getattr(made, f"bias_ih_l0{end}")
        bias.data.zero_()
        bias.data[units : 2 * units] = 1.0
        getattr(made, f"bias_hh_l0{end}").data.zero_()
        getattr(made, f"bias_hh_l0{end}").requires_grad_(False)
    return made


def train(payload: dict[str, Any]) -> Running:
    """A row's maker: train steps of the `Seq2Seq` above under Adam."""
    case, batch = payload["case"], payload["batch"]
    model = Seq2Seq(**case["arguments"], weights=Weights(case["seed"]))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=case["rates"]["adam"])
    steps = itertools.count(1)
    inputs = {name: torch.from_numpy(value) for name, value in batch["inputs"].items()}
    lengths = inputs.get("source_lengths")
    labels, weight = (torch.from_numpy(batch[name]) for name in ("labels", "sample_weight"))

    def step():
        # Keras adds its epsilon before the correction of the second moment, torch after it.
        optimizer.param_groups[0]["eps"] = 1e-7 / (1 - 0.999 ** next(steps)) ** 0.5
        optimizer.zero_grad()
        logits = model(inputs["source"], lengths, inputs["target"])
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten().long(), reduction="none")
        loss = (losses * weight.flatten()).sum() / weight.sum()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Running(step, wait, float, about())


def layer(payload: dict[str, Any]) -> Running:
    """A row's maker: one `torch.nn.LSTM` over (b, s, inputs), the gradients of its weights and inputs."""
    case, batch = payload["case"], payload["batch"]
    x = torch.from_numpy(batch["inputs"]).requires_grad_()
    lengths, units = batch["call"].get("lengths"), case["arguments"]["units"]
    model = lstm(x.shape[-1], units, Weights(case["seed"]))
    shapes = (*x.shape[:2], units), (len(x), units), (len(x), units)
    targets = [tensor(target(case, index, shape)) for index, shape in enumerate(shapes)]

    def step():
        model.zero_grad()
        x.grad = None
        packed = x
        if lengths is not None:
            packed = pack_padded_sequence(x, torch.from_numpy(lengths), batch_first=True, enforce_sorted=False)
        outputs, (h, c) = model(packed)
        if lengths is not None:
            outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
        pairs = zip((outputs, h[0], c[0]), targets, strict=True)
        loss = torch.stack([(value - goal).square().mean() for value, goal in pairs]).sum()
        loss.backward()
        return loss

    def number(loss):
        gradients = [x.grad, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]
        return loss.item() + float(torch.stack([gradient.norm() for gradient in gradients]).norm())

    return Running(step, wait, number, about())


def target(case: Mapping[str, Any], index: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """The target of an output, as in `k3seq.parity.subject.Subject.targets`."""
    return Stream(case["seed"], f"parity {case['name']} target {index}").normal(shape).astype("float32")


def about() -> dict[str, Any]:
    """What runs here."""
    devices = [f"cpu, {torch.get_num_threads()} threads"]
    return {"backend": "torch", "version": torch.__version__, "keras": None, "devices": devices}


def wait(value: Any) -> Any:
    """Waits until the value is computed; returns it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return value


def tensor(array: NDArray[Any]) -> torch.Tensor:
    """A copy of the array that torch may write to."""
    return torch.from_numpy(array.copy())
