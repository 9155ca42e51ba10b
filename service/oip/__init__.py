"""The Open Inference Protocol v2, for the clients people already have.

``message`` (the JSON), ``binary`` (the blobs behind it), ``compression``, ``parameters``, ``plan``
(all of it but the blobs), ``tensors`` (into a question), ``outputs`` (out of an answer), ``infer``
(the way through them); ``routes`` with ``naming``, ``metadata``, ``stats`` and ``repository``
beside them; ``errors`` for whatever goes wrong.
"""
