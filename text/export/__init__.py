"""Exports text encoders: folded weights, ONNX graphs, golden answers, gates, benchmark.

May import all of ``text`` but its commands, and the graph writer, quantiser, bundle and interleaved
timing of ``model_export``; torch and onnx.
Start reading at ``build``, then ``folded`` and ``packed``.
"""
