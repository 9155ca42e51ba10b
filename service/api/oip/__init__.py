"""Implements the Open Inference Protocol v2: ``/v2`` routes, tensors as JSON or binary.

May import what ``service.api`` may, and ``service.api``.
Start reading at ``infer``.
"""
