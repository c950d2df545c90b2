"""Advice before a training: matrices, ranks, method, learning rate, from what was measured."""
