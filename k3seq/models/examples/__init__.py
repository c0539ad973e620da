"""Models that show how something is done, with the sizes of their source.

`book` is a decoder in a functional graph, `document` has several inputs and outputs, `vae` trains on its own losses.
"""

from k3seq.runtime import backend_check

backend_check.check()  # before anything imports keras

from k3seq.models.examples.book import BookDecoder, book_decoder
from k3seq.models.examples.document import DocumentClassifier, document_classifier
from k3seq.models.examples.vae import VAE

__all__ = ["VAE", "BookDecoder", "DocumentClassifier", "book_decoder", "document_classifier"]
