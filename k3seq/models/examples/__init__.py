"""Models that show how something is done, with the sizes of their source: a decoder object in a functional graph,
several inputs and
outputs, and a train step of three losses."""

from k3seq.runtime import backend_check

backend_check.check()  # before anything imports keras

from k3seq.models.examples.book import BookDecoder, book_decoder
from k3seq.models.examples.document import DocumentClassifier, document_classifier
from k3seq.models.examples.vae import VAE

__all__ = ["VAE", "BookDecoder", "DocumentClassifier", "book_decoder", "document_classifier"]
