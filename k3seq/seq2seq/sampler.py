"""The samplers at TFA's path; they are defined in `sampler_base`, `training_sampler` and `inference_sampler`."""

from k3seq.seq2seq.draws import bernoulli_sample, categorical_sample
from k3seq.seq2seq.inference_sampler import GreedyEmbeddingSampler, InferenceSampler, SampleEmbeddingSampler
from k3seq.seq2seq.sampler_base import CustomSampler, Sampler
from k3seq.seq2seq.scheduled_sampler import ScheduledEmbeddingTrainingSampler, ScheduledOutputTrainingSampler
from k3seq.seq2seq.training_sampler import TrainingSampler

__all__ = [
    "CustomSampler",
    "GreedyEmbeddingSampler",
    "InferenceSampler",
    "SampleEmbeddingSampler",
    "Sampler",
    "ScheduledEmbeddingTrainingSampler",
    "ScheduledOutputTrainingSampler",
    "TrainingSampler",
    "bernoulli_sample",
    "categorical_sample",
]
