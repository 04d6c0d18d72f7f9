"""CLIP itself: checkpoints in and out, embeddings, zero-shot classifiers."""

from worker.clip.classifier import zero_shot_classifier
from worker.clip.embeddings import encode_images, encode_texts
from worker.clip.model import Clip

__all__ = ["Clip", "encode_images", "encode_texts", "zero_shot_classifier"]
