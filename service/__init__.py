"""Answers: a user and a candidate list in, click probabilities out."""
