"""The Open Inference Protocol v2: ``/v2`` routes, tensors as JSON and as binary.

May import what ``service.api`` may, and ``service.api``.
Start reading at ``infer``.
"""
