"""A peer with a fault: the native LSTM loop whose forget gates have no bias of 1."""

from k3seq.bench.peers import torch_lstm


def train(payload):
    """As `torch_lstm.train`, but for the bias."""
    right = torch_lstm.lstm

    def without_forget_bias(*arguments):
        made = right(*arguments)
        made.bias_ih_l0.data.zero_()
        return made

    torch_lstm.lstm = without_forget_bias
    return torch_lstm.train(payload)
