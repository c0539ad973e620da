"""What k3seq is measured against: stock Keras layers, and loops written by hand in a framework.

`stock.py` holds factories for Keras on any backend; `torch_lstm.py` and `jax_lstm.py` are peers written in the framework
alone, and import
their framework; `marian.py`, `ctranslate.py` and `hub.py` run k3seq's Transformer, from `transformer.py`'s weights, in
transformers, CTranslate2 and KerasHub where they are installed (`pip install "k3seq[peers]"`). A peer is a row's maker
(`package.module:function`, payload -> `k3seq.bench.running.Running`). The native ones start from the weights of
`running.Weights` in the order of the k3seq model, so that their losses can be compared.
"""
