"""Lossless sentencepiece tokenizers: training, batch encoding, token accounting."""
