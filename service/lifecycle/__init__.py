"""What becomes of versions, beside the answering of requests: comparing, taking back."""
