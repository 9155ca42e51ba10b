"""The Open Inference Protocol v2, for the clients people already have.

``message`` (the JSON), ``binary`` (the blobs behind it), ``compression``, ``tensors`` (into a
question), ``outputs`` (out of an answer), ``routes``; ``metadata``, ``stats`` and ``repository``
beside them; ``errors`` for whatever goes wrong.
"""
