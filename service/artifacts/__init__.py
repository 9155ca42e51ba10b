"""What the service keeps on disk for itself: directories of its own, and what is in them."""
