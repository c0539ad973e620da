"""Updates the table of docs/stock-layers.md: `python -m k3seq.parity.stock_cases.page docs/stock-layers.md RESULTS.json`."""

import json
import sys
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from k3seq.data.files import replacing
from k3seq.parity.markdown import parity_markdown
from k3seq.report.markdown import filled

# Why a case of `k3seq.parity.stock_cases` differs: the id of a known divergence.
CAUSES = {
    "add-of-a-column": ["Conv1D-channels-first"],
    "attention-without-a-key": ["MultiHeadAttention-empty-row"],
    "average-pooling-border": ["AveragePooling2D-same"],
    "bicubic-kernel": ["UpSampling2D-bicubic"],
    "category-above": ["CategoryEncoding-id-above"],
    "embedding-under-adam": ["tagger"],
    "masked-conv-lstm": ["ConvLSTM1D-mask"],
    "masked-lstm-leading": ["LSTM-left-padded-from-state", "GRU-empty-row-from-state"],
    "maximum-of-equals": ["Maximum-ties"],
    "mean-of-no-step": ["GlobalAveragePooling1D-empty-row"],
    "moments-cancel": ["BatchNormalization-far-from-zero", "GroupNormalization-far-from-zero"],
    "gradients-at-kinks": [
        f"Activation-{name}-at-its-kink" for name in ("leaky_relu", "selu", "celu", "hard_tanh", "sparse_sigmoid")
    ],
    "unit-normalization-of-zeros": ["UnitNormalization-zero-rows", "Dot-zero-rows"],
    "unrolled-zero-outputs": ["LSTM-zero-output-unrolled"],
    "wrapper-paths": [
        *(f"Bidirectional-{name}-right-padded" for name in ("LSTM", "GRU", "SimpleRNN")),
        *("Bidirectional-LSTM-empty-row", "Bidirectional-last-output-sum", "RNN-stacked-cells"),
        *("SpectralNormalization", "TimeDistributed"),
    ],
}
# Cases that differ by rounding alone, which their inputs make large.
ROUNDING = ("LayerNormalization-constant-rows", "Activation-gelu-tail", "Activation-mish-denormal")


def write_page(page: str | PathLike[str], files: Iterable[str | PathLike[str]]) -> None:
    """Writes results into the page.

    Args:
        page: path of docs/stock-layers.md.
        files: written by `k3seq parity k3seq.parity.stock_cases:CASES --json FILE`.

    Raises:
        ValueError: the page lacks the two lines around the table.
    """
    causes = {case: f"[{cause}](divergences.md#{cause})" for cause, cases in CAUSES.items() for case in cases}
    causes |= dict.fromkeys(ROUNDING, "[rounding](#what-differs-and-why)")
    results = [json.loads(Path(file).read_text(encoding="utf-8"))["result"] for file in files]
    text = filled(Path(page).read_text(encoding="utf-8"), parity_markdown(results, causes))
    with replacing(Path(page)) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_page(sys.argv[1], sys.argv[2:])
